//! Which crate of the workspace may depend on which: the picture in docs/architecture.md, enforced.
//!
//! Owns the allowed edges. Reads only Cargo.toml files; every kind of dependency counts, tests included, because a
//! test that needs a forbidden edge tests the wrong crate.

use super::Finding;
use super::source::Source;

/// Package, and the packages of this workspace that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("crypto", &[]),
    ("cryptfs", &["crypto"]),
    ("kms-client", &["crypto"]),
    ("hostd-api", &[]),
    ("cluster", &["crypto", "hostd-api"]),
    ("vmd", &["crypto", "cryptfs", "hostd-api"]),
    ("hostd", &["crypto", "cryptfs", "kms-client", "hostd-api", "cluster"]),
    ("coffer", &["hostd-api"]),
    ("controld", &["crypto", "kms-client", "hostd-api"]),
    ("passthrough", &["cryptfs"]),
    ("xtask", &[]),
    ("tests", &["crypto", "cryptfs", "hostd-api", "cluster", "kms-client"]),
    ("fuzz", &["crypto", "cryptfs", "hostd-api", "kms-client", "vmd"]),
];

/// The tables of a manifest that name dependencies.
const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Edges that are not allowed, and packages that the list does not know.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    sources
        .iter()
        .filter(|source| source.path.ends_with("/Cargo.toml"))
        .flat_map(check_manifest)
        .collect()
}

fn check_manifest(source: &Source) -> Vec<Finding> {
    let manifest: toml::Table = match source.text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![finding(source, 1, format!("is no TOML: {error}"))],
    };
    let package = manifest.get("package").and_then(|table| table.get("name"));
    let Some(package) = package.and_then(toml::Value::as_str) else { return Vec::new() };
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package) else {
        let what =
            format!("package `{package}` has no line in edges.rs; say there what it may use");
        return vec![finding(source, 1, what)];
    };
    let names = TABLES.iter().filter_map(|table| manifest.get(*table)?.as_table());
    names
        .flat_map(toml::Table::keys)
        .filter(|name| is_ours(name) && !allowed.contains(&name.as_str()))
        .map(|name| {
            let what = format!(
                "`{package}` may not use `{name}`; move what it needs below both, or change the layering in docs/architecture.md and edges.rs"
            );
            finding(source, line_of(&source.text, name), what)
        })
        .collect()
}

fn is_ours(name: &str) -> bool {
    ALLOWED.iter().any(|(package, _)| *package == name)
}

fn line_of(text: &str, name: &str) -> usize {
    text.lines().position(|line| line.starts_with(name)).map_or(1, |index| index + 1)
}

fn finding(source: &Source, line: usize, what: String) -> Finding {
    Finding { path: source.path.clone(), line, rule: "edges", what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<Finding> {
        check(&[Source { path: "x/Cargo.toml".into(), text: text.into() }])
    }

    #[test]
    fn allowed_edges_pass() {
        let text =
            "[package]\nname = \"vmd\"\n[dependencies]\ncrypto.workspace = true\nserde = \"1\"\n";
        assert!(findings(text).is_empty());
    }

    #[test]
    fn a_key_owner_may_not_look_up() {
        let text =
            "[package]\nname = \"crypto\"\n[dependencies]\naes = \"1\"\ncryptfs.workspace = true\n";
        let found = findings(text);
        assert_eq!((found.len(), found[0].line), (1, 5));
        assert!(found[0].what.contains("`crypto` may not use `cryptfs`"));
    }

    #[test]
    fn edges_of_tests_count() {
        let text = "[package]\nname = \"vmd\"\n[dev-dependencies]\nkms-client.workspace = true\n";
        assert_eq!(findings(text).len(), 1);
    }

    #[test]
    fn an_unknown_package_and_bad_toml_are_told() {
        assert!(findings("[package]\nname = \"new\"\n")[0].what.contains("no line in edges.rs"));
        assert!(findings("[package\n")[0].what.contains("is no TOML"));
    }
}
