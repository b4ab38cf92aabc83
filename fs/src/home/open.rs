//! Opening nodes: from a pinned inode to a descriptor that reads and writes.
//!
//! Owns how a node becomes a descriptor without `/proc`: by its last known place, compared with the inode that
//! is pinned. Where they differ the node is stale, and the kernel looks the name up again. All handles of a
//! node share one open file, so its size, its cipher and its locks are shared too.

use super::create::Caller;
use super::error::HomeError;
use super::file::HomeFile;
use super::node::{Node, Place, key_of};
use super::recent::Recent;
use super::tree::Home;
use crate::backing::FileBacking;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

/// What an inode is opened with besides its access mode: no links are followed, and a fifo or device that was
/// put in the place of a file does not block.
const GUARDS: OFlags =
    OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// An open regular file of a home.
pub(crate) struct OpenFile {
    pub(crate) file: HomeFile<FileBacking>,
    /// False on a storage that cannot be written.
    pub(crate) writable: bool,
    /// It has no set-user-ID or set-group-ID bits that a write would have to take away.
    pub(super) harmless: Recent<()>,
    /// Handles that were opened for writing.
    writers: AtomicUsize,
    /// Of the home: some sync has failed.
    doubts: Arc<AtomicBool>,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // The next who opens it knows nothing of this, and the storage has told it once only.
        if self.file.verdict().is_err() {
            self.doubts.store(true, Ordering::Release);
        }
    }
}

/// One opening of a file, by somebody who writes or not.
#[derive(Debug)]
pub(crate) struct Handle {
    open: Arc<OpenFile>,
    writes: bool,
}

impl Handle {
    pub(crate) fn new(open: Arc<OpenFile>, writes: bool) -> Handle {
        if writes {
            open.writers.fetch_add(1, Ordering::AcqRel);
        }
        Handle { open, writes }
    }

    /// The file, for longer than the handle.
    pub(crate) fn shared(&self) -> Arc<OpenFile> {
        Arc::clone(&self.open)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.writes {
            self.open.writers.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Deref for Handle {
    type Target = OpenFile;

    fn deref(&self) -> &OpenFile {
        &self.open
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("writable", &self.writable).finish_non_exhaustive()
    }
}

impl OpenFile {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.file.store.as_fd()
    }

    /// Somebody has it open for writing.
    pub(crate) fn is_being_written(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0
    }

    /// Sets the size, as the caller may.
    pub(crate) fn resize(&self, size: u64, caller: Caller) -> Result<(), HomeError> {
        self.for_writing()?.truncate(size)?;
        if caller.keeps_set_ids() { Ok(()) } else { self.drop_set_ids() }
    }

    /// The file, if it may be written.
    pub(crate) fn for_writing(&self) -> Result<&HomeFile<FileBacking>, HomeError> {
        if self.writable { Ok(&self.file) } else { Err(HomeError::ReadOnly) }
    }
}

impl Home {
    /// The open file of a node, shared with everybody who has it open.
    ///
    /// The descriptor is opened for reading and writing whatever the caller wants, because a write of part of
    /// a sector must read it; only where the storage refuses that and the caller does not write, for reading.
    ///
    /// # Errors
    /// [`HomeError::ReadOnly`] also while the file is open for reading only, whatever the storage would say now.
    pub(crate) fn open_file(&self, node: &Node, write: bool) -> Result<Arc<OpenFile>, HomeError> {
        match node.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(HomeError::io("open")(Errno::ISDIR)),
            FileType::Symlink => return Err(HomeError::io("open")(Errno::LOOP)),
            _ => return Err(HomeError::io("open")(Errno::NXIO)),
        }
        let mut slot = node.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slot.upgrade() {
            // Never a second one beside it: two would not know of each other's size and locks.
            if write && !open.writable {
                return Err(HomeError::ReadOnly);
            }
            open.file.look_again()?;
            return Ok(open);
        }
        let ((fd, stat), writable) = match open_file_node(node, OFlags::RDWR) {
            Err(HomeError::Io { source, .. }) if !write && is_read_only(&source) => {
                (open_file_node(node, OFlags::RDONLY)?, false)
            }
            opened => (opened?, true),
        };
        let open = Arc::new(self.wrap(node, fd, &stat, writable)?);
        *slot = Arc::downgrade(&open);
        Ok(open)
    }

    /// Takes the descriptor of a file just created, if it is that of the node.
    pub(super) fn adopt_file(&self, node: &Node, fd: OwnedFd) -> Result<Arc<OpenFile>, HomeError> {
        let stat = rustix::fs::fstat(&fd).map_err(HomeError::io("stat of a file"))?;
        if key_of(&stat) != node.key {
            return Err(HomeError::Stale(node.id));
        }
        let mut slot = node.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slot.upgrade() {
            // Another request found the new name first.
            return if open.writable { Ok(open) } else { Err(HomeError::ReadOnly) };
        }
        let open = Arc::new(self.wrap(node, fd, &stat, true)?);
        *slot = Arc::downgrade(&open);
        Ok(open)
    }

    fn wrap(
        &self,
        node: &Node,
        fd: OwnedFd,
        stat: &Stat,
        writable: bool,
    ) -> Result<OpenFile, HomeError> {
        let stored = u64::try_from(stat.st_size).unwrap_or(0);
        let store = FileBacking::new(fd);
        let file = HomeFile::open(store, stored, Arc::clone(&self.keys), node.label(&self.names))?;
        let file = file.seen_by_us_only(self.alone);
        if self.doubts.load(Ordering::Acquire) {
            file.doubt();
        }
        let doubts = Arc::clone(&self.doubts);
        let (harmless, writers) = (Recent::default(), AtomicUsize::new(0));
        Ok(OpenFile { file, writable, harmless, writers, doubts })
    }
}

/// A real descriptor for a folder or a regular file.
pub(super) fn open_node(node: &Node, access: OFlags) -> Result<OwnedFd, HomeError> {
    if node.kind == FileType::Directory {
        let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&node.fd, ".", flags, Mode::empty());
        return opened.map_err(HomeError::io("open of a folder"));
    }
    open_file_node(node, access).map(|(fd, _)| fd)
}

/// A real descriptor for a regular file, and what `stat` shows of it. It is opened by the name it was last seen
/// under; where others moved that away meanwhile, by the one before, then by the one that it was seen under since.
fn open_file_node(node: &Node, access: OFlags) -> Result<(OwnedFd, Stat), HomeError> {
    let last = node.place()?;
    let mut opened = open_at(node, &last, access);
    if matches!(opened, Err(HomeError::Stale(_)))
        && let Some(before) = node.place_before()
    {
        opened = open_at(node, &before, access);
    }
    if matches!(opened, Err(HomeError::Stale(_))) {
        opened = open_at(node, &node.place()?, access);
    }
    opened
}

fn open_at(node: &Node, place: &Place, access: OFlags) -> Result<(OwnedFd, Stat), HomeError> {
    let fd = match rustix::fs::openat(&place.parent.fd, &place.name, access | GUARDS, Mode::empty())
    {
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Err(HomeError::Stale(node.id)),
        opened => opened.map_err(HomeError::io("open of a file"))?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(HomeError::io("stat of a file"))?;
    if key_of(&stat) != node.key {
        return Err(HomeError::Stale(node.id));
    }
    Ok((fd, stat))
}

fn is_read_only(error: &std::io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::ROFS | Errno::PERM | Errno::ACCESS))
}
