//! File budget: a file that is longer than a few screens does more than one thing.
//!
//! Owns the budget and the list of exceptions. Function size is clippy's (`too_many_lines` in clippy.toml).

use super::Finding;
use super::source::Source;

/// Lines of one Rust file. Good Rust in this field has files of median 100 to 250 lines and p95 about 400.
const BUDGET: usize = 400;

/// Files above the budget, each with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[(
    "fs/src/door/fuser/mod.rs",
    "a trait is implemented in one block: one flat method for each of 37 kernel requests, no decisions",
)];

/// Rust files above the budget that are neither tests nor excepted, and exceptions that are not needed.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    check_against(sources, EXCEPTIONS)
}

fn check_against(sources: &[Source], exceptions: &[(&str, &str)]) -> Vec<Finding> {
    let counted = sources.iter().filter(|source| source.is_rust() && !source.is_test());
    let long: Vec<_> = counted
        .map(|source| (source, source.text.lines().count()))
        .filter(|(_, lines)| *lines > BUDGET)
        .collect();
    let excepted = |path: &str| exceptions.iter().any(|(name, _)| *name == path);
    let unbudgeted = long.iter().filter(|(source, _)| !excepted(&source.path)).map(|(source, lines)| {
        finding(
            &source.path,
            *lines,
            format!("{lines} lines, the budget is {BUDGET}; split it by concern, or move long tests to a file x_tests.rs"),
        )
    });
    let stale = exceptions
        .iter()
        .filter(|(name, _)| !long.iter().any(|(source, _)| source.path == *name))
        .map(|(name, _)| {
            finding(name, 1, "is within the budget; take it off the list in size.rs".into())
        });
    unbudgeted.chain(stale).collect()
}

fn finding(path: &str, line: usize, what: String) -> Finding {
    Finding { path: path.into(), line, rule: "size", what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, lines: usize) -> Source {
        Source { path: path.into(), text: "x\n".repeat(lines) }
    }

    #[test]
    fn at_the_budget_is_good_and_above_is_bad() {
        assert!(check_against(&[source("a.rs", BUDGET)], &[]).is_empty());
        let findings = check_against(&[source("a.rs", BUDGET + 1)], &[]);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].path.as_str(), findings[0].line), ("a.rs", 401));
    }

    #[test]
    fn tests_and_other_languages_have_no_budget() {
        let sources =
            [source("a_tests.rs", 999), source("tests/it/a.rs", 999), source("a.md", 999)];
        assert!(check_against(&sources, &[]).is_empty());
    }

    #[test]
    fn an_exception_must_be_needed() {
        let exceptions = [("a.rs", "reason")];
        assert!(check_against(&[source("a.rs", 500)], &exceptions).is_empty());
        let stale = check_against(&[source("a.rs", 5)], &exceptions);
        assert!(stale[0].what.contains("take it off the list"));
    }
}
