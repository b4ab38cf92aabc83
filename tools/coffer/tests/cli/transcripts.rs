//! Golden transcripts: `tests/cmd/NAME.toml` holds a command line and the answers of hostd, `NAME.out` what the
//! user sees. Each case runs once more with `--json`, which must print exactly one document.
//!
//! `COFFER_BLESS=1 cargo test -p coffer` writes the `.out` files anew; read the difference before you commit it.

use crate::server::{Exchange, Server};
use crate::tool::{Said, Tool};
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Arguments; `[DIR]` stands for a folder of the case.
    args: Vec<String>,
    /// Files in that folder, with their content.
    #[serde(default)]
    files: Vec<(String, String)>,
    /// `PATH` of the program, when it is not the usual one.
    #[serde(default)]
    path: Option<String>,
    /// No server listens.
    #[serde(default)]
    no_server: bool,
    /// Both documents come, as after a rotation that failed in part.
    #[serde(default)]
    both: bool,
    /// What hostd is asked, and what it says.
    #[serde(default)]
    exchange: Vec<Exchange>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd")
}

fn cases() -> Vec<(PathBuf, Case)> {
    let entries = fs::read_dir(folder()).expect("the folder of the cases");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "toml"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("readable");
        let case = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path, case)
    };
    paths.into_iter().map(read).collect()
}

fn play(case: &Case, json: bool) -> Said {
    let tool = Tool::new();
    for (name, content) in &case.files {
        fs::write(tool.path(name), content).expect("written");
    }
    let server = (!case.no_server).then(|| Server::start(&tool.socket(), case.exchange.clone()));
    let mut arguments: Vec<&str> = case.args.iter().map(String::as_str).collect();
    if json {
        arguments.push("--json");
    }
    let mut command = tool.command(&arguments);
    if let Some(path) = &case.path {
        command.env("PATH", path);
    }
    let said = tool.said(&command.output().expect("the program starts"));
    let expected: Vec<&String> = case.exchange.iter().map(|exchange| &exchange.request).collect();
    let asked = server.map(|server| server.asked()).unwrap_or_default();
    assert_eq!(asked.iter().collect::<Vec<_>>(), expected, "requests; {said:?}");
    said
}

#[test]
fn people_see_what_the_transcripts_say() {
    let bless = std::env::var_os("COFFER_BLESS").is_some();
    let mut wrong = Vec::new();
    for (path, case) in cases() {
        let said = play(&case, false);
        let exit = said.exit.map_or("none".to_owned(), |code| code.to_string());
        let seen = format!("exit {exit}\n--- stdout\n{}--- stderr\n{}", said.stdout, said.stderr);
        let golden = path.with_extension("out");
        if bless {
            fs::write(&golden, &seen).expect("written");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if seen != expected {
            wrong.push(format!("{}\nexpected {expected}\nseen {seen}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn programs_get_exactly_one_document() {
    for (path, case) in cases() {
        let said = play(&case, true);
        if case.both {
            let report: Value = serde_json::from_str(&said.stdout).expect("one document");
            assert!(report.is_object());
            said.error();
        } else if said.exit == Some(0) {
            let document = said.document();
            let known = document.is_array() || document["ok"] == true || document.is_object();
            assert!(known, "{}: {document}", path.display());
        } else {
            assert!(said.stdout.is_empty(), "{}: {}", path.display(), said.stdout);
            said.error();
        }
    }
}

#[test]
fn documents_carry_every_field_that_hostd_sent() {
    for (path, case) in cases() {
        let said = play(&case, true);
        let (Some(0), Some(last)) = (said.exit, case.exchange.last()) else { continue };
        let sent: Value = serde_json::from_str(&last.answer).expect("the case holds JSON");
        let shown = said.document();
        // Commands with an own document have their own tests.
        if shown["ok"] == true || case.args[1] == "list" && case.args[0] == "disk" {
            continue;
        }
        let contained = match (&sent, &shown) {
            (Value::Object(sent), Value::Object(shown)) => {
                sent.iter().all(|(key, value)| shown.get(key) == Some(value))
            }
            _ => sent == shown,
        };
        assert!(contained, "{}: {sent}\n{shown}", path.display());
    }
}

#[test]
fn every_command_has_a_transcript() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let page = fs::read_to_string(page).expect("docs/cli.md is part of the project");
    let cases = cases();
    let mut commands = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("| `coffer ")) {
        let words: Vec<&str> = line.split([' ', '`']).take(2).collect();
        let played = cases
            .iter()
            .any(|(_, case)| case.args.starts_with(&[words[0].into(), words[1].into()]));
        // Copies need a server for their data; they are tested in `copies`.
        let copy = words == ["disk", "export"];
        assert!(played || copy, "no transcript of {words:?}");
        commands += 1;
    }
    assert!(commands >= 21, "the table of commands was not found");
}
