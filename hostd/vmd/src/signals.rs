//! SIGTERM and SIGINT as a readable descriptor.
//!
//! Owns the signal handlers. Flow: [`Termination::new`] at the start; the main loop polls the descriptor, which
//! becomes readable when the process is asked to end.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Readable once the process has been asked to end.
#[derive(Debug)]
pub struct Termination {
    asked: UnixStream,
}

impl Termination {
    /// Takes the signals over. SIGHUP is taken and ignored: a terminal that goes must not end a VM's disks.
    /// (SIGPIPE is ignored by every Rust program.)
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> io::Result<Self> {
        let (asked, ask) = UnixStream::pair()?;
        pipe::register(SIGTERM, ask.try_clone()?)?;
        pipe::register(SIGINT, ask)?;
        flag::register(SIGHUP, Arc::new(AtomicBool::new(false)))?;
        Ok(Self { asked })
    }
}

impl AsFd for Termination {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.asked.as_fd()
    }
}
