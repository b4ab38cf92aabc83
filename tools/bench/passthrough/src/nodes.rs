//! What the kernel has been told of: nodes by inode number, and open files by handle.
//!
//! Owns both tables; must not know the transport.

use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Number of the root; given by the protocol.
pub(crate) const ROOT: u64 = 1;

#[derive(Debug)]
struct Entry {
    /// `O_PATH`.
    fd: Arc<OwnedFd>,
    lookups: u64,
}

/// Nodes that the kernel knows.
#[derive(Debug)]
pub(crate) struct Nodes(RwLock<HashMap<u64, Entry>>);

impl Nodes {
    pub(crate) fn new(root: OwnedFd) -> Nodes {
        Nodes(RwLock::new(HashMap::from([(ROOT, Entry { fd: Arc::new(root), lookups: 1 })])))
    }

    pub(crate) fn get(&self, id: u64) -> Result<Arc<OwnedFd>, Errno> {
        let nodes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(&id).map(|entry| Arc::clone(&entry.fd)).ok_or(Errno::STALE)
    }

    /// Counts a lookup; the descriptor is kept if it is the first.
    pub(crate) fn visit(&self, inode: u64, fd: OwnedFd) {
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let entry = nodes.entry(inode).or_insert_with(|| Entry { fd: Arc::new(fd), lookups: 0 });
        entry.lookups += 1;
    }

    pub(crate) fn forget(&self, id: u64, count: u64) {
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = nodes.get_mut(&id).filter(|_| id != ROOT) else { return };
        entry.lookups = entry.lookups.saturating_sub(count);
        let gone = if entry.lookups == 0 { nodes.remove(&id) } else { None };
        drop(nodes);
        drop(gone);
    }
}

/// Open files and folders.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    open: RwLock<HashMap<u64, Arc<OwnedFd>>>,
    last: AtomicU64,
}

impl Handles {
    pub(crate) fn insert(&self, fd: OwnedFd) -> u64 {
        let handle = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(handle, Arc::new(fd));
        handle
    }

    pub(crate) fn get(&self, handle: u64) -> Result<Arc<OwnedFd>, Errno> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle).cloned().ok_or(Errno::BADF)
    }

    pub(crate) fn remove(&self, handle: u64) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let gone = open.remove(&handle);
        drop(open);
        drop(gone);
    }
}
