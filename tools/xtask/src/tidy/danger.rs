//! Every flag of the configuration's danger zone is named in a test.
//!
//! Owns the search. A flag that nobody tests is a hole that nobody watches.

use super::Finding;
use super::source::Source;

/// The struct that holds the flags.
const STRUCT: &str = "struct DangerZone";

/// The switch of the zone itself; it allows nothing alone.
const MASTER: &str = "enabled";

/// Flags that no test names.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let tests = test_text(sources);
    let rust = sources.iter().filter(|source| source.is_rust());
    rust.flat_map(|source| {
        flags(source).into_iter().filter(|(_, flag)| !tests.contains(flag.as_str())).map(|(line, flag)| Finding {
            path: source.path.clone(),
            line,
            rule: "danger-zone",
            what: format!("no test names the flag `{flag}`; test that it is off by default and what it opens"),
        })
    })
    .collect()
}

/// Lines and names of the flags in a file that defines the zone.
fn flags(source: &Source) -> Vec<(usize, String)> {
    let lines = source.code_lines();
    let body = lines.iter().skip_while(|(_, line)| !line.contains(STRUCT)).skip(1);
    body.take_while(|(_, line)| line.trim() != "}")
        .filter_map(|(number, line)| {
            let (name, kind) = line.trim().trim_end_matches(',').split_once(':')?;
            let name = name.split_whitespace().last()?;
            (kind.trim() == "bool" && name != MASTER).then(|| (*number, name.to_owned()))
        })
        .collect()
}

/// Text of all tests: whole test files, and what follows `#[cfg(test)]` in the others.
fn test_text(sources: &[Source]) -> String {
    let rust = sources.iter().filter(|source| source.is_rust());
    rust.filter_map(|source| {
        if source.is_test() {
            return Some(source.text.as_str());
        }
        source.text.split_once("#[cfg(test)]").map(|(_, tests)| tests)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONE: &str = "pub struct DangerZone {\n    pub enabled: bool,\n    /// x\n    pub no_memlock: bool,\n}\n";

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_flag_without_a_test_is_found() {
        let findings = check(&[source("hostd/src/config.rs", ZONE)]);
        assert_eq!((findings.len(), findings[0].line), (1, 4));
        assert!(findings[0].what.contains("no_memlock"));
    }

    #[test]
    fn a_test_file_or_module_that_names_it_is_enough() {
        let test = source("tests/it/danger.rs", "no_memlock = true");
        assert!(check(&[source("a.rs", ZONE), test]).is_empty());
        let inline = format!("{ZONE}#[cfg(test)]\nmod tests {{ /* no_memlock */ }}\n");
        assert!(check(&[source("a.rs", &inline)]).is_empty());
    }
}
