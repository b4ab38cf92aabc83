//! Tests of the one place where faults become codes.

use super::*;
use hostd_api::error::LockCode;
use std::path::{Path, PathBuf};

fn io(errno: Errno) -> Fault {
    Fault::io("write", Path::new("/ds/web01"))(io::Error::from(errno))
}

#[test]
fn storage_faults_are_told_apart() {
    let cases = [
        (Errno::NOSPC, ErrorCode::NoSpace),
        (Errno::DQUOT, ErrorCode::NoSpace),
        (Errno::FBIG, ErrorCode::NoSpace),
        (Errno::IO, ErrorCode::Storage),
        (Errno::ROFS, ErrorCode::Storage),
        (Errno::ACCESS, ErrorCode::Storage),
        (Errno::MFILE, ErrorCode::HostLimit),
    ];
    for (errno, code) in cases {
        let error = api_error(&io(errno));
        assert_eq!(error.code, code, "{errno}");
        assert!(error.message.contains("/ds/web01") && !error.remedy.is_empty());
    }
}

#[test]
fn sealed_files_are_told_apart() {
    let path = PathBuf::from("/ds/web01/disks/root.disk");
    let cases = [
        (SealError::MacMismatch { path: path.clone() }, ErrorCode::Damaged),
        (SealError::Missing { path: path.clone() }, ErrorCode::NotFound),
        (SealError::Exists { path: path.clone() }, ErrorCode::AlreadyExists),
        (
            SealError::UnsupportedVersion { path: path.clone(), found: 9, known: 1 },
            ErrorCode::Unsupported,
        ),
        (SealError::Stale { path: path.clone(), expected: 1, found: 2 }, ErrorCode::InUse),
        (SealError::Io { path, action: "write", source: Errno::NOSPC.into() }, ErrorCode::NoSpace),
    ];
    for (fault, code) in cases {
        let error = api_error(&fault.into());
        assert_eq!(error.code, code);
        assert!(error.message.contains("root.disk"), "{}", error.message);
    }
}

#[test]
fn providers_are_told_apart() {
    let provider = || "native".to_owned();
    let cases = [
        (KmsError::BackupRequired { provider: provider() }, ErrorCode::BackupRequired),
        (
            KmsError::Unavailable { provider: provider(), reason: "down".into() },
            ErrorCode::ProviderUnavailable,
        ),
        (KmsError::Denied { provider: provider(), reason: "no".into() }, ErrorCode::Denied),
        (KmsError::StaleBackup { origin: "f".into() }, ErrorCode::WrongState),
    ];
    for (fault, code) in cases {
        assert_eq!(api_error(&fault.into()).code, code);
    }
}

#[test]
fn a_lock_carries_its_reason_and_every_code_has_a_remedy() {
    for code in [
        LockCode::LockedByOperator,
        LockCode::KeyNotFound,
        LockCode::KeyNotPushed,
        LockCode::ProviderNotConfigured,
        LockCode::ProviderUnavailable,
        LockCode::FetchFailed,
        LockCode::WrongKey,
        LockCode::SafeDamaged,
    ] {
        let reason = LockReason {
            code,
            reason: None,
            key_id: Some("native/1".into()),
            detail: "because".into(),
        };
        let error = api_error(&Fault::Locked { vm: "web01".into(), reason: reason.clone() });
        assert_eq!(error.code, ErrorCode::VmLocked);
        assert_eq!(error.lock, Some(reason));
        assert!(!error.remedy.is_empty());
        assert_eq!(status(error.code), StatusCode::LOCKED);
    }
}
