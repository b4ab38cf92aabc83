//! Owns the faults of locked memory and the words that tell an operator what to change.
//!
//! It must not know the allocator. Flow: a failed system call becomes an [`ArenaError`]; refusals
//! for lack of a right to lock carry the limit in force.

use std::fmt;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// A fault of the locked memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArenaError {
    /// The process may not lock that much memory.
    #[error(
        "cannot lock memory for keys ({what}): {source}; the limit RLIMIT_MEMLOCK is {limit}: \
         raise it (LimitMEMLOCK= in the service unit, or `ulimit -l`) or grant CAP_IPC_LOCK"
    )]
    LockLimit {
        /// What was to be locked.
        what: String,
        /// The limit in force.
        limit: MemlockLimit,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No free block is large enough.
    #[error("the key arena is full: {wanted} bytes wanted, {used} of {capacity} bytes in use")]
    Full {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes in use.
        used: usize,
        /// Bytes in all.
        capacity: usize,
    },
    /// A size that no arena can have.
    #[error("a key arena of {capacity} bytes was asked for; it must have 1 to {max} bytes")]
    Capacity {
        /// Bytes asked for.
        capacity: usize,
        /// The largest size.
        max: usize,
    },
    /// A system call failed for another reason.
    #[error("key arena: {call} failed: {source}")]
    Os {
        /// The call.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The soft limit `RLIMIT_MEMLOCK`, in bytes; `None` is "unlimited".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemlockLimit(pub Option<u64>);

impl fmt::Display for MemlockLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{bytes} bytes"),
            None => f.write_str("unlimited"),
        }
    }
}

impl ArenaError {
    /// The error of a call that locks memory. `EAGAIN`, `ENOMEM` and `EPERM` are how
    /// `memfd_secret`, `mlock` and a process without `CAP_IPC_LOCK` say "over the limit".
    pub(crate) fn locking(what: impl Into<String>, errno: Errno) -> Self {
        match errno {
            Errno::AGAIN | Errno::NOMEM | Errno::PERM => Self::LockLimit {
                what: what.into(),
                limit: MemlockLimit(getrlimit(Resource::Memlock).current),
                source: errno.into(),
            },
            _ => Self::os("locking memory", errno),
        }
    }

    /// The error of any other call.
    pub(crate) fn os(call: &'static str, errno: Errno) -> Self {
        Self::Os { call, source: errno.into() }
    }
}
