//! Exit codes: the mapping of every error code, and the documented list.

use super::*;
use crate::error::UsageError;
use hostd_api::error::ApiError;
use std::io;
use std::path::PathBuf;

/// Every code of the API with the exit code that scripts may rely on.
const CODES: [(ErrorCode, u8); 17] = [
    (ErrorCode::InvalidArgument, 2),
    (ErrorCode::NotFound, 4),
    (ErrorCode::AlreadyExists, 5),
    (ErrorCode::InUse, 6),
    (ErrorCode::WrongState, 6),
    (ErrorCode::StalePush, 6),
    (ErrorCode::VmLocked, 7),
    (ErrorCode::ProviderUnavailable, 8),
    (ErrorCode::BackupRequired, 8),
    (ErrorCode::Damaged, 9),
    (ErrorCode::Unsupported, 9),
    (ErrorCode::NoSpace, 10),
    (ErrorCode::Storage, 10),
    (ErrorCode::HostLimit, 11),
    (ErrorCode::Denied, 12),
    (ErrorCode::DataPlane, 1),
    (ErrorCode::Internal, 1),
];

fn api(code: ErrorCode) -> CliError {
    let error = ApiError { code, message: "m".into(), remedy: "r".into(), lock: None };
    CliError::Client(ClientError::Api { status: 400, error: Box::new(error) })
}

#[test]
fn every_api_code_has_its_exit_code() {
    for (code, number) in CODES {
        assert_eq!(exit_of(&api(code)).number(), number, "{code:?}");
    }
}

#[test]
fn client_side_errors_have_their_exit_codes() {
    let unreachable = |kind| {
        let reason = io::Error::from(kind);
        CliError::Client(ClientError::Unreachable { socket: PathBuf::from("/s"), reason })
    };
    let file = |kind| CliError::file("read", &PathBuf::from("f"))(io::Error::from(kind));
    let exists = CliError::FileExists { path: PathBuf::from("f") };
    let cases = [
        (unreachable(ErrorKind::NotFound), 3),
        (unreachable(ErrorKind::ConnectionRefused), 3),
        (unreachable(ErrorKind::PermissionDenied), 12),
        (CliError::Client(ClientError::Protocol("x".into())), 1),
        (CliError::Usage(UsageError::NotConfirmed), 2),
        (exists, 5),
        (file(ErrorKind::NotFound), 4),
        (file(ErrorKind::PermissionDenied), 12),
        (file(ErrorKind::StorageFull), 10),
        (CliError::Helper(HelperError::Missing { program: "qemu-img" }), 13),
        (CliError::Helper(HelperError::NoSpace { program: "qemu-img", said: String::new() }), 10),
        (CliError::RotateIncomplete { failed: 1, total: 2 }, 8),
        (CliError::VmDamaged { vm: "web01".into(), damaged: 1 }, 9),
        (CliError::Interrupted, 130),
    ];
    for (error, number) in cases {
        assert_eq!(exit_of(&error).number(), number, "{error:?}");
    }
}

#[test]
fn a_failed_import_ends_as_its_cause() {
    let cause = Box::new(api(ErrorCode::NoSpace));
    let error = CliError::Import { vm: "v".into(), disk: "d".into(), cause, cleanup: None };
    assert_eq!(exit_of(&error), Exit::Storage);
}

#[test]
fn the_documented_list_is_the_enum() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let page = std::fs::read_to_string(path).expect("docs/cli.md is part of the project");
    let section = page.split("## Exit codes").nth(1).expect("the page has the section");
    let section = section.split("\n## ").next().expect("split has a first part");
    let documented: Vec<(u8, String)> = section
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
        })
        .collect();
    let listed: Vec<(u8, String)> =
        Exit::ALL.iter().map(|(exit, text)| (exit.number(), (*text).to_owned())).collect();
    assert_eq!(documented, listed);
}

#[test]
fn the_list_is_sorted_and_the_help_shows_it() {
    let numbers: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| exit.number()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    for (exit, meaning) in Exit::ALL {
        assert!(help_text().contains(&format!("{:>3}  {meaning}", exit.number())));
    }
}
