//! Nodes: what the mount knows of the objects below it, and the table that keeps them.
//!
//! Owns the map from node numbers to descriptors and the lookup counts; must not know what a node holds. A
//! node is one inode, however many names it has, pinned by an `O_PATH` descriptor for as long as the kernel
//! remembers it, so its inode number cannot be given to another file meanwhile.

use super::error::HomeError;
use super::naming::{Naming, StoredName};
use super::open::OpenFile;
use super::pressure::Pressure;
use super::recent::Recent;
use rustix::fs::{FileType, Stat};
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

/// Number of the root node; given by the FUSE protocol.
pub(crate) const ROOT: u64 = 1;

/// Numbers for nodes whose inode number cannot be used start here: another file system below the home, or an
/// inode number of the upper half.
const FOREIGN: u64 = 1 << 63;

/// Identity of an inode in the system.
pub(crate) type Key = (u64, u64);

pub(crate) fn key_of(stat: &Stat) -> Key {
    (stat.st_dev, stat.st_ino)
}

/// A name in a folder, as the storage has it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) parent: Arc<Node>,
    pub(crate) name: OsString,
}

impl Place {
    pub(crate) fn at(&self) -> At<'_> {
        At { parent: Arc::clone(&self.parent), name: StoredName::AsIs(&self.name) }
    }
}

/// The same while a request lasts.
#[derive(Debug, Clone)]
pub(crate) struct At<'a> {
    pub(crate) parent: Arc<Node>,
    pub(crate) name: StoredName<'a>,
}

impl At<'_> {
    fn keep(&self) -> Place {
        Place { parent: Arc::clone(&self.parent), name: self.name.to_os_string() }
    }
}

/// Where a node was seen. A file with two names may be looked up by one while it is opened by the other, so the place
/// before the last one is kept as well; it keeps no folder alive.
#[derive(Debug, Default)]
struct Places {
    last: Option<Place>,
    before: Option<(Weak<Node>, OsString)>,
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
    place: Mutex<Places>,
    /// The file behind it while a handle is open.
    pub(super) open: Mutex<Weak<OpenFile>>,
    /// Of a folder: it has an access control list for new objects.
    pub(super) default_acl: Recent<bool>,
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
    let places = node.place.get_mut().unwrap_or_else(PoisonError::into_inner);
    places.last.take().map(|place| place.parent)
}

impl Node {
    pub(crate) fn place(&self) -> Result<Place, HomeError> {
        self.places().last.clone().ok_or(HomeError::Stale(self.id))
    }

    /// The place before the last one, while its folder is known.
    pub(super) fn place_before(&self) -> Option<Place> {
        let places = self.places();
        let (parent, name) = places.before.as_ref()?;
        Some(Place { parent: parent.upgrade()?, name: name.clone() })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn move_to(&self, at: &At<'_>) {
        let mut places = self.places();
        let there = places
            .last
            .as_ref()
            .is_some_and(|place| Arc::ptr_eq(&place.parent, &at.parent) && place.name == *at.name);
        if there {
            return;
        }
        let Some(Place { parent, name }) = places.last.replace(at.keep()) else { return };
        let older = places.before.replace((Arc::downgrade(&parent), name));
        drop(places);
        // The last to know a folder closes it: not under the lock.
        drop((parent, older));
    }

    /// Last known name, for messages.
    pub(super) fn label(&self, names: &Naming) -> String {
        let places = self.places();
        let name = places.last.as_ref().map(|place| names.plain_owned(place.name.clone()));
        name.map_or_else(|| "/".into(), |name| name.to_string_lossy().into_owned())
    }
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    /// How often the kernel was told of it and has not forgotten it. Raised under the shared lock of the maps, taken
    /// down under the exclusive one.
    lookups: AtomicU64,
    /// When it was last looked up, in lookups.
    seen: AtomicU64,
}

impl Entry {
    /// Nobody works with it, no node lies below it, and it is not open: a process does not notice when the
    /// kernel forgets its name.
    fn is_idle(&self) -> bool {
        self.node.id != ROOT
            && Arc::strong_count(&self.node) == 1
            && self.node.open.try_lock().is_ok_and(|open| open.strong_count() == 0)
    }
}

#[derive(Debug, Default)]
struct Maps {
    by_id: HashMap<u64, Entry>,
    by_key: HashMap<Key, u64>,
    next_foreign: u64,
    next_generation: u64,
    /// Lookups so far.
    clock: AtomicU64,
}

/// All nodes that the kernel knows.
#[derive(Debug)]
pub(crate) struct Nodes {
    maps: RwLock<Maps>,
    device: u64,
    pressure: Pressure,
    names: Arc<Naming>,
}

impl Nodes {
    /// With the root only, which is never forgotten.
    pub(crate) fn new(fd: OwnedFd, stat: &Stat, pressure: Pressure, names: Arc<Naming>) -> Nodes {
        let nodes = Nodes { maps: RwLock::default(), device: stat.st_dev, pressure, names };
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
    pub(crate) fn revisit(&self, stat: &Stat, at: &At<'_>) -> Option<Arc<Node>> {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        let entry = maps.by_id.get(maps.by_key.get(&key_of(stat))?)?;
        entry.lookups.fetch_add(1, Ordering::Relaxed);
        entry.seen.store(maps.tick(), Ordering::Relaxed);
        let node = Arc::clone(&entry.node);
        drop(maps);
        if node.id != ROOT {
            node.move_to(at);
        }
        Some(node)
    }

    /// Counts a lookup of an inode, making its node if there is none.
    pub(crate) fn visit(
        &self,
        fd: OwnedFd,
        stat: &Stat,
        at: &At<'_>,
    ) -> Result<Arc<Node>, HomeError> {
        if let Some(node) = self.revisit(stat, at) {
            return Ok(node);
        }
        let mut maps = self.write();
        if maps.by_key.contains_key(&key_of(stat)) {
            // Another thread was faster.
            drop(maps);
            return self.visit(fd, stat, at);
        }
        let limit = self.pressure.limit();
        if maps.by_id.len() >= limit {
            return Err(HomeError::Limit { what: "files known to the kernel", limit });
        }
        let plain = stat.st_dev == self.device && stat.st_ino > ROOT && stat.st_ino < FOREIGN;
        let id = if plain { stat.st_ino } else { maps.foreign_id() };
        let node = maps.insert(id, fd, stat, Some(at.keep()));
        let count = maps.by_id.len();
        drop(maps);
        self.pressure.grown(count);
        Ok(node)
    }

    /// Gives shedding a moment before a node is made, if there are nearly too many.
    pub(crate) fn brake(&self) {
        self.pressure.brake(self.count());
    }

    /// Nobody should take a node who can do without.
    pub(crate) fn are_scarce(&self) -> bool {
        self.pressure.is_tight(self.count())
    }

    /// So many that some should be shed.
    pub(crate) fn are_many(&self) -> bool {
        self.count() >= self.pressure.mark()
    }

    /// Waits until there are many; `false` at the end.
    pub(crate) fn wait_until_many(&self) -> bool {
        self.pressure.wait()
    }

    /// Sleeps; `false` at the end, at once.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        self.pressure.pause(time)
    }

    /// Ends those who wait.
    pub(crate) fn end(&self) {
        self.pressure.end();
    }

    /// Names of nodes that are idle and were not looked up for longest, each with the number of its folder; folders
    /// only after everything else, because a process may stand in one. All count as just looked up, so that
    /// one that the kernel keeps, by another name for example, is not asked for again and again.
    pub(crate) fn least_used(&self) -> Vec<(u64, OsString)> {
        let maps = self.write();
        let order = |entry: &Entry| {
            (entry.node.kind == FileType::Directory, entry.seen.load(Ordering::Relaxed))
        };
        let idle = maps.by_id.values().filter(|entry| entry.is_idle());
        let mut idle: Vec<_> = idle.map(|entry| (order(entry), entry.node.id)).collect();
        let batch = self.pressure.batch();
        if idle.len() > batch {
            idle.select_nth_unstable(batch);
            idle.truncate(batch);
        }
        let now = maps.tick();
        let mut places = Vec::with_capacity(idle.len());
        for (_, id) in idle {
            let Some(entry) = maps.by_id.get(&id) else { continue };
            entry.seen.store(now, Ordering::Relaxed);
            places.extend(entry.node.place());
        }
        drop(maps);
        let named = |place: Place| (place.parent.id, self.names.plain_owned(place.name));
        places.into_iter().map(named).collect()
    }

    /// Notes that a known inode was moved, without counting a lookup.
    pub(crate) fn relocate(&self, stat: &Stat, at: &At<'_>) {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        let entry = maps.by_key.get(&key_of(stat)).and_then(|id| maps.by_id.get(id));
        if let Some(entry) = entry.filter(|entry| entry.node.id != ROOT) {
            entry.node.move_to(at);
        }
    }

    /// Makes up for a lookup that the kernel will forget without having been told of it.
    pub(crate) fn expect_forget(&self, id: u64) {
        if let Some(entry) = self.write().by_id.get_mut(&id) {
            *entry.lookups.get_mut() += 1;
        }
    }

    /// The kernel forgets `count` lookups.
    pub(crate) fn forget(&self, id: u64, count: u64) {
        let mut maps = self.write();
        let Some(entry) = maps.by_id.get_mut(&id).filter(|_| id != ROOT) else { return };
        let lookups = entry.lookups.get_mut();
        *lookups = lookups.saturating_sub(count);
        if *lookups > 0 {
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

    pub(super) fn count(&self) -> usize {
        self.maps.read().unwrap_or_else(PoisonError::into_inner).by_id.len()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Maps> {
        self.maps.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maps {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

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
            place: Mutex::new(Places { last: place, before: None }),
            open: Mutex::default(),
            default_acl: Recent::default(),
        });
        self.by_key.insert(node.key, id);
        let seen = self.tick().into();
        let entry = Entry { node: Arc::clone(&node), lookups: 1.into(), seen };
        self.by_id.insert(id, entry);
        node
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
