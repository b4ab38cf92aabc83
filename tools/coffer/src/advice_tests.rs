//! What users read when a command failed.

use super::*;
use hostd_api::error::{ApiError, ErrorCode, LockCode};
use std::path::PathBuf;

fn locked() -> CliError {
    let lock = LockReason {
        code: LockCode::ProviderUnavailable,
        reason: Some("KeyStateClusterUnreachable".into()),
        key_id: Some("native/k1".into()),
        detail: "the provider is not open".into(),
    };
    let error = ApiError {
        code: ErrorCode::VmLocked,
        message: "VM web01 is locked".into(),
        remedy: "open the provider".into(),
        lock: Some(lock),
    };
    CliError::Client(ClientError::Api { status: 423, error: Box::new(error) })
}

#[test]
fn a_lock_shows_code_and_key() {
    let report = Report::of(&locked());
    assert_eq!(
        report.text(),
        "error: VM web01 is locked\n  locked: provider-unavailable (KeyStateClusterUnreachable), the provider is not open\n  \
         key: native/k1\n  to do: open the provider\n"
    );
    let json = serde_json::to_value(&report).expect("plain data");
    assert_eq!(json["error"]["code"], "vm-locked");
    assert_eq!(json["error"]["lock"]["key_id"], "native/k1");
    assert_eq!(json["exit_code"], 7);
}

#[test]
fn a_detail_in_the_message_is_not_said_twice() {
    let CliError::Client(ClientError::Api { mut error, status }) = locked() else {
        panic!("not an answer of hostd");
    };
    error.message = "VM web01 is locked: the provider is not open".into();
    let text = Report::of(&CliError::Client(ClientError::Api { error, status })).text();
    assert!(
        text.contains("\n  locked: provider-unavailable (KeyStateClusterUnreachable)\n"),
        "{text}"
    );
}

#[test]
fn an_unreachable_hostd_names_the_socket() {
    let error = CliError::Client(ClientError::Unreachable {
        socket: PathBuf::from("/nowhere/hostd.sock"),
        reason: io::Error::from(ErrorKind::NotFound),
    });
    let text = Report::of(&error).text();
    assert!(text.contains("/nowhere/hostd.sock"), "{text}");
    assert!(text.contains("systemctl start hostd"), "{text}");
}

#[test]
fn a_refused_user_is_told_the_group() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let gid = file.as_file().metadata().expect("metadata").gid();
    let groups = std::fs::read_to_string("/etc/group").expect("this machine has groups");
    let name = group_name(&groups, gid).unwrap_or_else(|| gid.to_string());
    let said = unreachable(file.path(), &io::Error::from(ErrorKind::PermissionDenied));
    assert_eq!(said, refused(Some(&name)));
    assert!(refused(Some("coffer")).contains("usermod -aG coffer USER"));
    assert!(!refused(Some("root")).contains("usermod"));
    assert!(refused(None).contains("sudo"));
}

#[test]
fn group_file_is_read() {
    let groups = "root:x:0:\ncoffer:x:998:alice,bob\nbroken\n";
    assert_eq!(group_name(groups, 998).as_deref(), Some("coffer"));
    assert_eq!(group_name(groups, 5), None);
}

#[test]
fn a_failed_import_says_what_became_of_the_disk() {
    let error = |cleanup| CliError::Import {
        vm: "web01".into(),
        disk: "root".into(),
        cause: Box::new(CliError::Interrupted),
        cleanup,
    };
    let gone = Report::of(&error(None)).text();
    assert_eq!(
        gone,
        "error: import of web01/root failed: interrupted; the unfinished disk was deleted\n"
    );
    let left = Report::of(&error(Some(Box::new(locked())))).text();
    assert!(left.contains("could not be deleted: VM web01 is locked"), "{left}");
    assert!(left.contains("coffer disk delete web01 root --yes"), "{left}");
}

#[test]
fn a_message_cannot_forge_lines() {
    let error = CliError::Client(ClientError::Protocol("a\nerror: b".into()));
    let text = Report::of(&error).text();
    assert!(text.starts_with("error: hostd gave no valid answer: a\\nerror: b\n"), "{text}");
}
