//! A disk of no account, for developers: socket activation, a random key, memory for storage.
//!
//! Owns the one use of a vmd without hostd: trying NBD clients and test suites at the real data path. It must not
//! open a file, take a key or know a VM; what is written is encrypted all the same, and lost at the end. Flow:
//! [`run`] takes the listening socket that the caller passed (sd_listen_fds(3): `LISTEN_PID`, `LISTEN_FDS`, first
//! descriptor 3), serves a volume in a memfd on it, and ends at SIGTERM, at SIGINT, or with its caller.

use crate::nbd::connection::Limits;
use crate::nbd::export::Export;
use crate::nbd::server::Server;
use crate::signals::Termination;
use cryptfs::backing::FileBacking;
use cryptfs::volume::{Geometry, Volume, VolumeError};
use crypto::{Arena, ArenaError, Dek, KeyError, SelfTestError, Unit};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_setfd, retry_on_intr};
use rustix::net::{AddressFamily, sockopt};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;
use thiserror::Error;

/// First descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST_FD: RawFd = 3;

/// Locked memory for one key with its sheet, in bytes.
const ARENA: usize = 64 * 1024;

/// Largest disk in bytes: the memfd is sparse, but it is memory.
const MAX_SIZE: u64 = 1 << 40;

/// Connections at one time; test suites open some for multi-conn.
const MAX_CONNECTIONS: u32 = 64;

/// Time for requests in flight at the end. They are in memory, so a second is long.
const GRACE: Duration = Duration::from_secs(1);

/// Why there is no scratch disk.
#[derive(Debug, Error)]
pub enum ScratchError {
    /// Not started as it must be.
    #[error(
        "{0}; start it by a tool that passes one listening Unix socket: nbdinfo [ vmd scratch ]"
    )]
    Activation(&'static str),
    /// Keys cannot be kept safely.
    #[error("no locked memory: {0}")]
    Memory(#[from] ArenaError),
    /// The ciphers of this build do not work on this machine.
    #[error("the self-test of the ciphers failed: {0}")]
    SelfTest(#[from] SelfTestError),
    /// No random key.
    #[error("no key: {0}")]
    Key(#[from] KeyError),
    /// The volume cannot be made.
    #[error("no disk: {0}")]
    Volume(#[from] VolumeError),
    /// The kernel refused something.
    #[error("cannot serve the disk: {0}")]
    System(#[from] io::Error),
}

impl From<Errno> for ScratchError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

/// Serves a disk of `size` bytes, a multiple of 512, until SIGTERM or SIGINT, or until the caller has ended.
///
/// # Errors
/// [`ScratchError`] when it cannot be served.
pub fn run(size: u64, read_only: bool) -> Result<(), ScratchError> {
    let termination = Termination::new()?;
    // A tool that fails does not always end what it started.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let listener = activated()?;
    crypto::lock_process_memory()?;
    let arena = Arena::new(ARENA)?;
    crypto::self_test(&arena)?;
    let payload = memfd_create("scratch", MemfdFlags::CLOEXEC)?;
    ftruncate(&payload, size)?;
    let unit = if size.is_multiple_of(4096) { Unit::B4096 } else { Unit::B512 };
    let geometry = Geometry { size, unit, read_only };
    let volume =
        Volume::open(Box::new(FileBacking::new(payload)), Dek::generate(&arena)?, geometry)?;
    let limits = Limits { max_connections: MAX_CONNECTIONS, handshake: Limits::HANDSHAKE };
    let server = Server::start(Export::new("scratch", "none", volume), listener, limits)?;
    tracing::warn!(size, "serving a scratch disk: what is written to it is lost at the end");
    let mut fds = [PollFd::new(&termination, PollFlags::IN)];
    retry_on_intr(|| poll(&mut fds, None))?;
    if server.stop(GRACE).is_err() {
        tracing::warn!("clients were cut");
    }
    Ok(())
}

/// A size: bytes, or `K`, `M`, `G` in powers of 1024; a multiple of 512 and not too large.
///
/// # Errors
/// What is accepted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) if text.ends_with('K') => (digits, 1 << 10),
        Some(digits) if text.ends_with('M') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
        None => (text, 1),
    };
    let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    size.filter(|size| *size > 0 && *size <= MAX_SIZE && size.is_multiple_of(512))
        .ok_or_else(|| "accepted is a multiple of 512 up to 1024G, such as 64M".to_owned())
}

/// The socket that was passed. Only a Unix socket: no disk is ever served over a network in clear.
fn activated() -> Result<OwnedFd, ScratchError> {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Err(ScratchError::Activation("LISTEN_PID does not name this process"));
    }
    if number("LISTEN_FDS") != Some(1) {
        return Err(ScratchError::Activation("LISTEN_FDS is not 1"));
    }
    // SAFETY: the caller says that it passed this descriptor to this process, and nothing here has taken it yet;
    // one that is not open is told apart below before it is used for anything.
    let fd = unsafe { OwnedFd::from_raw_fd(FIRST_FD) };
    match (sockopt::socket_acceptconn(&fd), sockopt::socket_domain(&fd)) {
        (Ok(true), Ok(AddressFamily::UNIX)) => {
            fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
            Ok(fd)
        }
        _ => {
            std::mem::forget(fd);
            Err(ScratchError::Activation("descriptor 3 is no listening Unix socket"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_powers_of_1024() {
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(
            (parse_size("512"), parse_size("1K"), parse_size("1024G")),
            (Ok(512), Ok(1024), Ok(1 << 40))
        );
        for bad in
            ["", "0", "M", "511", "1T", "-1", "1025G", "99999999999999999999", "18014398509481985K"]
        {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
