//! Nodes: what the mount knows of the objects below it, and the table that keeps them.
//!
//! Owns the map from node numbers to descriptors and the lookup counts; must not know what a node holds. A
//! node is one inode, however many names it has, pinned by an `O_PATH` descriptor for as long as the kernel
//! remembers it, so its inode number cannot be given to another file meanwhile.

use super::error::HomeError;
use super::open::OpenFile;
use rustix::fs::{FileType, Stat};
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

/// Number of the root node; given by the FUSE protocol.
pub(crate) const ROOT: u64 = 1;

/// Most nodes at one time. Each holds a descriptor, and the kernel's own limit for a process is usually met
/// first (2^20 on most distributions).
const MAX_NODES: usize = 1 << 20;

/// Numbers for nodes whose inode number cannot be used start here: another file system below the home, or an
/// inode number of the upper half.
const FOREIGN: u64 = 1 << 63;

/// Identity of an inode in the system.
pub(crate) type Key = (u64, u64);

pub(crate) fn key_of(stat: &Stat) -> Key {
    (stat.st_dev, stat.st_ino)
}

/// A name in a folder.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) parent: Arc<Node>,
    pub(crate) name: OsString,
}

/// One inode below the mount.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    /// Differs between nodes that get the same number one after the other.
    pub(crate) generation: u64,
    pub(crate) key: Key,
    pub(crate) kind: FileType,
    /// `O_PATH`, except for the root.
    pub(crate) fd: OwnedFd,
    /// Where it was last seen; nothing is believed of it without comparing inodes.
    place: Mutex<Option<Place>>,
    /// The file behind it while a handle is open.
    pub(super) open: Mutex<Weak<OpenFile>>,
}

/// Nodes own their parents, so dropping the last one of a deep chain by recursion would end the stack, and
/// with it the process.
impl Drop for Node {
    fn drop(&mut self) {
        let mut next = take_parent(self);
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut node| take_parent(&mut node));
        }
    }
}

fn take_parent(node: &mut Node) -> Option<Arc<Node>> {
    node.place.get_mut().unwrap_or_else(PoisonError::into_inner).take().map(|place| place.parent)
}

impl Node {
    pub(crate) fn place(&self) -> Result<Place, HomeError> {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.clone().ok_or(HomeError::Stale(self.id))
    }

    fn move_to(&self, place: Place) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    /// Last known name, for messages.
    pub(super) fn label(&self) -> String {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.as_ref().map_or_else(|| "/".into(), |place| place.name.to_string_lossy().into_owned())
    }
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    /// How often the kernel was told of it and has not forgotten it.
    lookups: u64,
}

#[derive(Debug, Default)]
struct Maps {
    by_id: HashMap<u64, Entry>,
    by_key: HashMap<Key, u64>,
    next_foreign: u64,
    next_generation: u64,
}

/// All nodes that the kernel knows.
#[derive(Debug)]
pub(crate) struct Nodes {
    maps: RwLock<Maps>,
    device: u64,
}

impl Nodes {
    /// With the root only, which is never forgotten.
    pub(crate) fn new(fd: OwnedFd, stat: &Stat) -> Nodes {
        let nodes = Nodes { maps: RwLock::default(), device: stat.st_dev };
        {
            let mut maps = nodes.write();
            maps.insert(ROOT, fd, stat, None);
        }
        nodes
    }

    pub(crate) fn get(&self, id: u64) -> Result<Arc<Node>, HomeError> {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        maps.by_id.get(&id).map(|entry| Arc::clone(&entry.node)).ok_or(HomeError::Stale(id))
    }

    /// Counts a lookup of a known inode and notes where it is.
    pub(crate) fn revisit(&self, stat: &Stat, place: &Place) -> Option<Arc<Node>> {
        let mut maps = self.write();
        let id = *maps.by_key.get(&key_of(stat))?;
        let entry = maps.by_id.get_mut(&id)?;
        entry.lookups += 1;
        let node = Arc::clone(&entry.node);
        drop(maps);
        if node.id != ROOT {
            node.move_to(place.clone());
        }
        Some(node)
    }

    /// Counts a lookup of an inode, making its node if there is none.
    pub(crate) fn visit(
        &self,
        fd: OwnedFd,
        stat: &Stat,
        place: Place,
    ) -> Result<Arc<Node>, HomeError> {
        if let Some(node) = self.revisit(stat, &place) {
            return Ok(node);
        }
        let mut maps = self.write();
        if maps.by_key.contains_key(&key_of(stat)) {
            // Another thread was faster.
            drop(maps);
            return self.visit(fd, stat, place);
        }
        if maps.by_id.len() >= MAX_NODES {
            return Err(HomeError::Limit { what: "files known to the kernel", limit: MAX_NODES });
        }
        let plain = stat.st_dev == self.device && stat.st_ino > ROOT && stat.st_ino < FOREIGN;
        let id = if plain { stat.st_ino } else { maps.foreign_id() };
        Ok(maps.insert(id, fd, stat, Some(place)))
    }

    /// Notes that a known inode was moved, without counting a lookup.
    pub(crate) fn relocate(&self, stat: &Stat, place: Place) {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        let entry = maps.by_key.get(&key_of(stat)).and_then(|id| maps.by_id.get(id));
        if let Some(entry) = entry.filter(|entry| entry.node.id != ROOT) {
            entry.node.move_to(place);
        }
    }

    /// The kernel forgets `count` lookups.
    pub(crate) fn forget(&self, id: u64, count: u64) {
        let mut maps = self.write();
        let Some(entry) = maps.by_id.get_mut(&id).filter(|_| id != ROOT) else { return };
        entry.lookups = entry.lookups.saturating_sub(count);
        if entry.lookups > 0 {
            return;
        }
        let gone = maps.by_id.remove(&id);
        if let Some(gone) = &gone {
            maps.by_key.remove(&gone.node.key);
        }
        // Closing descriptors may take time on a network storage: not under the lock.
        drop(maps);
        drop(gone);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.write().by_id.len()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Maps> {
        self.maps.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maps {
    fn foreign_id(&mut self) -> u64 {
        self.next_foreign += 1;
        FOREIGN + self.next_foreign
    }

    fn insert(&mut self, id: u64, fd: OwnedFd, stat: &Stat, place: Option<Place>) -> Arc<Node> {
        self.next_generation += 1;
        let node = Arc::new(Node {
            id,
            generation: self.next_generation,
            key: key_of(stat),
            kind: FileType::from_raw_mode(stat.st_mode),
            fd,
            place: Mutex::new(place),
            open: Mutex::default(),
        });
        self.by_key.insert(node.key, id);
        self.by_id.insert(id, Entry { node: Arc::clone(&node), lookups: 1 });
        node
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
