//! Changes of what exists: attributes, removal, renaming.
//!
//! Owns the calls that alter the tree without adding to it; must not know FUSE. A rename keeps the node and
//! only notes its new place; content never depends on names.

use super::attributes::{Attributes, Changes, NewTime};
use super::create::{Caller, SET_GROUP, set_mode};
use super::error::HomeError;
use super::folder::{BATCH, is_dot};
use super::names::Room;
use super::node::{At, Node};
use super::open::OpenFile;
use super::tree::{Home, stat_at};
use crate::fsck::shown_path;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, RenameFlags, Timespec, Timestamps, UTIME_NOW,
    UTIME_OMIT, Uid,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::mem::MaybeUninit;

impl Home {
    /// Changes attributes and returns them. `file` is the open file when the request came through a handle.
    /// Set-user bits fall with owner and size, unless the caller may keep them.
    pub(crate) fn change(
        &self,
        id: u64,
        changes: Changes,
        file: Option<&OpenFile>,
        caller: Caller,
    ) -> Result<Attributes, HomeError> {
        let node = self.node(id)?;
        // The owner first: changing it takes set-user bits away that the mode may bring back.
        if changes.uid.is_some() || changes.gid.is_some() {
            let (uid, gid) = (changes.uid.map(Uid::from_raw), changes.gid.map(Gid::from_raw));
            rustix::fs::chownat(&node.fd, "", uid, gid, AtFlags::EMPTY_PATH)
                .map_err(HomeError::io("chown"))?;
            if changes.mode.is_none() && !caller.keeps_set_ids() {
                drop_group_bit(&node)?;
            }
        }
        if let Some(mode) = changes.mode {
            set_mode(&node, mode)?;
        }
        if let Some(size) = changes.size {
            match file {
                Some(open) => open.resize(size, caller)?,
                None => {
                    let open = self.open_file(&node, true)?;
                    open.resize(size, caller)?;
                    // Nobody may have it open who would be told by a later sync.
                    open.file.verdict()?;
                }
            }
        }
        if changes.accessed.is_some() || changes.modified.is_some() {
            set_times(&node, changes)?;
        }
        self.attributes_of(&node)
    }

    /// Removes a name that is not a folder's.
    pub(crate) fn remove(&self, parent: u64, name: &OsStr) -> Result<(), HomeError> {
        self.unlink(parent, name, AtFlags::empty())
    }

    /// Removes an empty folder.
    pub(crate) fn remove_folder(&self, parent: u64, name: &OsStr) -> Result<(), HomeError> {
        self.unlink(parent, name, AtFlags::REMOVEDIR)
    }

    fn unlink(&self, parent: u64, name: &OsStr, flags: AtFlags) -> Result<(), HomeError> {
        let at = self.at(parent, name)?;
        rustix::fs::unlinkat(&at.parent.fd, &*at.name, flags)
            .map_err(|error| self.refused("unlink", error, &at))
    }

    /// Renames in one call of the storage, with its flags (`renameat2(2)`).
    pub(crate) fn rename(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        flags: u32,
    ) -> Result<(), HomeError> {
        let (from, to) = (self.at(from.0, from.1)?, self.at(to.0, to.1)?);
        let flags = RenameFlags::from_bits_retain(flags);
        rustix::fs::renameat_with(&from.parent.fd, &*from.name, &to.parent.fd, &*to.name, flags)
            .map_err(|error| self.refused("rename", error, &to))?;
        // Where these fail, the node is found stale when it is next opened, and looked up again.
        if let Ok(stat) = stat_at(&to) {
            self.nodes.relocate(&stat, &to);
        }
        if flags.contains(RenameFlags::EXCHANGE)
            && let Ok(stat) = stat_at(&from)
        {
            self.nodes.relocate(&stat, &from);
        }
        Ok(())
    }
}

impl Home {
    /// The fault for an error of the storage. A folder that looks empty and is not is one that nobody understands:
    /// what is in it is told.
    fn refused(&self, doing: &'static str, error: Errno, at: &At<'_>) -> HomeError {
        if error == Errno::NOTEMPTY
            && self.names.is_encrypted()
            && let Ok(Some(stray)) = self.only_strays(at)
        {
            let folder = self.names.plain_owned(at.name.to_os_string());
            return HomeError::Strays { folder: folder.to_string_lossy().into_owned(), stray };
        }
        HomeError::io(doing)(error)
    }

    /// One of the names in a folder that has no other names than such as are not of this home.
    fn only_strays(&self, at: &At<'_>) -> Result<Option<String>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&at.parent.fd, &*at.name, flags, Mode::empty())?;
        let mut space = [MaybeUninit::<u8>::uninit(); BATCH];
        let (mut entries, mut room, mut stray) = (RawDir::new(fd, &mut space), Room::new(), None);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let stored = entry.file_name().to_bytes();
            if is_dot(stored) {
                continue;
            }
            if self.names.plain(stored, &mut room).is_some() {
                return Ok(None);
            }
            stray.get_or_insert_with(|| shown_path(stored));
        }
        Ok(stray)
    }
}

/// The storage takes set-user bits away when the owner changes, but leaves this process, which is privileged, the
/// group's where the group does not execute.
fn drop_group_bit(node: &Node) -> Result<(), HomeError> {
    let stat = rustix::fs::fstat(&node.fd).map_err(HomeError::io("stat"))?;
    if node.kind != FileType::RegularFile || stat.st_mode & SET_GROUP == 0 {
        return Ok(());
    }
    set_mode(node, stat.st_mode & !SET_GROUP)
}

fn set_times(node: &Node, changes: Changes) -> Result<(), HomeError> {
    let spec = |time: Option<NewTime>| match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(NewTime::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(NewTime::At(time)) => {
            Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() }
        }
    };
    let times = Timestamps {
        last_access: spec(changes.accessed),
        last_modification: spec(changes.modified),
    };
    rustix::fs::utimensat(&node.fd, "", &times, AtFlags::EMPTY_PATH)
        .map_err(HomeError::io("utimens"))
}
