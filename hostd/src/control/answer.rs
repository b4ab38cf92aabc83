//! From faults to API errors: code, message, remedy, HTTP status.
//!
//! The one place where errors of the daemon become codes of the control API. Faults of Coffer itself are logged
//! here, once, with their chain.

use crate::fault::Fault;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cryptfs::seal::SealError;
use hostd_api::error::{ApiError, ErrorCode, LockReason};
use kms_client::KmsError;
use rustix::io::Errno;
use std::io;

/// An answer that is an error.
pub(crate) struct Refused(pub(crate) Fault);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let error = api_error(&self.0);
        if error.code == ErrorCode::Internal {
            tracing::error!("{:?}", self.0);
        }
        (status(error.code), Json(error)).into_response()
    }
}

/// HTTP status of a code.
#[must_use]
pub fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorCode::Denied => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::AlreadyExists
        | ErrorCode::InUse
        | ErrorCode::WrongState
        | ErrorCode::StalePush
        | ErrorCode::BackupRequired => StatusCode::CONFLICT,
        ErrorCode::Damaged | ErrorCode::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::VmLocked => StatusCode::LOCKED,
        ErrorCode::DataPlane => StatusCode::BAD_GATEWAY,
        ErrorCode::ProviderUnavailable | ErrorCode::HostLimit => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Storage | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The API error of a fault.
#[must_use]
pub fn api_error(fault: &Fault) -> ApiError {
    let (code, remedy) = code_and_remedy(fault);
    let lock: Option<LockReason> = match fault {
        Fault::Locked { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    ApiError { code, message: fault.to_string(), remedy, lock }
}

fn code_and_remedy(fault: &Fault) -> (ErrorCode, String) {
    match fault {
        Fault::Refused(refusal) => (refusal.code, refusal.remedy.clone()),
        Fault::Vmd(failure) => (failure.code, failure.remedy.clone()),
        Fault::Locked { vm, reason } => (ErrorCode::VmLocked, lock_remedy(vm, reason)),
        Fault::Sealed(e) => own(seal_code(e)),
        Fault::Provider(e) => own(provider_code(e)),
        Fault::Key(e) => own(key_code(e)),
        Fault::Io { source, .. } => own(io_code(source)),
        Fault::Link { .. } => (
            ErrorCode::DataPlane,
            "see the log of hostd; the vmd is started again if it ended".into(),
        ),
        Fault::Bug(_) => (ErrorCode::Internal, "see the log of hostd, and report it".into()),
    }
}

fn own((code, remedy): (ErrorCode, &str)) -> (ErrorCode, String) {
    (code, remedy.to_owned())
}

fn lock_remedy(vm: &str, reason: &LockReason) -> String {
    use hostd_api::error::LockCode;
    match reason.code {
        LockCode::LockedByOperator => format!("run `coffer vm unlock {vm}`"),
        LockCode::KeyNotFound => {
            "restore the key at its provider, or the provider from its backup".into()
        }
        LockCode::KeyNotPushed => {
            "have the control plane push the key to this host; the VM is unlocked by that".into()
        }
        LockCode::ProviderNotConfigured => {
            "configure the provider that the key id names, and restart hostd".into()
        }
        LockCode::ProviderUnavailable => {
            format!(
                "open or reach the provider (`coffer key status`), then `coffer vm unlock {vm}`"
            )
        }
        LockCode::FetchFailed => {
            format!("see `coffer key status` and the log, then run `coffer vm unlock {vm}`")
        }
        LockCode::WrongKey => "check that the provider is the one that made the key".into(),
        LockCode::SafeDamaged => "restore vm.safe of the VM from a backup".into(),
    }
}

fn seal_code(fault: &SealError) -> (ErrorCode, &'static str) {
    match fault {
        SealError::Io { source, .. } | SealError::NotDurable { source, .. } => io_code(source),
        SealError::Missing { .. } => (ErrorCode::NotFound, "restore the file from a backup"),
        SealError::Exists { .. } => (ErrorCode::AlreadyExists, "choose another name"),
        SealError::UnsupportedVersion { .. } | SealError::UnsupportedFeature { .. } => {
            (ErrorCode::Unsupported, "use the release that wrote it, or a newer one")
        }
        SealError::Stale { .. } => {
            (ErrorCode::InUse, "another process changes the VM; stop it and try again")
        }
        SealError::Key { source, .. } => key_code(source),
        SealError::Open { source: crypto::OpenError::Arena(_), .. } => ARENA,
        SealError::Refused { .. } => (ErrorCode::Internal, "see the log of hostd, and report it"),
        _ => (ErrorCode::Damaged, "restore the file from a backup"),
    }
}

fn provider_code(fault: &KmsError) -> (ErrorCode, &'static str) {
    match fault {
        KmsError::BackupRequired { .. } => {
            (ErrorCode::BackupRequired, "run `coffer key backup FILE`, and keep FILE off this host")
        }
        KmsError::StaleBackup { .. } => {
            (ErrorCode::WrongState, "run `coffer key backup FILE` again")
        }
        KmsError::NotFound { .. } => (ErrorCode::NotFound, "see `coffer key status`"),
        KmsError::Denied { .. } | KmsError::Inactive { .. } => {
            (ErrorCode::Denied, "see `coffer key status`")
        }
        KmsError::Damaged { .. } => (ErrorCode::Damaged, "restore the key file from its backup"),
        KmsError::BackupDamaged { .. } => (ErrorCode::Damaged, "take another copy of the backup"),
        KmsError::SealDamaged { .. } | KmsError::SealOfAnother { .. } => {
            (ErrorCode::Damaged, "run `coffer key tpm seal`")
        }
        KmsError::NotSealed { .. } => (ErrorCode::NotFound, "run `coffer key tpm seal`"),
        KmsError::Tpm { .. } | KmsError::SealClosed { .. } => {
            (ErrorCode::ProviderUnavailable, "see `coffer key tpm status`")
        }
        KmsError::Unsupported { .. } => (ErrorCode::Unsupported, "use a newer release"),
        KmsError::Limit { .. } => (ErrorCode::HostLimit, "see `coffer key status`"),
        KmsError::Io { source, .. } | KmsError::NotDurable { source, .. } => io_code(source),
        KmsError::Key(e) => key_code(e),
        _ => (ErrorCode::ProviderUnavailable, "see `coffer key status`"),
    }
}

/// No room for keys.
const ARENA: (ErrorCode, &str) =
    (ErrorCode::HostLimit, "raise limits.key_memory_kib in the configuration, and LimitMEMLOCK");

fn key_code(fault: &crypto::KeyError) -> (ErrorCode, &'static str) {
    match fault {
        crypto::KeyError::Arena(_) => ARENA,
        _ => (ErrorCode::Internal, "see the log of hostd, and report it"),
    }
}

/// Codes of storage faults by what an operator can do about them.
fn io_code(fault: &io::Error) -> (ErrorCode, &'static str) {
    match fault.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            (ErrorCode::NoSpace, "free space on the datastore, or enlarge it")
        }
        Some(Errno::FBIG) => {
            (ErrorCode::NoSpace, "choose a smaller size: the file system has no larger files")
        }
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN) => {
            (ErrorCode::HostLimit, "raise LimitNOFILE or free memory")
        }
        Some(Errno::ROFS) => (ErrorCode::Storage, "mount the datastore writable"),
        _ => (ErrorCode::Storage, "check the storage, and the permissions of the path"),
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
