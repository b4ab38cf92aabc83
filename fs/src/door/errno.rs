//! The one place where a fault of the home becomes an error number.
//!
//! Owns the table, and the log: the kernel gets a number, so the full error is logged here, once, unless it is
//! what programs cause and expect every day.

use crate::home::HomeError;
use crypto::{KeyError, XtsError};
use fuser::Errno;
use std::io;

/// Answer to every request about extended attributes. The kernel then asks no more, for the whole mount, and
/// says "not supported" itself; otherwise every write would be preceded by a question for
/// `security.capability`.
pub(super) const NO_EXTENDED_ATTRIBUTES: Errno = Errno::ENOSYS;

/// Answer to an access check. Without `default_permissions` nothing would check permissions: refuse all.
pub(super) const NO_ACCESS_CHECK: Errno = Errno::EACCES;

/// Answer to every `ioctl`: programs ask for those of other file systems and go on without.
pub(super) const NO_IOCTL: Errno = Errno::ENOTTY;

/// Answer to `poll`. The kernel then asks no more, and takes files as ready at any time, which they are.
pub(super) const ALWAYS_READY: Errno = Errno::ENOSYS;

/// Answer to a search for holes that cannot be given. The kernel then asks no more, and takes a file for one
/// piece of data.
pub(super) const ALL_IS_DATA: Errno = Errno::ENOSYS;

/// The number for an error of `operation`, which is logged if it is nobody's everyday business.
pub(super) fn refuse(operation: &'static str, error: &HomeError) -> Errno {
    let errno = errno_of(error);
    if !routine(error, errno) {
        tracing::error!(operation, errno = errno.code(), "{error}");
    }
    errno
}

fn errno_of(error: &HomeError) -> Errno {
    match error {
        HomeError::Io { source, .. } => errno_of_io(source),
        HomeError::Key { source: KeyError::Arena(_), .. }
        | HomeError::Cipher(XtsError::Arena(_)) => Errno::ENOMEM,
        HomeError::TooLarge { .. } => Errno::EFBIG,
        HomeError::BadName | HomeError::Invalid(_) => Errno::EINVAL,
        HomeError::NotSupported(_) => Errno::EOPNOTSUPP,
        HomeError::Stale(_) => Errno::ESTALE,
        HomeError::PastEnd => Errno::ENXIO,
        HomeError::ReadOnly => Errno::EROFS,
        HomeError::Limit { .. } => Errno::ENFILE,
        HomeError::Damaged { .. }
        | HomeError::Foreign { .. }
        | HomeError::Unsupported { .. }
        | HomeError::Key { .. }
        | HomeError::Cipher(_) => Errno::EIO,
    }
}

fn errno_of_io(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(code) => Errno::from_i32(code),
        None if error.kind() == io::ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        None => Errno::EIO,
    }
}

/// Errors that a healthy home gives to programs all the time.
fn routine(error: &HomeError, errno: Errno) -> bool {
    match error {
        HomeError::Io { .. } => [
            Errno::ENOENT,
            Errno::EEXIST,
            Errno::ENOTEMPTY,
            Errno::ENOTDIR,
            Errno::EISDIR,
            Errno::EINVAL,
            Errno::ENAMETOOLONG,
            Errno::ELOOP,
            Errno::EPERM,
            Errno::EACCES,
            Errno::EXDEV,
            Errno::EMLINK,
            Errno::ENXIO,
            Errno::EOPNOTSUPP,
            Errno::ETXTBSY,
            Errno::EFBIG,
        ]
        .contains(&errno),
        HomeError::TooLarge { .. }
        | HomeError::BadName
        | HomeError::Invalid(_)
        | HomeError::NotSupported(_)
        | HomeError::Stale(_)
        | HomeError::PastEnd
        | HomeError::ReadOnly => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(code: i32) -> HomeError {
        HomeError::Io { doing: "test", source: io::Error::from_raw_os_error(code) }
    }

    #[test]
    fn the_storage_is_quoted() {
        assert_eq!(errno_of(&io(28)), Errno::ENOSPC);
        assert_eq!(errno_of(&io(2)), Errno::ENOENT);
        let short = HomeError::Io { doing: "read", source: io::ErrorKind::UnexpectedEof.into() };
        assert_eq!(errno_of(&short), Errno::EIO);
    }

    #[test]
    fn damage_is_an_io_error_and_is_logged() {
        let damaged = HomeError::Damaged { file: "nvram".into(), what: "test" };
        let foreign = HomeError::Foreign { file: "nvram".into(), owner: uuid::Uuid::nil() };
        for error in [damaged, foreign] {
            assert_eq!(errno_of(&error), Errno::EIO);
            assert!(!routine(&error, Errno::EIO));
        }
        assert!(!routine(&io(5), Errno::EIO));
        assert!(!routine(&io(28), Errno::ENOSPC));
        assert!(routine(&io(2), Errno::ENOENT));
    }
}
