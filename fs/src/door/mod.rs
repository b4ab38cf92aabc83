//! The FUSE door: serves a [`Home`] to the kernel as a mounted folder.
//!
//! Owns the conversation with the kernel (by the crate `fuser`): capabilities, requests, replies, errnos; must
//! not know keys, formats or how the folder was mounted. Flow: the caller mounts and passes the descriptor of
//! /dev/fuse; each thread reads a request, calls the home, and answers; when the folder is unmounted the
//! threads end and the home is dropped, with its keys.

mod errno;
mod fuser;
mod handles;
mod holes;
mod operations;
mod protocol;
mod requests;
mod settings;
mod shed;

pub use self::fuser::negotiate;
use crate::home::Home;
use ::fuser::{Config, Session, SessionACL};
use errno::Faults;
use operations::Door;
pub use settings::{Caching, Settings};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// File system type behind `fuse.` in the mount table.
pub const FUSE_SUBTYPE: &str = "coffer";

/// Most threads of one mount. Each takes 16 MiB of address space for its request buffer, and more threads than
/// this have never been of use on any machine measured.
pub const MAX_THREADS: usize = 64;

/// A home being served.
#[derive(Debug)]
pub struct HomeServer {
    session: JoinHandle<io::Result<()>>,
}

/// Serves `home` on a descriptor of /dev/fuse that is already mounted, until it is unmounted.
///
/// Every thread but one opens /dev/fuse again, so the process must be allowed to.
///
/// # Errors
/// When the kernel does not answer as FUSE on this descriptor, for example because it was never mounted.
pub fn serve(mut home: Home, fuse: OwnedFd, settings: Settings) -> io::Result<HomeServer> {
    let mut config = Config::default();
    // Permissions are checked by the kernel (`default_permissions`), who may enter by `allow_other`.
    config.acl = SessionACL::All;
    config.n_threads = Some(settings.threads.clamp(1, MAX_THREADS));
    config.clone_fd = true;
    home.set_alone(settings.caching == Caching::Exclusive);
    let nodes = home.nodes();
    let faults = Arc::new(Faults::default());
    let (searches, queue) =
        (settings.caching == Caching::Exclusive).then(|| holes::queue(&faults)).unzip();
    let door = Door::new(home, settings.caching, searches, faults);
    let session = Session::from_fd(door, fuse, SessionACL::All, config)?;
    let searcher = queue.map(|queue| queue.start(session.notifier())).transpose()?;
    let shedder = shed::start(Arc::clone(&nodes), session.notifier())?;
    let served = Arc::clone(&nodes);
    let run = move || {
        let ended = end_of(session.run());
        served.end();
        // They hold nodes and the device, and only end.
        for helper in [Some(shedder), searcher].into_iter().flatten() {
            let _ = helper.join();
        }
        ended
    };
    let session = Builder::new().name("home".into()).spawn(run);
    let session = session.inspect_err(|_| nodes.end())?;
    Ok(HomeServer { session })
}

/// The end of a session, which is no fault when the kernel ended it. A thread learns of an unmount by ENODEV, which the
/// crate takes for the end, or by ECONNABORTED when it was just about to be handed a request; and an abort through the
/// kernel's switch is by ECONNABORTED, too.
fn end_of(session: io::Result<()>) -> io::Result<()> {
    match session {
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
        ended => ended,
    }
}

impl HomeServer {
    /// Whether the folder was unmounted, or serving it failed.
    pub fn is_finished(&self) -> bool {
        self.session.is_finished()
    }

    /// Waits for the end. The home is dropped, and its keys wiped, when this returns.
    ///
    /// # Errors
    /// The fault that ended it, when it was not an unmount.
    pub fn join(self) -> io::Result<()> {
        let panicked = |_| Err(io::Error::other("the thread that serves the home panicked"));
        self.session.join().unwrap_or_else(panicked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_by_the_kernel_is_no_fault() {
        let ended = |errno| end_of(Err(io::Error::from_raw_os_error(errno)));
        assert!(end_of(Ok(())).is_ok());
        assert!(ended(rustix::io::Errno::CONNABORTED.raw_os_error()).is_ok());
        assert_eq!(ended(5).unwrap_err().raw_os_error(), Some(5));
    }
}
