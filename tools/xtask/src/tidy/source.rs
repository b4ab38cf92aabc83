//! The files of the project, and Rust text without its comments and literals.
//!
//! Owns which files belong to the project (git knows) and a small lexer. Must not know a rule. Files that are not
//! UTF-8 (golden images) are left out: no rule looks into them.

use std::fmt;
use std::path::Path;
use std::process::Command;

/// A text file of the project.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Path from the root of the project, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

/// Why the files could not be had.
#[derive(Debug)]
pub(crate) enum SourceError {
    /// `git ls-files` did not run.
    NoGit(std::io::Error),
    /// `git ls-files` failed; its last words.
    GitFailed(String),
    /// A file could not be read.
    Read(String, std::io::Error),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::NoGit(error) => write!(f, "cannot run git: {error}; install git"),
            SourceError::GitFailed(words) => {
                write!(f, "git ls-files failed: {words}; tidy needs a git work tree")
            }
            SourceError::Read(path, error) => write!(f, "cannot read {path}: {error}"),
        }
    }
}

impl Source {
    /// Is it Rust?
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Does it hold only tests? (`x_tests.rs`, or a file below a folder `tests`)
    pub(crate) fn is_test(&self) -> bool {
        self.path.ends_with("_tests.rs") || self.path.split('/').any(|part| part == "tests")
    }

    /// Lines of the code without comments and literals, with their numbers from 1.
    pub(crate) fn code_lines(&self) -> Vec<(usize, String)> {
        let code = code_only(&self.text);
        code.lines().enumerate().map(|(index, line)| (index + 1, line.to_owned())).collect()
    }
}

/// Reads every text file that git knows or would know (new files count, ignored ones do not).
pub(crate) fn read_all(root: &Path) -> Result<Vec<Source>, SourceError> {
    let mut sources = Vec::new();
    for path in list(root)? {
        let full = root.join(&path);
        if !full.is_file() {
            continue;
        }
        let bytes = std::fs::read(&full).map_err(|error| SourceError::Read(path.clone(), error))?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source { path, text });
        }
    }
    Ok(sources)
}

fn list(root: &Path) -> Result<Vec<String>, SourceError> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-c", "core.quotePath=false", "ls-files"])
        .args(["--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(SourceError::NoGit)?;
    if !output.status.success() {
        return Err(SourceError::GitFailed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Replaces comments and the content of string and character literals by blanks; lines stay where they are.
pub(crate) fn code_only(text: &str) -> String {
    let mut rest = text;
    let mut out = String::with_capacity(text.len());
    while let Some(first) = rest.chars().next() {
        let (skip, keep) = match token(rest) {
            Some(length) => (length, false),
            None => (first.len_utf8(), true),
        };
        let (piece, tail) = rest.split_at(skip);
        if keep {
            out.push_str(piece);
        } else {
            out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        // A name may end in r or b: only a fresh token starts a raw string.
        rest = if keep && (first.is_alphanumeric() || first == '_') {
            let word = tail.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tail.len());
            out.push_str(&tail[..word]);
            &tail[word..]
        } else {
            tail
        };
    }
    out
}

/// Length of the comment or literal at the start of `rest`, when there is one.
fn token(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    let prefix = ["br", "cr", "b", "c", "r", ""].iter().find(|prefix| {
        rest.strip_prefix(**prefix).is_some_and(|tail| {
            tail.starts_with('"') || (prefix.ends_with('r') && is_raw_start(tail))
        })
    })?;
    let tail = &rest[prefix.len()..];
    let length = if prefix.ends_with('r') { raw_string(tail) } else { string(tail) };
    Some(prefix.len() + length)
}

fn is_raw_start(tail: &str) -> bool {
    tail.starts_with('#') && tail.trim_start_matches('#').starts_with('"')
}

/// Block comments nest in Rust.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> usize {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    let start = hashes + 1;
    rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len())
}

/// A character literal; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return rest[3..].find('\'').map(|at| at + 4);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let text = "a // unsafe\n/* unsafe\n /* x */ */ b \"unsafe \\\" //\" c\n";
        let code = code_only(text);
        assert_eq!(code.lines().count(), 3);
        assert!(!code.contains("unsafe"));
        let words: Vec<_> = code.split_whitespace().collect();
        assert_eq!(words, ["a", "b", "c"]);
    }

    #[test]
    fn raw_strings_characters_and_lifetimes() {
        let code =
            code_only("r#\"unsafe \" \"# fn f<'a>(x: &'a str) { '\"'; '\\''; b\"unsafe\"; var }");
        assert!(!code.contains("unsafe"), "{code}");
        assert!(code.contains("fn f<'a>(x: &'a str)"), "{code}");
        assert!(code.contains("var }"), "{code}");
    }

    #[test]
    fn kinds_of_files() {
        let source = |path: &str| Source { path: path.into(), text: String::new() };
        assert!(source("fs/src/volume_tests.rs").is_test());
        assert!(source("tests/it/main.rs").is_test());
        assert!(!source("fs/src/volume.rs").is_test());
        assert!(source("fs/src/volume.rs").is_rust() && !source("a.md").is_rust());
    }
}
