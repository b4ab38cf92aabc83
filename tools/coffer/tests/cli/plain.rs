//! What needs no hostd: closed outputs, help, completions, manual pages, usage errors.

use crate::server::{Exchange, Server};
use crate::tool::Tool;
use std::fs;
use std::process::Stdio;

fn empty_list() -> Vec<Exchange> {
    let (request, answer) = ("GET /v1/vms".into(), "[]".into());
    vec![Exchange { request, body: None, status: 200, answer }]
}

#[test]
fn a_reader_that_left_is_no_error() {
    let tool = Tool::new();
    let _server = Server::start(&tool.socket(), empty_list());
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let child = tool.command(&["vm", "list"]).stdout(writer).spawn().expect("starts");
    let said = tool.said(&child.wait_with_output().expect("ends"));
    assert_eq!((said.exit, said.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_full_output_is_an_error() {
    let tool = Tool::new();
    let _server = Server::start(&tool.socket(), empty_list());
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let child = tool.command(&["vm", "list"]).stdout(full).spawn().expect("starts");
    let said = tool.said(&child.wait_with_output().expect("ends"));
    assert_eq!(said.exit, Some(10), "{said:?}");
    assert!(said.stderr.starts_with("error: cannot print the answer"), "{said:?}");
}

#[test]
fn a_closed_stderr_changes_no_exit_code() {
    let tool = Tool::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = tool.command(&["vm", "list"]);
    let status = command.stderr(writer).stdout(Stdio::null()).status().expect("runs");
    assert_eq!(status.code(), Some(3));
}

#[test]
fn help_and_version_are_printed_on_stdout() {
    let tool = Tool::new();
    let help = tool.run(&["--help"]);
    assert_eq!((help.exit, help.stderr.as_str()), (Some(0), ""));
    assert!(help.stdout.contains("Exit codes:\n    0  done\n"), "{}", help.stdout);
    let version = tool.run(&["--version"]);
    assert_eq!(version.stdout, format!("coffer {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_name_every_noun() {
    let tool = Tool::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = tool.run(&["completions", shell]);
        assert_eq!(said.exit, Some(0));
        for noun in ["vm", "disk", "key", "host"] {
            assert!(said.stdout.contains(noun), "{shell} lacks {noun}");
        }
        let document = tool.run(&["completions", shell, "--json"]).document();
        assert_eq!(document["script"], said.stdout.as_str());
    }
}

#[test]
fn a_manual_page_comes_for_every_command() {
    let tool = Tool::new();
    let document = tool.run(&["manpages", "[DIR]", "--json"]).document();
    assert_eq!(document["ok"], true);
    for name in
        ["coffer", "coffer-vm", "coffer-vm-create", "coffer-disk-import", "coffer-key-backup"]
    {
        let page = fs::read_to_string(tool.path(&format!("{name}.1"))).expect(name);
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(fs::read_to_string(tool.path("coffer.1")).expect("there").contains("Exit codes"));
    let missing = tool.run(&["manpages", "[DIR]/none", "--json"]);
    assert_eq!(missing.error()["error"]["code"], "file");
    assert_eq!(missing.exit, Some(4));
}

#[test]
fn wrong_arguments_are_one_document_with_json() {
    let tool = Tool::new();
    for line in [&["vm", "frobnicate", "--json"][..], &["--json"], &["--json", "disk", "list"]] {
        let said = tool.run(line);
        assert_eq!(said.exit, Some(2));
        assert_eq!(said.error()["error"]["code"], "usage", "{line:?}");
        assert!(said.stdout.is_empty());
    }
}
