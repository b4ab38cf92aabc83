//! The house rules, each a pure function from the files of the project to findings.
//!
//! Owns the list of the rules and the reading of the files. Must not know a compiler: what clippy can check
//! (function size, casts, `unwrap`) is clippy's. A run reads every file once and hands all of them to each rule.

mod danger;
mod edges;
mod links;
mod modules;
mod size;
mod source;
mod text;
mod unsafe_list;

use source::{Source, SourceError};
use std::fmt;
use std::path::Path;

/// A rule that a file breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Path of the file in the project.
    path: String,
    /// Line, counted from 1.
    line: usize,
    /// Name of the rule.
    rule: &'static str,
    /// What is wrong and what to do, in one sentence.
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}", self.path, self.line, self.rule, self.what)
    }
}

/// What a run found.
pub(crate) struct Outcome {
    /// Files looked at.
    pub(crate) files: usize,
    /// Rules broken, in the order of the rules.
    pub(crate) findings: Vec<Finding>,
}

/// Why a run could not be made.
#[derive(Debug)]
pub(crate) enum TidyError {
    /// The files of the project could not be listed or read.
    Source(SourceError),
    /// The findings could not be printed.
    Print(std::io::Error),
}

impl fmt::Display for TidyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TidyError::Source(error) => error.fmt(f),
            TidyError::Print(error) => write!(f, "cannot print: {error}"),
        }
    }
}

impl From<SourceError> for TidyError {
    fn from(error: SourceError) -> Self {
        TidyError::Source(error)
    }
}

impl From<std::io::Error> for TidyError {
    fn from(error: std::io::Error) -> Self {
        TidyError::Print(error)
    }
}

/// From all files of the project to the places that break one rule.
type Rule = fn(&[Source]) -> Vec<Finding>;

/// Every rule, in the order in which findings are printed.
const RULES: &[Rule] = &[
    size::check,
    modules::check,
    unsafe_list::check,
    edges::check,
    text::check,
    danger::check,
    links::check,
];

/// Checks the project in `root`.
pub(crate) fn run(root: &Path) -> Result<Outcome, TidyError> {
    let sources = source::read_all(root)?;
    let findings = RULES.iter().flat_map(|rule| rule(&sources)).collect();
    Ok(Outcome { files: sources.len(), findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_file_line_and_rule() {
        let finding = Finding {
            path: "a/b.rs".into(),
            line: 3,
            rule: "size",
            what: "too long; split it".into(),
        };
        assert_eq!(finding.to_string(), "a/b.rs:3: [size] too long; split it");
    }

    #[test]
    fn this_repository_is_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let sources = source::read_all(&root).unwrap();
        assert!(sources.iter().any(|source| source.path == "tools/xtask/src/tidy.rs"));
        assert!(!sources.iter().any(|source| source.path.starts_with("target/")));
    }
}
