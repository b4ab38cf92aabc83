//! Where an error becomes one of the eight codes of the protocol, and is logged, once.
//!
//! Owns the mapping and the log, which has a limit: a guest can cause errors as fast as it can send, and must not
//! fill the host's log. It must not know connections. Flow: [`FaultLog::volume`] takes the full error, writes
//! it down, and returns the code for the reply.

use super::proto::WireError;
use cryptfs::quota::LogQuota;
use cryptfs::volume::{Fault, VolumeError};
use std::io;
use std::time::Instant;

/// Maps and logs the errors of one export.
#[derive(Debug)]
pub struct FaultLog {
    vm: String,
    disk: String,
    quota: LogQuota,
}

impl FaultLog {
    /// The log of the export `disk` of `vm`.
    pub fn new(vm: &str, disk: &str) -> Self {
        Self { vm: vm.to_owned(), disk: disk.to_owned(), quota: LogQuota::default() }
    }

    /// An error of the volume, while it did `what` at `offset`.
    pub fn volume(&self, what: &str, offset: u64, error: &VolumeError) -> WireError {
        let code = volume_code(error);
        self.note(&format!("{what} at byte {offset}: {error}; the client gets {code:?}"));
        code
    }

    /// No memory for a payload.
    pub fn memory(&self, error: &io::Error) -> WireError {
        self.note(&format!("no memory for a payload: {error}; raise the limit on locked memory"));
        WireError::NoMemory
    }

    /// Anything else about a client that an operator may want to know.
    pub fn note(&self, what: &str) {
        if let Some(left_out) = self.quota.admit(Instant::now()) {
            tracing::warn!(target: "vmd::nbd", vm = self.vm, disk = self.disk, left_out, "{what}");
        }
    }
}

/// The code for an error of a volume. What the storage says may name a cause that the protocol knows: EFBIG
/// counts as no space and EROFS as not permitted ("Error values").
fn volume_code(error: &VolumeError) -> WireError {
    let said = match error {
        VolumeError::Io { source, .. } => Some(source.kind()),
        _ => None,
    };
    match (error.fault(), said) {
        (_, Some(io::ErrorKind::FileTooLarge)) | (Fault::NoSpace, _) => WireError::NoSpace,
        (_, Some(io::ErrorKind::ReadOnlyFilesystem)) | (Fault::ReadOnly, _) => WireError::Perm,
        (Fault::OutOfRange, _) => WireError::Invalid,
        (Fault::Io, _) => WireError::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_of_the_storage_become_codes_of_the_protocol() {
        let io = |errno| VolumeError::Io {
            action: "write",
            offset: 0,
            source: io::Error::from_raw_os_error(errno),
        };
        assert_eq!(volume_code(&io(libc::EIO)), WireError::Io);
        assert_eq!(volume_code(&io(libc::EFBIG)), WireError::NoSpace);
        assert_eq!(volume_code(&io(libc::EROFS)), WireError::Perm);
        assert_eq!(volume_code(&io(libc::ENOMEM)), WireError::Io);
        assert_eq!(volume_code(&VolumeError::ReadOnly), WireError::Perm);
        let outside = VolumeError::OutOfRange { offset: 1, len: 1, size: 1 };
        assert_eq!(volume_code(&outside), WireError::Invalid);
    }
}
