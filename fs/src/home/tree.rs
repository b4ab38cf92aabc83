//! The tree of a home: names to nodes, and nodes to what they show.
//!
//! Owns lookups and everything that reads the tree; `create` and `change` alter it. Names are single
//! components resolved against a pinned folder, never paths, and links are never followed, so nothing outside
//! the folder of the home can be reached. Must not know FUSE.

use super::attributes::Attributes;
use super::error::HomeError;
use super::folder::Folder;
use super::keys::HomeKeys;
use super::naming::Naming;
use super::node::{At, Node, Nodes};
use super::open::open_node;
use super::pressure::Pressure;
use super::storage::is_local;
use crate::safe::Names;
use crypto::{Arena, HomeKey};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatVfs};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use uuid::Uuid;

/// The home of one VM, open.
pub struct Home {
    pub(super) keys: Arc<HomeKeys>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) names: Arc<Naming>,
    /// The storage has nothing to tell when a file is closed.
    local: bool,
    /// Only this host can see it.
    pub(super) alone: bool,
    /// A sync of some file has failed: from then on, what was not synced by us is taken for lost in a crash.
    pub(super) doubts: Arc<AtomicBool>,
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Home").finish_non_exhaustive()
    }
}

impl Home {
    /// Opens the home in the folder `dir`, with key and policy from the safe of the VM `vm`. How many files the
    /// kernel may know of at one time comes from the limit of descriptors that this process has now.
    ///
    /// # Errors
    /// [`HomeError::Io`] when `dir` is not a folder that can be used, [`HomeError::Key`] when there is no
    /// locked memory for the keys.
    pub fn open(
        dir: OwnedFd,
        key: HomeKey,
        vm: Uuid,
        names: Names,
        arena: Arena,
    ) -> Result<Home, HomeError> {
        let stat = rustix::fs::fstat(&dir).map_err(HomeError::io("stat of the home"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(HomeError::io("open of the home")(Errno::NOTDIR));
        }
        let no_key = |source| HomeError::Key { file: "(the home itself)".into(), source };
        let naming = Arc::new(Naming::new(&key, &arena, names).map_err(no_key)?);
        let keys = Arc::new(HomeKeys::new(key, vm, names, arena).map_err(no_key)?);
        let local = is_local(&dir)?;
        let nodes = Nodes::new(dir, &stat, Pressure::of_process(), Arc::clone(&naming));
        let (nodes, doubts) = (Arc::new(nodes), Arc::default());
        Ok(Home { keys, nodes, names: naming, local, alone: false, doubts })
    }

    /// Says whether anybody else can see the storage while this home is served.
    pub(crate) fn set_alone(&mut self, alone: bool) {
        self.alone = alone;
    }

    /// Whether the storage may tell of faults of earlier writes when a file is closed.
    pub(crate) fn tells_at_close(&self) -> bool {
        !self.local
    }

    /// The table of nodes, for the thread that keeps it small.
    pub(crate) fn nodes(&self) -> Arc<Nodes> {
        Arc::clone(&self.nodes)
    }

    /// A node that the kernel knows.
    pub(crate) fn node(&self, id: u64) -> Result<Arc<Node>, HomeError> {
        self.nodes.get(id)
    }

    /// The folder `parent` and a name in it.
    pub(super) fn at<'a>(&self, parent: u64, name: &'a OsStr) -> Result<At<'a>, HomeError> {
        let name = self.names.stored(component(name)?)?;
        Ok(At { parent: self.node(parent)?, name })
    }

    /// Finds a name; counts as a lookup.
    pub(crate) fn lookup(&self, parent: u64, name: &OsStr) -> Result<Attributes, HomeError> {
        self.find(&self.at(parent, name)?)
    }

    pub(super) fn find(&self, at: &At<'_>) -> Result<Attributes, HomeError> {
        // Most lookups are of nodes whose time in the kernel's cache ran out: one call tells.
        let stat = stat_at(at).map_err(HomeError::io("lookup"))?;
        if let Some(node) = self.nodes.revisit(&stat, at) {
            return Ok(Attributes::of(&node, &stat, &self.keys));
        }
        let (node, stat) = self.pin(at)?;
        Ok(Attributes::of(&node, &stat, &self.keys))
    }

    /// The node of a name that is probably not known yet; counts as a lookup.
    pub(super) fn pin(&self, at: &At<'_>) -> Result<(Arc<Node>, Stat), HomeError> {
        self.nodes.brake();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&at.parent.fd, &*at.name, flags, Mode::empty())
            .map_err(HomeError::io("lookup"))?;
        let stat = rustix::fs::fstat(&fd).map_err(HomeError::io("lookup"))?;
        Ok((self.nodes.visit(fd, &stat, at)?, stat))
    }

    /// What kind of object a name is; not a lookup.
    pub(crate) fn kind_of(&self, parent: u64, name: &OsStr) -> Result<FileType, HomeError> {
        let stat = stat_at(&self.at(parent, name)?).map_err(HomeError::io("lookup"))?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    /// The kernel forgets a node it was told of `count` times.
    pub(crate) fn forget(&self, id: u64, count: u64) {
        self.nodes.forget(id, count);
    }

    /// The kernel will forget a node once that it was not told of; if it knows the node, that must not count.
    pub(crate) fn expect_forget(&self, id: u64) {
        self.nodes.expect_forget(id);
    }

    /// What `stat` shows.
    pub(crate) fn attributes(&self, id: u64) -> Result<Attributes, HomeError> {
        let node = self.node(id)?;
        self.attributes_of(&node)
    }

    pub(super) fn attributes_of(&self, node: &Node) -> Result<Attributes, HomeError> {
        let stat = rustix::fs::fstat(&node.fd).map_err(HomeError::io("stat"))?;
        Ok(Attributes::of(node, &stat, &self.keys))
    }

    /// Where a link points to.
    ///
    /// # Errors
    /// [`HomeError::Damaged`] for a link that was not made with the key of this home.
    pub(crate) fn read_link(&self, id: u64) -> Result<OsString, HomeError> {
        let node = self.node(id)?;
        let stored = rustix::fs::readlinkat(&node.fd, "", Vec::new())
            .map_err(HomeError::io("read of a link"))?;
        let target = self.keys.open_link(stored.as_bytes(), || node.label(&self.names))?;
        Ok(OsString::from_vec(target.into_owned()))
    }

    /// Space and limits of the storage.
    pub(crate) fn space(&self, id: u64) -> Result<StatVfs, HomeError> {
        let node = self.node(id)?;
        let space = rustix::fs::fstatvfs(&node.fd).map_err(HomeError::io("statfs"))?;
        Ok(StatVfs { f_namemax: self.names.limit(space.f_namemax), ..space })
    }

    /// A folder to list or sync.
    pub(crate) fn open_folder(&self, id: u64) -> Result<Folder, HomeError> {
        let node = self.node(id)?;
        if node.kind != FileType::Directory {
            return Err(HomeError::io("open of a folder")(Errno::NOTDIR));
        }
        let fd = open_node(&node, OFlags::RDONLY)?;
        Ok(Folder::new(node, fd, Arc::clone(&self.names)))
    }
}

pub(super) fn stat_at(at: &At<'_>) -> Result<Stat, Errno> {
    rustix::fs::statat(&at.parent.fd, &*at.name, AtFlags::SYMLINK_NOFOLLOW)
}

/// A name of exactly one component.
fn component(name: &OsStr) -> Result<&OsStr, HomeError> {
    match name.as_bytes() {
        b"" | b"." | b".." => Err(HomeError::BadName),
        bytes if bytes.contains(&b'/') || bytes.contains(&0) => Err(HomeError::BadName),
        _ => Ok(name),
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
