//! The one place where a fault of the home becomes an error number.
//!
//! Owns the table, and the log: the kernel gets a number, so the full error is logged here, once, unless it is
//! what programs cause and expect every day, or there are too many: a user can cause them as fast as it can ask.

use crate::home::HomeError;
use crate::quota::LogQuota;
use crypto::{KeyError, XtsError};
use rustix::io::Errno;
use std::io;
use std::time::Instant;

/// Answer to an access check. Without `default_permissions` nothing would check permissions: refuse all.
pub(super) const NO_ACCESS_CHECK: Errno = Errno::ACCESS;

/// Answer to every `ioctl`: programs ask for those of other file systems and go on without.
pub(super) const NO_IOCTL: Errno = Errno::NOTTY;

/// Answer to `poll`. The kernel then asks no more, and takes files as ready at any time, which they are.
pub(super) const ALWAYS_READY: Errno = Errno::NOSYS;

/// Answer to a close on a storage that has nothing to tell then. The kernel then asks no more; what it collected it
/// writes at a close all the same.
pub(super) const NOTHING_AT_CLOSE: Errno = Errno::NOSYS;

/// Answer to a creation that need not be the first, of a name that another host has taken since the kernel looked. The
/// kernel then looks again and opens what is there as any file (Linux, do_filp_open(): `LOOKUP_REVAL`). It takes what
/// a creation opens for new, so it would not ask whether the caller may.
pub(super) const LOOK_AGAIN: Errno = Errno::STALE;

/// Why a request is not done.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The home could not do it.
    Fault(HomeError),
    /// It never is, and this is the answer.
    Always(Errno),
}

impl From<HomeError> for Refusal {
    fn from(error: HomeError) -> Refusal {
        Refusal::Fault(error)
    }
}

impl Refusal {
    /// The number for it; see [`Faults::refuse`].
    pub(super) fn errno(&self, operation: &'static str, faults: &Faults) -> Errno {
        match self {
            Refusal::Fault(error) => faults.refuse(operation, error),
            Refusal::Always(errno) => *errno,
        }
    }
}

/// The log of the faults of one mount.
#[derive(Debug, Default)]
pub(super) struct Faults(LogQuota);

impl Faults {
    /// The number for an error of `operation`, which is logged if it is nobody's everyday business.
    pub(super) fn refuse(&self, operation: &'static str, error: &HomeError) -> Errno {
        let errno = errno_of(error);
        if !routine(error, errno)
            && let Some(left_out) = self.0.admit(Instant::now())
        {
            tracing::error!(operation, errno = errno.raw_os_error(), left_out, "{error}");
        }
        errno
    }
}

fn errno_of(error: &HomeError) -> Errno {
    match error {
        HomeError::Io { source, .. } => errno_of_io(source),
        HomeError::Key { source: KeyError::Arena(_), .. }
        | HomeError::Cipher(XtsError::Arena(_)) => Errno::NOMEM,
        HomeError::TooLarge { .. } => Errno::FBIG,
        HomeError::BadName | HomeError::Invalid(_) => Errno::INVAL,
        HomeError::NotSupported(_) => Errno::OPNOTSUPP,
        HomeError::Stale(_) => Errno::STALE,
        HomeError::PastEnd => Errno::NXIO,
        HomeError::Strays { .. } => Errno::NOTEMPTY,
        HomeError::ReadOnly => Errno::ROFS,
        HomeError::Limit { .. } => Errno::NFILE,
        HomeError::Damaged { .. }
        | HomeError::Foreign { .. }
        | HomeError::Unsupported { .. }
        | HomeError::Key { .. }
        | HomeError::Cipher(_) => Errno::IO,
    }
}

fn errno_of_io(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw_os_error(code),
        None if error.kind() == io::ErrorKind::Unsupported => Errno::OPNOTSUPP,
        None => Errno::IO,
    }
}

/// Errors that a healthy home gives to programs all the time.
fn routine(error: &HomeError, errno: Errno) -> bool {
    match error {
        HomeError::Io { .. } => [
            Errno::NOENT,
            Errno::EXIST,
            Errno::NOTEMPTY,
            Errno::NOTDIR,
            Errno::ISDIR,
            Errno::INVAL,
            Errno::NAMETOOLONG,
            Errno::LOOP,
            Errno::PERM,
            Errno::ACCESS,
            Errno::XDEV,
            Errno::MLINK,
            Errno::NXIO,
            Errno::OPNOTSUPP,
            Errno::TXTBSY,
            Errno::FBIG,
            Errno::NODATA,
            Errno::RANGE,
            Errno::TOOBIG,
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
    use std::io::Seek;
    use std::sync::Arc;

    fn io(code: i32) -> HomeError {
        HomeError::Io { doing: "test", source: io::Error::from_raw_os_error(code) }
    }

    #[test]
    fn the_storage_is_quoted() {
        assert_eq!(errno_of(&io(28)), Errno::NOSPC);
        assert_eq!(errno_of(&io(2)), Errno::NOENT);
        let short = HomeError::Io { doing: "read", source: io::ErrorKind::UnexpectedEof.into() };
        assert_eq!(errno_of(&short), Errno::IO);
    }

    #[test]
    fn damage_is_an_io_error_and_is_logged() {
        let damaged = HomeError::Damaged { file: "nvram".into(), what: "test" };
        let foreign = HomeError::Foreign { file: "nvram".into(), owner: uuid::Uuid::nil() };
        for error in [damaged, foreign] {
            assert_eq!(errno_of(&error), Errno::IO);
            assert!(!routine(&error, Errno::IO));
        }
        assert!(!routine(&io(5), Errno::IO));
        assert!(!routine(&io(28), Errno::NOSPC));
        assert!(routine(&io(2), Errno::NOENT));
    }

    #[test]
    fn a_folder_that_only_looks_empty_is_not_and_is_logged() {
        let strays = HomeError::Strays { folder: "d".into(), stray: "x".into() };
        assert_eq!(errno_of(&strays), Errno::NOTEMPTY);
        assert!(!routine(&strays, Errno::NOTEMPTY));
        assert!(routine(&io(39), Errno::NOTEMPTY));
    }

    #[test]
    fn a_flood_of_faults_is_answered_but_not_logged() {
        let mut log = Arc::new(tempfile::tempfile().unwrap());
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(Arc::clone(&log)).finish();
        tracing::subscriber::with_default(subscriber, || {
            let faults = Faults::default();
            for _ in 0..1000 {
                assert_eq!(faults.refuse("read", &io(5)), Errno::IO);
            }
        });
        log.rewind().unwrap();
        assert_eq!(std::io::read_to_string(&mut log).unwrap().lines().count(), 20);
    }
}
