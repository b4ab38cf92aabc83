//! What commands go over to a TPM, and its answers come back: a device of the kernel, or a Unix socket.
//!
//! Owns the waiting: all that is done over a line has to be done within one time. It must not know what a command is, but
//! for the length in the header of an answer.

use super::fault::TpmFault;
use super::wire::{HEADER, announced};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Largest command and answer: what the kernel and TPMs take (TCG PC Client Platform TPM Profile).
pub const MAX_MESSAGE: usize = 4096;

/// Pause before a command is sent again that the TPM could not do yet.
const PAUSE: Duration = Duration::from_millis(20);

/// A way to a TPM.
pub trait Line {
    /// Sends one command and receives its answer.
    ///
    /// # Errors
    /// [`TpmFault::Silent`], [`TpmFault::Line`], [`TpmFault::Garbled`].
    fn exchange(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmFault>;

    /// Waits a little for a TPM that asked for it.
    ///
    /// # Errors
    /// [`TpmFault::Silent`] when the time is over.
    fn pause(&mut self) -> Result<(), TpmFault>;
}

/// A line of this host.
pub(super) struct Wire {
    /// Never blocks.
    end: OwnedFd,
    wait: Duration,
    deadline: Instant,
}

impl Wire {
    /// A character device. Without blocking, a write only hands the command over (Linux 5.0 and later).
    pub(super) fn device(path: &Path, wait: Duration) -> Result<Self, TpmFault> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let end = rustix::fs::open(path, flags, Mode::empty()).map_err(opening)?;
        Ok(Self::over(end, wait))
    }

    /// A stream socket.
    pub(super) fn socket(path: &Path, wait: Duration) -> Result<Self, TpmFault> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let kind = (AddressFamily::UNIX, SocketType::STREAM);
        let end = rustix::net::socket_with(kind.0, kind.1, flags, None).map_err(opening)?;
        let address = SocketAddrUnix::new(path).map_err(opening)?;
        match rustix::net::connect(&end, &address) {
            // So many wait already that there is no room for one more.
            Err(Errno::AGAIN) => Err(TpmFault::Silent(wait.as_secs())),
            Err(e) => Err(opening(e)),
            Ok(()) => Ok(Self::over(end, wait)),
        }
    }

    fn over(end: OwnedFd, wait: Duration) -> Self {
        Self { end, wait, deadline: Instant::now() + wait }
    }

    /// Waits until it can be read from or written to.
    fn ready(&self, wanted: PollFlags) -> Result<(), TpmFault> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| self.silent())?;
            match poll(&mut [PollFd::new(&self.end, wanted)], Some(&timeout)) {
                Ok(0) => return Err(self.silent()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(TpmFault::Line(e.into())),
            }
        }
    }

    fn silent(&self) -> TpmFault {
        TpmFault::Silent(self.wait.as_secs())
    }

    fn send(&self, mut command: &[u8]) -> Result<(), TpmFault> {
        while !command.is_empty() {
            match rustix::io::write(&self.end, command) {
                Ok(sent) => command = command.get(sent..).unwrap_or_default(),
                Err(Errno::AGAIN) => self.ready(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(e) => return Err(TpmFault::Line(e.into())),
            }
        }
        Ok(())
    }

    /// Reads until the answer is as long as its header says. A device gives all of it at once.
    fn receive(&self) -> Result<Zeroizing<Vec<u8>>, TpmFault> {
        let mut buffer = Zeroizing::new(vec![0; MAX_MESSAGE]);
        let mut got = 0;
        loop {
            if let Some(header) = buffer.get(..got).and_then(<[u8]>::first_chunk::<HEADER>) {
                let size = announced(header)?;
                if got == size {
                    buffer.truncate(size);
                    return Ok(buffer);
                }
                if got > size {
                    return Err(TpmFault::Garbled("it is longer than it says"));
                }
            }
            self.ready(PollFlags::IN)?;
            match rustix::io::read(&self.end, buffer.get_mut(got..).unwrap_or_default()) {
                Ok(0) => return Err(TpmFault::Line(io::ErrorKind::UnexpectedEof.into())),
                Ok(more) => got += more,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(e) => return Err(TpmFault::Line(e.into())),
            }
        }
    }
}

impl Line for Wire {
    fn exchange(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmFault> {
        self.send(command)?;
        self.receive()
    }

    fn pause(&mut self) -> Result<(), TpmFault> {
        if self.deadline.saturating_duration_since(Instant::now()) < PAUSE {
            return Err(self.silent());
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

fn opening(fault: Errno) -> TpmFault {
    let source = fault.into();
    match fault {
        Errno::NOENT | Errno::NXIO | Errno::NODEV | Errno::CONNREFUSED | Errno::NOTDIR => {
            TpmFault::Missing(source)
        }
        Errno::ACCESS | Errno::PERM => TpmFault::Denied(source),
        _ => TpmFault::Line(source),
    }
}
