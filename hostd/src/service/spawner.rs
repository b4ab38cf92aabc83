//! Starting vmd processes from a thread that has descriptors of its own.
//!
//! Owns that thread. A child has copies of the descriptors of whoever starts it until its exec, which closes them; and
//! to close a copy of a file on a FUSE file system, the kernel asks its server, which may hang. So one datastore that
//! hangs would keep every VM from being started, were it not for a thread that has nothing open but what the child is
//! to get. Flow: [`Spawner::spawn`] sends descriptors over a pair of sockets, which is the way from one table of
//! descriptors to another (unix(7), `SCM_RIGHTS`), and the child comes back through a channel.

use super::vmd;
use crate::fault::Fault;
use hostd_api::link::{Link, LinkError};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::Child;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// What the thread is asked for; the link socket and the VM folder come beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    vm: String,
}

/// The thread, as others see it.
#[derive(Debug)]
pub(crate) struct Spawner {
    program: PathBuf,
    /// One order at a time.
    post: Mutex<Post>,
}

#[derive(Debug)]
struct Post {
    orders: Link,
    children: Receiver<io::Result<Child>>,
}

impl Spawner {
    /// Starts the thread, which ends with this. What is open now is closed there, so nothing that may hang should be.
    ///
    /// # Errors
    /// [`Fault::Io`] when thread, sockets or table cannot be had.
    pub(crate) fn start(program: PathBuf) -> Result<Self, Fault> {
        let failed = |e: io::Error| Fault::Io {
            doing: "start the thread that starts",
            path: program.clone(),
            source: e,
        };
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (ours, theirs) =
            socketpair(kind.0, kind.1, kind.2, None).map_err(|e| failed(e.into()))?;
        let orders = Link::from_fd(ours).map_err(|e| failed(io::Error::other(e)))?;
        let (send, children) = channel();
        let (say, ready) = channel();
        let (socket, path) = (theirs.as_raw_fd(), program.clone());
        let thread = std::thread::Builder::new().name("spawner".into());
        let work = move || match own_table(socket) {
            Ok(orders) => {
                let _told = say.send(Ok(()));
                serve(&path, orders, &send);
            }
            Err(e) => {
                let _told = say.send(Err(e));
            }
        };
        thread.spawn(work).map_err(failed)?;
        ready.recv().unwrap_or_else(|_| Err(io::Error::other("it has ended"))).map_err(failed)?;
        // The thread has its copy now; it ends when the other end is closed.
        drop(theirs);
        Ok(Self { program, post: Mutex::new(Post { orders, children }) })
    }

    /// Starts a vmd for a VM with its link socket and its VM folder.
    ///
    /// # Errors
    /// [`Fault::Io`] when it cannot be started.
    pub(super) fn spawn(&self, vm: &str, fds: [BorrowedFd<'_>; 2]) -> Result<Child, Fault> {
        // An order and its answer leave nothing behind for the next one, also after a panic elsewhere.
        let post = self.post.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |e: LinkError| Fault::Bug(format!("the thread that starts vmds: {e}"));
        let order = Order { vm: vm.to_owned() };
        post.orders.send(&order, &fds).map_err(gone)?;
        let child = post.children.recv().map_err(|_| gone(LinkError::Closed))?;
        child.map_err(Fault::io("start", &self.program))
    }
}

/// Gives the calling thread a table of descriptors of its own, with nothing in it but the standard ones and `socket`.
fn own_table(socket: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: it takes no descriptor away from other threads: they keep the table that all shared until now, and
    // this one, which has just begun and owns no descriptor yet, gets a copy.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }?;
    let open: Vec<RawFd> = std::fs::read_dir("/proc/thread-self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd > 2 && *fd != socket) {
        // SAFETY: it is used for this one question, whether it is open: the one of the listing is not any more.
        let is_open = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }).is_ok();
        if is_open {
            // SAFETY: the table is this thread's own, and nothing in it but `socket` belongs to a value of this thread.
            unsafe { rustix::io::close(fd) };
        }
    }
    // SAFETY: it is open in this table, and no other value of this thread owns it; the value of the thread that
    // started this one owns the copy in the other table.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// Starts what is asked for until nobody asks any more.
fn serve(program: &std::path::Path, orders: OwnedFd, children: &Sender<io::Result<Child>>) {
    let orders = match Link::from_fd(orders).and_then(|link| link.set_timeout(None).map(|()| link))
    {
        Ok(orders) => orders,
        Err(e) => return tracing::error!("no vmd can be started: {e}"),
    };
    loop {
        let child = match orders.recv::<Order>() {
            Ok(Some((Order { vm }, fds))) => vmd::start(program, &vm, fds),
            Ok(None) => return,
            Err(e) => Err(io::Error::other(e)),
        };
        if children.send(child).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn children_are_started_from_a_table_of_their_own() {
        let spawner = Spawner::start("/bin/true".into()).unwrap();
        let root = File::open("/").unwrap();
        for _ in 0..3 {
            let mut child = spawner.spawn("web01", [root.as_fd(); 2]).unwrap();
            assert!(child.wait().unwrap().success());
        }
        // What was passed does not stay open there.
        let (reader, writer) = std::io::pipe().unwrap();
        spawner.spawn("web01", [root.as_fd(), writer.as_fd()]).unwrap().wait().unwrap();
        drop(writer);
        let mut end = Vec::new();
        std::io::Read::read_to_end(&mut { reader }, &mut end).unwrap();
        assert_eq!(end, b"");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let spawner = Spawner::start("/no/such/program".into()).unwrap();
        let root = File::open("/").unwrap();
        for _ in 0..2 {
            let error = spawner.spawn("web01", [root.as_fd(); 2]).unwrap_err().to_string();
            assert!(error.contains("/no/such/program"), "{error}");
        }
    }
}
