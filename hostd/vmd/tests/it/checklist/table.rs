//! The table in `docs/nbd.md` and the tests it names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// All Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The functions of a source file that are tests.
fn names(source: &str) -> Vec<String> {
    let lines = source.lines().map(str::trim_start);
    let pairs = lines.clone().zip(lines.skip(1)).filter(|(attribute, _)| *attribute == "#[test]");
    let name = |line: &str| Some(line.strip_prefix("fn ")?.split('(').next()?.to_owned());
    pairs.filter_map(|(_, line)| name(line)).collect()
}

#[test]
fn every_test_in_the_table_exists() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(package.join("../../docs/nbd.md")).unwrap();
    let mut files = Vec::new();
    for folder in ["tests", "src", "../tests", "../src", "../../tests/it"] {
        sources(&package.join(folder), &mut files);
    }
    let tests: BTreeSet<String> =
        files.iter().flat_map(|file| names(&std::fs::read_to_string(file).unwrap())).collect();
    let (mut points, mut is_table) = (BTreeSet::new(), false);
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(named) = cells.get(3) else {
            is_table = false;
            continue;
        };
        is_table |= named.starts_with("Test");
        if !is_table {
            continue;
        }
        if let Ok(point) = cells[1].parse::<u32>() {
            assert!(points.insert(point), "point {point} has two rows");
            assert!(named.contains('`'), "{line}");
        }
        for name in named.split('`').skip(1).step_by(2) {
            assert!(tests.contains(name), "{name} is no test");
        }
    }
    let missing: Vec<u32> = (1..=80).filter(|point| !points.contains(point)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}
