//! Listing folders.
//!
//! Owns the cursor over a folder of the storage: offsets are the storage's own, so a listing goes on where it
//! stopped however many names came and went. Names that are not of this home are passed over. Must not know FUSE.

use super::error::HomeError;
use super::names::Room;
use super::naming::Naming;
use super::node::Node;
use rustix::fs::{FileType, RawDir, SeekFrom};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes read from the storage at a time: a few hundred names.
pub(super) const BATCH: usize = 32 * 1024;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    /// The position belongs to the descriptor, so listings of one handle take turns.
    fd: Mutex<OwnedFd>,
    /// In use for as long as this is open.
    node: Arc<Node>,
    names: Arc<Naming>,
}

/// One name in a folder.
#[derive(Debug)]
pub(crate) struct Listed<'a> {
    pub(crate) name: &'a OsStr,
    pub(crate) kind: FileType,
    pub(crate) inode: u64,
    /// Where the listing goes on after this name.
    pub(crate) next: u64,
}

impl Listed<'_> {
    /// `.` or `..`.
    pub(crate) fn is_dot(&self) -> bool {
        is_dot(self.name.as_bytes())
    }
}

pub(super) fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

impl Folder {
    pub(crate) fn new(node: Arc<Node>, fd: OwnedFd, names: Arc<Naming>) -> Folder {
        Folder { fd: Mutex::new(fd), node, names }
    }

    /// Hands out names from `offset` on until `take` says that it has enough, which it must for a name that
    /// it did not take.
    pub(crate) fn list(
        &self,
        offset: u64,
        mut take: impl FnMut(Listed<'_>) -> Result<bool, HomeError>,
    ) -> Result<(), HomeError> {
        let fd = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::seek(&*fd, SeekFrom::Start(offset)).map_err(HomeError::io("readdir"))?;
        let mut space = [MaybeUninit::<u8>::uninit(); BATCH];
        let (mut entries, mut room) = (RawDir::new(&*fd, &mut space), Room::new());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(HomeError::io("readdir"))?;
            let stored = entry.file_name().to_bytes();
            let plain = match is_dot(stored) {
                true => Some(OsStr::from_bytes(stored)),
                false => self.names.plain(stored, &mut room),
            };
            let Some(name) = plain else {
                self.names.stray(self.node.key, || self.node.label(&self.names), stored);
                continue;
            };
            let listed = Listed {
                name,
                kind: entry.file_type(),
                inode: entry.ino(),
                next: entry.next_entry_cookie(),
            };
            if take(listed)? {
                break;
            }
        }
        Ok(())
    }

    /// Makes names created, removed and renamed so far durable.
    pub(crate) fn sync(&self) -> Result<(), HomeError> {
        let fd = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::io::retry_on_intr(|| rustix::fs::fsync(&*fd))
            .map_err(HomeError::io("sync of a folder"))
    }
}
