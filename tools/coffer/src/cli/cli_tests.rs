//! Parsing of the command line.

use super::*;
use crate::image::Format;
use clap::error::ErrorKind;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("coffer").chain(line.split_whitespace()))
}

fn disk_verb(line: &str) -> DiskVerb {
    match parse(line).expect("a good line").noun {
        Noun::Disk(verb) => verb,
        other => panic!("not a disk command: {other:?}"),
    }
}

#[test]
fn the_grammar_is_consistent() {
    command().debug_assert();
}

#[test]
fn every_command_of_the_manual_parses() {
    for line in [
        "vm create web01",
        "vm create web01 --datastore fast",
        "vm create web01 --names plain",
        "vm create web01 --names encrypted",
        "vm list",
        "vm show web01",
        "vm register /srv/vms/web01",
        "vm mount web01",
        "vm umount web01 --force",
        "vm lock web01 --force",
        "vm unlock web01",
        "vm tls web01 --on --port 10810",
        "vm tls web01 --off",
        "vm delete web01 --yes",
        "disk create web01 root --size 20G --unit 4096",
        "disk import web01 root f.qcow2 --format qcow2 --unit 512 --allow-backing",
        "disk export web01 root f.raw --format raw --force",
        "disk list web01",
        "disk attach web01 root --read-only -v",
        "disk attach web01 root --owner qemu:kvm",
        "disk detach web01 root --force",
        "disk resize web01 root --size 1.5T --shrink --yes",
        "disk delete web01 root --yes",
        "key status",
        "key backup f",
        "key rotate --vm web01",
        "key revoke kmip/1 --compromised --why moved --yes",
        "key destroy kmip/1 --yes",
        "host status",
        "completions bash",
        "manpages /tmp",
    ] {
        let cli = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(!cli.common.json);
        assert!(parse(&format!("{line} --json")).expect("global").common.json, "{line}");
    }
}

#[test]
fn options_become_rich_types() {
    let DiskVerb::Create { name, size, unit } = disk_verb("disk create a b --size 1.5K --unit 512")
    else {
        panic!("not create");
    };
    assert_eq!((name.to_string().as_str(), size, unit), ("a/b", 1536, Some(512)));
    let DiskVerb::Import(import) = disk_verb("disk import a b f --format vmdk") else {
        panic!("not import");
    };
    assert_eq!(
        (import.format, import.unit, import.allow_backing),
        (Some(Format::Vmdk), None, false)
    );
    let DiskVerb::Export(export) = disk_verb("disk export a b f") else { panic!("not export") };
    assert_eq!(Format::from(export.format), Format::Raw);
}

#[test]
fn the_socket_has_a_default_and_can_be_said_anywhere() {
    assert_eq!(parse("--socket /s vm list").expect("good").common.socket, PathBuf::from("/s"));
    assert_eq!(parse("vm list --socket /s").expect("good").common.socket, PathBuf::from("/s"));
    let socket = command().get_arguments().find(|a| a.get_id() == "socket").cloned();
    let defaults = socket.expect("there").get_default_values().to_vec();
    assert_eq!(defaults, [DEFAULT_SOCKET]);
}

#[test]
fn wrong_lines_are_refused() {
    for line in [
        "vm",
        "vm create",
        "vm frobnicate x",
        "disk create a b",
        "disk create a b --size 20GB",
        "disk create a b --size 0",
        "disk create a b --size 1G --unit 1024",
        "disk import a b f --format vdi",
        "disk export a b f --format vmdk",
        "key backup",
        "host",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    assert!(Cli::try_parse_from(["coffer", "vm", "show", ""]).is_err());
}

#[test]
fn a_bad_size_says_what_is_accepted() {
    let error = parse("disk create a b --size lots").expect_err("no size").to_string();
    assert!(error.contains("512") && error.contains("1.5T"), "{error}");
}

#[test]
fn the_long_help_lists_the_exit_codes() {
    let error = parse("--help").expect_err("help ends parsing");
    assert_eq!(error.kind(), ErrorKind::DisplayHelp);
    assert!(error.to_string().contains("  7  the VM is locked"));
}

#[test]
fn every_part_has_a_help_text() {
    fn check(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
        command.get_subcommands().for_each(check);
    }
    check(&command());
}

#[test]
fn the_manual_names_every_command_and_option() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let page = std::fs::read_to_string(path).expect("docs/cli.md is part of the project");
    for noun in command().get_subcommands().filter(|noun| !noun.is_hide_set()) {
        for verb in noun.get_subcommands() {
            let name = format!("coffer {} {}", noun.get_name(), verb.get_name());
            let line = page.lines().find(|line| line.contains(&name));
            let line = line.unwrap_or_else(|| panic!("docs/cli.md does not name `{name}`"));
            for option in verb.get_arguments().filter_map(|a| a.get_long()) {
                assert!(
                    line.contains(&format!("--{option}")),
                    "{name}: --{option} not in `{line}`"
                );
            }
        }
    }
}
