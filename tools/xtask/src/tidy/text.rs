//! Words and characters that have no place in the project.
//!
//! Owns the lists. The forbidden words are written here in pieces, so that this file passes its own check.

use super::Finding;
use super::source::Source;

/// Pieces of a forbidden word, and why it is one.
const FORBIDDEN: &[(&[&str], &str)] = &[
    (&["/wo", "rk/"], "a path of one machine"),
    (&[".lib", "rary"], "a folder of one machine"),
    (&["deb", ".debian.org"], "an address; apt knows its own sources"),
    (&["static", ".crates.io"], "an address; cargo knows its own registry"),
    (&["index", ".crates.io"], "an address; cargo knows its own registry"),
    (&["py", "pi.org"], "an address; pip knows its own index"),
    (&["python", "hosted.org"], "an address; pip knows its own index"),
    (&["registry", ".npmjs"], "an address; npm knows its own registry"),
];

/// Files that a tool writes: their words are not ours.
const GENERATED: &[&str] = &["Cargo.lock"];

/// Non-ASCII text, forbidden words, disabled tests and unfinished code.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let ours = sources.iter().filter(|source| !GENERATED.contains(&source.path.as_str()));
    ours.flat_map(|source| {
        let mut findings = check_words(source);
        if source.path != "LICENSE" {
            findings.extend(check_ascii(source));
        }
        if source.is_rust() {
            findings.extend(check_code(source));
        }
        findings
    })
    .collect()
}

fn check_words(source: &Source) -> Vec<Finding> {
    let words: Vec<_> = FORBIDDEN.iter().map(|(pieces, why)| (pieces.concat(), *why)).collect();
    let lines = source.text.lines().enumerate();
    lines
        .flat_map(|(index, line)| {
            words.iter().filter(move |(word, _)| line.contains(word.as_str())).map(
                move |(word, why)| {
                    finding(source, index + 1, "words", format!("`{word}` is {why}; leave it out"))
                },
            )
        })
        .collect()
}

fn check_ascii(source: &Source) -> Vec<Finding> {
    let lines = source.text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let odd = line.chars().find(|c| !c.is_ascii())?;
            let what =
                format!("U+{:04X} is not ASCII; write it in ASCII or as an escape", u32::from(odd));
            Some(finding(source, index + 1, "ascii", what))
        })
        .collect()
}

fn check_code(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, code) in source.code_lines() {
        let squeezed: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        if squeezed.contains("#[ignore]") {
            let what =
                "a test is off without a reason; write #[ignore = \"reason\"], or fix it".into();
            findings.push(finding(source, line, "ignore", what));
        }
        if squeezed.contains("todo!(") || squeezed.contains("unimplemented!(") {
            let what = "unfinished code; finish it or leave it out".into();
            findings.push(finding(source, line, "todo", what));
        }
    }
    findings
}

fn finding(source: &Source, line: usize, rule: &'static str, what: String) -> Finding {
    Finding { path: source.path.clone(), line, rule, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        let sources = [Source { path: path.into(), text: text.into() }];
        check(&sources).iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn good_text_passes() {
        let text = "//! x\n#[ignore = \"needs a network\"]\nfn f() { let s = \"todo!()\"; }\n";
        assert!(rules("a.rs", text).is_empty());
    }

    #[test]
    fn disabled_tests_and_unfinished_code() {
        assert_eq!(rules("a.rs", "#[ignore]\nfn f() {}\n"), ["ignore"]);
        assert_eq!(rules("a.rs", "fn f() { todo!() }\n"), ["todo"]);
        assert_eq!(rules("a.rs", "fn f() { unimplemented !(\"x\") }\n"), ["todo"]);
    }

    #[test]
    fn machine_paths_and_addresses() {
        for (pieces, _) in FORBIDDEN {
            assert_eq!(rules("a.sh", &format!("x {} y\n", pieces.concat())), ["words"]);
        }
        assert!(rules("Cargo.lock", &FORBIDDEN[0].0.concat()).is_empty());
    }

    #[test]
    fn ascii_only() {
        assert_eq!(rules("a.md", "caf\u{e9}\n"), ["ascii"]);
        assert!(rules("LICENSE", "caf\u{e9}\n").is_empty());
    }
}
