//! Links of the documents lead to files that exist.
//!
//! Owns the reading of Markdown links. Addresses of other sites are not asked: tidy uses no network.

use super::Finding;
use super::source::Source;
use std::collections::BTreeSet;

/// Relative links to files that are not there.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let known = known_paths(sources);
    let documents = sources.iter().filter(|source| source.path.ends_with(".md"));
    documents
        .flat_map(|source| {
            let broken = links(&source.text).into_iter().filter(|(_, target)| {
                resolve(&source.path, target).is_none_or(|path| !known.contains(path.as_str()))
            });
            broken.map(|(line, target)| Finding {
                path: source.path.clone(),
                line,
                rule: "links",
                what: format!("`{target}` leads to no file of the project; correct the link"),
            })
        })
        .collect()
}

/// Files and the folders above them.
fn known_paths(sources: &[Source]) -> BTreeSet<&str> {
    let mut known = BTreeSet::new();
    for source in sources {
        let mut path = source.path.as_str();
        known.insert(path);
        while let Some((folder, _)) = path.rsplit_once('/') {
            known.insert(folder);
            path = folder;
        }
    }
    known
}

/// Line and target of every relative link `](target)` outside fenced code.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for piece in line.split("](").skip(1) {
            let target = piece.split([')', ' ', '#']).next().unwrap_or_default();
            let elsewhere =
                target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere {
                found.push((index + 1, target.to_owned()));
            }
        }
    }
    found
}

/// Path of `target` as seen from the document `from`; `None` when it leaves the project.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn links_to_files_folders_and_anchors_pass() {
        let text = "[a](b.md) [c](../fs/) [d](#part) [e](b.md#part) [f](https://example.org/x)\n";
        let sources = [source("docs/a.md", text), source("docs/b.md", ""), source("fs/x.rs", "")];
        assert!(check(&sources).is_empty());
    }

    #[test]
    fn a_missing_file_and_a_way_out_are_found() {
        let found = check(&[source("docs/a.md", "x\n[a](gone.md)\n[b](../../etc)\n")]);
        assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn fenced_code_has_no_links() {
        assert!(check(&[source("a.md", "```\n[a](gone.md)\n```\n")]).is_empty());
    }
}
