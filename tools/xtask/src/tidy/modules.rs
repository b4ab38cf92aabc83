//! Every module starts with a `//!` line: what it owns, what it must not know, one sentence of flow.
//!
//! A file `x_tests.rs` needs none: it tests the module `x`, and a line that says so says nothing.

use super::Finding;
use super::source::Source;

/// Rust files whose first line is no module doc.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    sources
        .iter()
        .filter(|source| source.is_rust() && !source.path.ends_with("_tests.rs"))
        .filter(|source| !has_doc(&source.text))
        .map(|source| Finding {
            path: source.path.clone(),
            line: 1,
            rule: "module-doc",
            what: "starts with no `//!` line; say what the module owns and what it must not know"
                .into(),
        })
        .collect()
}

fn has_doc(text: &str) -> bool {
    let first = text.lines().next().and_then(|line| line.strip_prefix("//!"));
    first.is_some_and(|words| !words.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_must_be_a_doc_with_words() {
        assert!(has_doc("//! Owns it.\nfn f() {}\n"));
        assert!(!has_doc("//!\nfn f() {}\n"));
        assert!(!has_doc("use a;\n//! Late.\n"));
        assert!(!has_doc(""));
    }

    #[test]
    fn only_rust_is_asked() {
        let sources = [
            Source { path: "a_tests.rs".into(), text: "x\n".into() },
            Source { path: "a.sh".into(), text: "x\n".into() },
            Source { path: "a.rs".into(), text: "x\n".into() },
        ];
        let findings = check(&sources);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].path, "a.rs");
    }
}
