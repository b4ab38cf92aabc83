//! The files that may contain `unsafe`, each with the reason why safe Rust cannot do it.
//!
//! Owns the list. That every block says why it is sound is clippy's (`undocumented_unsafe_blocks`).

use super::Finding;
use super::source::Source;

/// Path and reason.
const ALLOWED: &[(&str, &str)] = &[
    ("fs/crypto/src/arena/region.rs", "maps secret memory between guard pages"),
    ("fs/crypto/src/arena/slot.rs", "hands out exclusive ranges of that mapping"),
    ("fs/crypto/src/hpke/aws_lc.rs", "AWS-LC is a C library"),
    ("fs/crypto/src/registers.rs", "clears vector registers; there is no call for it"),
    ("fs/crypto/src/xts/aws_lc.rs", "AWS-LC is a C library"),
    ("fs/src/home/store.rs", "closes a descriptor by hand, to see the error of the close"),
    ("hostd/api/src/link/rights.rs", "a socket option that has no safe call"),
    ("hostd/src/service/spawner.rs", "a table of descriptors for one thread, made and cleared"),
    ("hostd/vmd/src/confine/root.rs", "mount_setattr(2) and unshare(2), which have no safe call"),
    (
        "hostd/vmd/src/main.rs",
        "takes over the descriptors that hostd passed by number, closes the rest",
    ),
    ("hostd/vmd/src/scratch.rs", "takes the socket that the caller passed"),
    ("hostd/vmd/src/nbd/budget.rs", "counters in memory that all vmds of a host share"),
    ("hostd/vmd/src/nbd/buffer.rs", "page-aligned buffers that go back to the kernel at once"),
    // Tests.
    ("fs/crypto/src/arena/arena_tests.rs", "looks at freed memory on purpose"),
    ("fs/crypto/src/arena/limit_tests.rs", "forks, and takes system calls away"),
    (
        "fs/crypto/src/hpke/hpke_tests.rs",
        "names a cipher of AWS-LC that only the standard's vector has",
    ),
    ("fs/crypto/src/sheet_tests.rs", "passes a descriptor to a child by its number"),
    ("fs/crypto/src/support.rs", "test memory that ends at an unmapped page"),
    ("fs/tests/allocations.rs", "an allocator that counts"),
    ("fs/tests/home_allocations.rs", "an allocator that counts"),
    ("fs/tests/home/data.rs", "maps files of a mounted home, and calls truncate(2) by path"),
    ("hostd/vmd/tests/it/confinement.rs", "makes the calls that the confinement must stop"),
];

/// Files with `unsafe` that are not on the list, and entries of the list that are not needed.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    check_against(sources, ALLOWED)
}

fn check_against(sources: &[Source], allowed: &[(&str, &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let Some(line) = first_unsafe(source) else { continue };
        seen.push(source.path.as_str());
        if !allowed.iter().any(|(path, _)| *path == source.path) {
            findings.push(finding(
                &source.path,
                line,
                "has `unsafe` and is not on the list; use a safe call (rustix), or add it with its reason to unsafe_list.rs",
            ));
        }
    }
    let stale = allowed.iter().filter(|(path, _)| !seen.contains(path));
    findings.extend(stale.map(|(path, _)| {
        finding(path, 1, "has no `unsafe`; take it off the list in unsafe_list.rs")
    }));
    findings
}

fn first_unsafe(source: &Source) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    source
        .code_lines()
        .iter()
        .find(|(_, line)| line.split(|c| !is_word(c)).any(|word| word == "unsafe"))
        .map(|(number, _)| *number)
}

fn finding(path: &str, line: usize, what: &str) -> Finding {
    Finding { path: path.into(), line, rule: "unsafe", what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "a.rs".into(), text: text.into() }
    }

    #[test]
    fn unsafe_needs_an_entry() {
        let findings = check_against(&[source("//! x\nfn f() { unsafe { g() } }\n")], &[]);
        assert_eq!((findings.len(), findings[0].line), (1, 2));
        assert!(check_against(&[source("unsafe impl Send for X {}")], &[("a.rs", "r")]).is_empty());
    }

    #[test]
    fn words_in_comments_strings_and_lint_names_do_not_count() {
        let text = "// unsafe\n#![deny(unsafe_op_in_unsafe_fn)]\nlet x = \"unsafe\";\n";
        assert!(check_against(&[source(text)], &[]).is_empty());
    }

    #[test]
    fn a_stale_entry_fails() {
        assert_eq!(check_against(&[source("fn f() {}")], &[("a.rs", "r")]).len(), 1);
        assert_eq!(check_against(&[], &[("gone.rs", "r")]).len(), 1);
    }
}
