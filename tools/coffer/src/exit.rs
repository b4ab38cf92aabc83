//! The exit codes: a public, numbered list that scripts rely on. Numbers are never reused.
//!
//! Owns the list and the one function that maps an error to it; `docs/cli.md` documents it and a test
//! compares the two.

use crate::error::{CliError, HelperError, ImageError};
use hostd_api::client::ClientError;
use hostd_api::error::ErrorCode;
use std::io::ErrorKind;
use std::process::ExitCode;

/// How `coffer` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// A fault of Coffer itself, or a vmd that ended.
    Internal = 1,
    /// Wrong arguments, or not confirmed.
    Usage = 2,
    /// hostd cannot be reached.
    Unreachable = 3,
    /// No such VM, disk, datastore or key.
    NotFound = 4,
    /// It is there already.
    Exists = 5,
    /// In use, or in a state that does not allow it.
    Busy = 6,
    /// The VM is locked.
    Locked = 7,
    /// The key provider cannot give or make a key.
    Provider = 8,
    /// Damaged, or of an unknown version or format.
    Damaged = 9,
    /// Storage failed or is full.
    Storage = 10,
    /// A limit of the host is in the way.
    HostLimit = 11,
    /// Not allowed.
    Denied = 12,
    /// A helper program is missing or failed.
    Helper = 13,
    /// Interrupted by a signal; what was begun has been undone.
    Interrupted = 130,
}

impl Exit {
    /// Every code with its meaning, in order.
    pub(crate) const ALL: [(Self, &'static str); 15] = [
        (Self::Ok, "done"),
        (Self::Internal, "a fault of Coffer itself, or a vmd that ended"),
        (Self::Usage, "wrong arguments, or not confirmed"),
        (Self::Unreachable, "hostd cannot be reached"),
        (Self::NotFound, "no such VM, disk, datastore, key or file"),
        (Self::Exists, "it is there already"),
        (Self::Busy, "in use, or in a state that does not allow it"),
        (Self::Locked, "the VM is locked"),
        (Self::Provider, "the key provider cannot give or make a key"),
        (Self::Damaged, "damaged, or of an unknown version or format"),
        (Self::Storage, "storage failed or is full"),
        (Self::HostLimit, "a limit of the host is in the way"),
        (Self::Denied, "not allowed"),
        (Self::Helper, "a helper program (qemu-img) is missing or failed"),
        (Self::Interrupted, "interrupted; what was begun has been undone"),
    ];

    /// The number.
    pub(crate) fn number(self) -> u8 {
        // A field-less enum with an explicit u8 representation: the value is the number.
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// The exit code of `error`.
pub(crate) fn exit_of(error: &CliError) -> Exit {
    match error {
        CliError::Client(ClientError::Api { error, .. }) => exit_of_code(error.code),
        CliError::Client(ClientError::Unreachable { reason, .. }) => match reason.kind() {
            ErrorKind::PermissionDenied => Exit::Denied,
            _ => Exit::Unreachable,
        },
        CliError::Client(ClientError::Protocol(_)) => Exit::Internal,
        CliError::Usage(_) => Exit::Usage,
        CliError::FileExists { .. } | CliError::Unfinished { .. } => Exit::Exists,
        CliError::File { reason, .. } => exit_of_kind(reason.kind()),
        CliError::Image(ImageError::Empty { .. } | ImageError::NoStorage { .. }) => Exit::Usage,
        CliError::Image(ImageError::ReadsOthers { .. }) => Exit::Denied,
        CliError::Image(
            ImageError::Foreign { .. }
            | ImageError::Damaged { .. }
            | ImageError::Inconsistent { .. },
        ) => Exit::Damaged,
        CliError::Helper(
            HelperError::Missing { .. }
            | HelperError::NotRun { .. }
            | HelperError::Failed { .. }
            | HelperError::Answer { .. },
        ) => Exit::Helper,
        CliError::Import { cause, .. } => exit_of(cause),
        CliError::Helper(HelperError::NoSpace { .. }) => Exit::Storage,
        CliError::BackupDamaged { .. } | CliError::Output(_) => Exit::Storage,
        CliError::VmDamaged { .. } => Exit::Damaged,
        CliError::RotateIncomplete { .. } => Exit::Provider,
        CliError::Interrupted => Exit::Interrupted,
    }
}

/// The exit code of an error code of the API.
pub(crate) fn exit_of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::InvalidArgument => Exit::Usage,
        ErrorCode::NotFound => Exit::NotFound,
        ErrorCode::AlreadyExists => Exit::Exists,
        ErrorCode::InUse | ErrorCode::WrongState | ErrorCode::StalePush => Exit::Busy,
        ErrorCode::VmLocked => Exit::Locked,
        ErrorCode::ProviderUnavailable | ErrorCode::BackupRequired => Exit::Provider,
        ErrorCode::Damaged | ErrorCode::Unsupported => Exit::Damaged,
        ErrorCode::NoSpace | ErrorCode::Storage => Exit::Storage,
        ErrorCode::HostLimit => Exit::HostLimit,
        ErrorCode::Denied => Exit::Denied,
        ErrorCode::DataPlane | ErrorCode::Internal => Exit::Internal,
    }
}

fn exit_of_kind(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::NotFound => Exit::NotFound,
        ErrorKind::PermissionDenied => Exit::Denied,
        _ => Exit::Storage,
    }
}

/// The list of exit codes for `coffer --help`.
pub(crate) fn help_text() -> String {
    let mut text = String::from("Exit codes:\n");
    for (exit, meaning) in Exit::ALL {
        text.push_str(&format!("  {:>3}  {meaning}\n", exit.number()));
    }
    text
}

#[cfg(test)]
#[path = "exit_tests.rs"]
mod tests;
