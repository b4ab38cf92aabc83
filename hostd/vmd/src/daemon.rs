//! The main loop: hostd on the link, and the signal to end.
//!
//! Owns the listening link socket. It must not know what requests mean. Flow: start, in the order of
//! `start`; then one connection of hostd after the other, one request after the other, until Stop or SIGTERM;
//! then everything that was started ends in the reverse order.

use crate::confine::root::Root;
use crate::refusal::Refusal;
use crate::requests::Vmd;
use crate::signals::Termination;
use cryptfs::home::OPEN_FILE_ARENA;
use crypto::{Arena, ArenaError, SelfTestError};
use hostd_api::link::{Link, LinkError, MAX_DISKS, PeerCred, Request, Response, accept};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use thiserror::Error;

/// Files of the home that may be open at one time; QEMU, swtpm and libvirt keep a dozen open.
const OPEN_FILES: usize = 1024;

/// Locked memory for keys in bytes: the keys of files and disks, and room for a key sheet that is being read.
/// Only touched pages cost memory.
const ARENA: usize = (OPEN_FILES + MAX_DISKS) * OPEN_FILE_ARENA + 64 * 1024;

/// Why a vmd could not start or go on.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Keys cannot be kept safely.
    #[error("no locked memory: {0}")]
    Memory(#[from] ArenaError),
    /// The ciphers of this build do not work on this machine.
    #[error("the self-test of the ciphers failed: {0}")]
    SelfTest(#[from] SelfTestError),
    /// The kernel refused something basic.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Serves one VM until hostd or a signal ends it. `link` is the listening link socket, `root` has the VM folder.
///
/// # Errors
/// [`DaemonError`] when the process cannot start; once it runs, it runs to an orderly end.
pub fn run(link: &OwnedFd, root: Root) -> Result<(), DaemonError> {
    let (mut vmd, termination) = start(root)?;
    tracing::debug!("waiting for hostd");
    while let Some(hostd) = next_link(link, &termination)? {
        if serve(&hostd, &mut vmd, &termination)? == After::End {
            return Ok(());
        }
    }
    vmd.shut_down();
    Ok(())
}

/// Signals before threads, locked memory before keys, and no key before the ciphers have been tried.
fn start(root: Root) -> Result<(Vmd, Termination), DaemonError> {
    let termination = Termination::new()
        .map_err(|source| DaemonError::System { what: "watch signals", source })?;
    crypto::lock_process_memory()?;
    let arena = Arena::new(ARENA)?;
    crypto::self_test(&arena)?;
    Ok((Vmd::new(arena, root), termination))
}

/// Waits for hostd; nothing when the process has been asked to end.
fn next_link(link: &OwnedFd, termination: &Termination) -> Result<Option<Link>, DaemonError> {
    while wait(link.as_fd(), termination)? == After::GoOn {
        match accept(link) {
            Ok((hostd, peer)) if may_command(peer) => {
                tracing::debug!(pid = peer.pid, "hostd connected");
                return Ok(Some(hostd));
            }
            Ok((_, peer)) => {
                tracing::warn!(pid = peer.pid, uid = peer.uid, "a stranger on the link");
            }
            Err(e) => tracing::warn!(error = %e, "accepting hostd"),
        }
    }
    Ok(None)
}

/// The link belongs to root and to whoever runs this process.
fn may_command(peer: PeerCred) -> bool {
    peer.uid == 0 || peer.uid == rustix::process::geteuid().as_raw()
}

#[derive(Debug, PartialEq, Eq)]
enum After {
    GoOn,
    End,
}

/// Answers one hostd until it goes; [`After::End`] when the process is to end.
fn serve(hostd: &Link, vmd: &mut Vmd, termination: &Termination) -> Result<After, DaemonError> {
    loop {
        if wait(hostd.as_fd(), termination)? == After::End {
            vmd.shut_down();
            return Ok(After::End);
        }
        let (request, fds) = match hostd.recv::<Request>() {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(After::GoOn),
            Err(LinkError::Peer(what)) => {
                let refusal = Refusal::invalid(format!("not a request: {what}"));
                if tell(hostd, &refusal.into(), &[]) == After::End {
                    return Ok(After::GoOn);
                }
                continue;
            }
            Err(e) => {
                tracing::warn!(error = %e, "the link to hostd broke");
                return Ok(After::GoOn);
            }
        };
        let answer = vmd.handle(request, fds);
        let told = tell(hostd, &answer.response, &answer.fds);
        if answer.last {
            return Ok(After::End);
        }
        if told == After::End {
            return Ok(After::GoOn);
        }
    }
}

/// Sends an answer; a hostd that does not take it is gone.
fn tell(hostd: &Link, response: &Response, fds: &[BorrowedFd<'_>]) -> After {
    match hostd.send(response, fds) {
        Ok(()) => After::GoOn,
        Err(e) => {
            tracing::warn!(error = %e, "hostd did not take the answer");
            After::End
        }
    }
}

/// Waits until `fd` is readable, or the process is asked to end.
fn wait(fd: BorrowedFd<'_>, termination: &Termination) -> Result<After, DaemonError> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN), PollFd::new(termination, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(DaemonError::System { what: "wait for hostd", source: e.into() }),
        }
    }
    let [_, asked_to_end] = fds.map(|fd| fd.revents());
    Ok(if asked_to_end.is_empty() { After::GoOn } else { After::End })
}
