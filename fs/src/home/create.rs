//! New names: folders, files, links and special nodes.
//!
//! Owns the steps from a request to an object with the right owner and mode; must not know FUSE. The process
//! makes objects as itself and gives them to the caller afterwards, so a crash in between leaves an object of
//! the daemon's, and a failure takes the object away again.

use super::attributes::{Attributes, permissions};
use super::error::HomeError;
use super::node::{At, Node};
use super::open::{OpenFile, open_node};
use super::tree::{Home, stat_at};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawMode, Stat, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Bit of a mode that makes new objects inherit the group of a folder.
pub(super) const SET_GROUP: RawMode = 0o2000;

/// Who asks for a new object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits that its new objects do not get; 0 in requests that make none.
    pub(crate) umask: u32,
}

/// The mode of a new object.
#[derive(Debug, Clone, Copy)]
struct NewMode {
    bits: u32,
    /// The folder has an access control list for new objects: the storage makes the mode of it and of `bits`, and
    /// the umask does not count (acl(5), "object creation and default ACLs").
    inherits: bool,
}

impl NewMode {
    fn raw(self) -> Mode {
        Mode::from_raw_mode(self.bits)
    }
}

impl Home {
    /// Makes a folder.
    pub(crate) fn make_folder(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        caller: Caller,
    ) -> Result<Attributes, HomeError> {
        let at = self.at(parent, name)?;
        let mode = mode_in(&at.parent, mode, caller)?;
        rustix::fs::mkdirat(&at.parent.fd, &*at.name, mode.raw())
            .map_err(HomeError::io("mkdir"))?;
        self.finish(&at, Some(mode), caller, AtFlags::REMOVEDIR).map(|(made, _)| made)
    }

    /// Makes an empty file, a fifo, a socket or a device.
    pub(crate) fn make_node(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        device: u32,
        caller: Caller,
    ) -> Result<Attributes, HomeError> {
        let at = self.at(parent, name)?;
        let kind = FileType::from_raw_mode(mode);
        let mode = mode_in(&at.parent, mode, caller)?;
        rustix::fs::mknodat(&at.parent.fd, &*at.name, kind, mode.raw(), device.into())
            .map_err(HomeError::io("mknod"))?;
        self.finish(&at, Some(mode), caller, AtFlags::empty()).map(|(made, _)| made)
    }

    /// Makes a symbolic link; its target is stored with a tag, without which it is not believed, or encrypted.
    ///
    /// # Errors
    /// `ENAMETOOLONG` for a target whose stored form is too long for Linux, or for the storage.
    pub(crate) fn make_link(
        &self,
        parent: u64,
        name: &OsStr,
        target: &OsStr,
        caller: Caller,
    ) -> Result<Attributes, HomeError> {
        let at = self.at(parent, name)?;
        let target = target.as_bytes();
        if target.is_empty() || target.contains(&0) {
            return Err(HomeError::Invalid("target of a link"));
        }
        let stored = self.keys.seal_link(target);
        let stored = stored.ok_or_else(|| HomeError::io("symlink")(Errno::NAMETOOLONG))?;
        rustix::fs::symlinkat(&stored[..], &at.parent.fd, &*at.name)
            .map_err(HomeError::io("symlink"))?;
        self.finish(&at, None, caller, AtFlags::empty()).map(|(made, _)| made)
    }

    /// Gives a node one more name.
    pub(crate) fn link(&self, id: u64, parent: u64, name: &OsStr) -> Result<Attributes, HomeError> {
        let node = self.node(id)?;
        let at = self.at(parent, name)?;
        match rustix::fs::linkat(&node.fd, "", &at.parent.fd, &*at.name, AtFlags::EMPTY_PATH) {
            // Without CAP_DAC_READ_SEARCH a descriptor cannot be linked; its name can.
            Err(Errno::NOENT) => link_by_name(&node, &at)?,
            linked => linked.map_err(HomeError::io("link"))?,
        }
        self.find(&at)
    }

    /// Makes and opens a file.
    ///
    /// # Errors
    /// `EEXIST` for a name that is there: whether the caller may open what has it is for the kernel to say.
    pub(crate) fn create(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        caller: Caller,
    ) -> Result<(Attributes, Arc<OpenFile>), HomeError> {
        let at = self.at(parent, name)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = mode_in(&at.parent, mode, caller)?;
        let fd = rustix::fs::openat(&at.parent.fd, &*at.name, flags, mode.raw())
            .map_err(HomeError::io("create"))?;
        let (made, node) = self.finish(&at, Some(mode), caller, AtFlags::empty())?;
        let opened = self.adopt_file(&node, fd).inspect_err(|_| {
            // A lookup that is not reported to the kernel must not be counted.
            self.forget(made.id, 1);
        });
        Ok((made, opened?))
    }

    /// Gives a new object to the caller; takes it away when that fails.
    fn finish(
        &self,
        at: &At<'_>,
        mode: Option<NewMode>,
        caller: Caller,
        removal: AtFlags,
    ) -> Result<(Attributes, Arc<Node>), HomeError> {
        let finished = self.pin(at).and_then(|(node, stat)| {
            match own(&at.parent, &node, stat, mode, caller) {
                Ok(stat) => Ok((Attributes::of(&node, &stat, &self.keys), node)),
                Err(error) => {
                    self.forget(node.id, 1);
                    Err(error)
                }
            }
        });
        if finished.is_err() {
            // The first fault is the one to report.
            let _ = rustix::fs::unlinkat(&at.parent.fd, &*at.name, removal);
        }
        finished
    }
}

/// The mode that an object made by the caller in `folder` is asked for.
fn mode_in(folder: &Node, mode: u32, caller: Caller) -> Result<NewMode, HomeError> {
    let inherits = folder.has_default_acl()?;
    let hidden = if inherits { 0 } else { caller.umask & 0o777 };
    Ok(NewMode { bits: mode & 0o7777 & !hidden, inherits })
}

/// Sets owner, group and mode of a new object as a local file system would have, as far as it has not got them.
/// Returns what `stat` shows then.
fn own(
    folder: &Node,
    node: &Node,
    mut stat: Stat,
    mode: Option<NewMode>,
    caller: Caller,
) -> Result<Stat, HomeError> {
    let gid = if stat.st_gid == caller.gid { caller.gid } else { group_in(folder, caller)? };
    if (stat.st_uid, stat.st_gid) != (caller.uid, gid) {
        let (uid, gid) = (Uid::from_raw(caller.uid), Gid::from_raw(gid));
        rustix::fs::chownat(&node.fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
            .map_err(HomeError::io("chown of a new object"))?;
        stat = stat_of(node)?;
    }
    let Some(mode) = mode else { return Ok(stat) };
    // A folder in a folder with this bit got it from the storage. Bits that the umask of this process took away,
    // or the change of the owner, come back here; what the storage made of an inherited list stays.
    let inherited = if node.kind == FileType::Directory { stat.st_mode & SET_GROUP } else { 0 };
    let wanted = inherited
        | match mode.inherits {
            true => mode.bits & 0o7000 | stat.st_mode & 0o777,
            false => mode.bits,
        };
    if u32::from(permissions(&stat)) != wanted {
        set_mode(node, wanted)?;
        stat = stat_of(node)?;
    }
    Ok(stat)
}

/// The group of what the caller makes in a folder (inode(7), "the set-group-ID bit").
fn group_in(folder: &Node, caller: Caller) -> Result<u32, HomeError> {
    let stat = rustix::fs::fstat(&folder.fd).map_err(HomeError::io("stat of a folder"))?;
    Ok(if stat.st_mode & SET_GROUP == 0 { caller.gid } else { stat.st_gid })
}

fn stat_of(node: &Node) -> Result<Stat, HomeError> {
    rustix::fs::fstat(&node.fd).map_err(HomeError::io("stat of a new object"))
}

/// Changes the mode of a node. An `O_PATH` descriptor cannot, so folders and files are opened; other kinds must
/// not be, and are named.
pub(super) fn set_mode(node: &Node, mode: u32) -> Result<(), HomeError> {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    let changed = match node.kind {
        FileType::RegularFile => match open_now(node) {
            // Nor does a write that takes bits away put back a mode that it saw before.
            Some(open) => open.harmless.change(|| rustix::fs::fchmod(open.fd(), mode)),
            None => rustix::fs::fchmod(open_node(node, OFlags::RDONLY)?, mode),
        },
        FileType::Directory => rustix::fs::fchmod(open_node(node, OFlags::RDONLY)?, mode),
        FileType::Symlink => return Err(HomeError::NotSupported("the mode of a symbolic link")),
        _ => {
            let place = node.place()?;
            let stat = stat_at(&place.at()).map_err(HomeError::io("chmod"))?;
            if super::node::key_of(&stat) != node.key {
                return Err(HomeError::Stale(node.id));
            }
            rustix::fs::chmodat(&place.parent.fd, &place.name, mode, AtFlags::empty())
        }
    };
    changed.map_err(HomeError::io("chmod"))
}

pub(super) fn open_now(node: &Node) -> Option<Arc<OpenFile>> {
    node.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner).upgrade()
}

fn link_by_name(node: &Node, to: &At<'_>) -> Result<(), HomeError> {
    let from = node.place()?;
    let stat = stat_at(&from.at()).map_err(|_| HomeError::Stale(node.id))?;
    if super::node::key_of(&stat) != node.key {
        return Err(HomeError::Stale(node.id));
    }
    let flags = AtFlags::empty();
    rustix::fs::linkat(&from.parent.fd, &from.name, &to.parent.fd, &*to.name, flags)
        .map_err(HomeError::io("link"))
}
