//! Extended attributes of nodes, and access control lists among them.
//!
//! Owns the calls of the storage and who may see what; the form of stored names and values is in `xattr`. Access
//! control lists (acl(5)) are kept as they are, like owners and modes: so the storage itself keeps them in step with
//! the mode and gives new objects those of their folder, in the one call that makes them. Must not know FUSE.

use super::create::{Caller, open_now};
use super::error::HomeError;
use super::node::Node;
use super::open::open_node;
use super::scratch::with_copy_buffer;
use super::tree::Home;
use super::xattr::{self, MAX_STORED, NONCE_LEN, NameFault, OVERHEAD, StoredName};
use rustix::fs::{FileType, OFlags, XattrFlags};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// Rights to an object beside its mode.
const ACCESS: &CStr = c"system.posix_acl_access";

/// What new objects in a folder get.
const DEFAULT: &CStr = c"system.posix_acl_default";

/// Longest list of names in Linux (`XATTR_LIST_MAX`).
const MAX_LIST: usize = 65_536;

/// Names that only root may see in a list.
const TRUSTED: &[u8] = b"trusted.";

/// How an attribute is kept.
#[expect(clippy::large_enum_variant, reason = "it lives on the stack for the time of one call")]
enum Kept {
    /// Sealed, under another name.
    Sealed(StoredName),
    /// As it is.
    Acl(&'static CStr),
}

impl Kept {
    fn of(name: &OsStr) -> Result<Kept, HomeError> {
        let name = name.as_bytes();
        if let Some(acl) = [ACCESS, DEFAULT].into_iter().find(|acl| acl.to_bytes() == name) {
            return Ok(Kept::Acl(acl));
        }
        StoredName::of(name).map(Kept::Sealed).map_err(|fault| match fault {
            NameFault::Space => HomeError::NotSupported("extended attributes of this name space"),
            NameFault::TooLong => HomeError::io("name of an extended attribute")(Errno::RANGE),
        })
    }

    fn name(&self) -> &CStr {
        match self {
            Kept::Sealed(name) => name.as_c_str(),
            Kept::Acl(name) => name,
        }
    }
}

impl Home {
    /// Length of the value of an extended attribute.
    pub(crate) fn xattr_len(&self, id: u64, name: &OsStr) -> Result<usize, HomeError> {
        let (node, kept) = (self.node(id)?, Kept::of(name)?);
        let stored = on_inode(&node, |fd| rustix::fs::fgetxattr_query(fd, kept.name()));
        let stored = stored.map_err(|error| absent(error, &kept))?;
        Ok(match kept {
            Kept::Sealed(_) => xattr::plain_len(stored),
            Kept::Acl(_) => stored,
        })
    }

    /// Hands the value of an extended attribute to `deliver`.
    ///
    /// # Errors
    /// [`HomeError::Damaged`] for a value that was not set through a mount of this home, under this name.
    pub(crate) fn xattr<R>(
        &self,
        id: u64,
        name: &OsStr,
        deliver: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, HomeError> {
        let (node, kept) = (self.node(id)?, Kept::of(name)?);
        with_copy_buffer(MAX_STORED, |buffer| {
            let read = |fd: BorrowedFd<'_>| rustix::fs::fgetxattr(fd, kept.name(), &mut *buffer);
            let len = on_inode(&node, read).map_err(|error| absent(error, &kept))?;
            let stored = &mut buffer[..len];
            match kept {
                Kept::Sealed(_) => self
                    .keys
                    .open_value(name.as_bytes(), stored, || node.label(&self.names))
                    .map(deliver),
                Kept::Acl(_) => Ok(deliver(stored)),
            }
        })
    }

    /// Sets an extended attribute, with the flags of `setxattr(2)`.
    pub(crate) fn set_xattr(
        &self,
        id: u64,
        name: &OsStr,
        value: &[u8],
        flags: u32,
        caller: Caller,
    ) -> Result<(), HomeError> {
        let (node, kept) = (self.node(id)?, Kept::of(name)?);
        let flags = XattrFlags::from_bits_retain(flags);
        let set = |value: &[u8]| {
            on_inode(&node, |fd| rustix::fs::fsetxattr(fd, kept.name(), value, flags))
        };
        match kept {
            Kept::Sealed(_) => {
                let nonce = crypto::random_array::<NONCE_LEN>()
                    .map_err(|source| HomeError::Key { file: node.label(&self.names), source })?;
                with_copy_buffer(MAX_STORED.max(OVERHEAD + value.len()), |room| {
                    let sealed = self.keys.seal_value(name.as_bytes(), value, &nonce, room);
                    set(sealed.ok_or(HomeError::Invalid("length of an extended attribute"))?)
                })
            }
            Kept::Acl(list) => {
                set(value)?;
                node.acl_changed();
                if list == ACCESS { drop_foreign_group_bit(&node, caller) } else { Ok(()) }
            }
        }
    }

    /// Removes an extended attribute.
    pub(crate) fn remove_xattr(&self, id: u64, name: &OsStr) -> Result<(), HomeError> {
        let (node, kept) = (self.node(id)?, Kept::of(name)?);
        let removed = on_inode(&node, |fd| rustix::fs::fremovexattr(fd, kept.name()));
        node.acl_changed();
        removed.map_err(|error| absent(error, &kept))
    }

    /// Hands the names of the extended attributes, each with a zero byte at its end, to `deliver`. Those of
    /// `trusted` are for root alone.
    pub(crate) fn list_xattrs<R>(
        &self,
        id: u64,
        caller: Caller,
        deliver: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, HomeError> {
        let node = self.node(id)?;
        with_copy_buffer(2 * MAX_LIST, |buffer| {
            let (below, list) = buffer.split_at_mut(MAX_LIST);
            let len = match on_inode(&node, |fd| rustix::fs::flistxattr(fd, &mut *below)) {
                Err(HomeError::NotSupported(_)) => 0,
                listed => listed?,
            };
            let mut end = 0;
            for name in below[..len].split(|&byte| byte == 0) {
                let Some((space, rest)) = shown(name, caller) else { continue };
                // No longer than below: a stored name has as many bytes in front as the longest space, but one.
                let Some(room) = list.get_mut(end..end + space.len() + rest.len() + 1) else {
                    return Err(HomeError::io("list of extended attributes")(Errno::TOOBIG));
                };
                room[..space.len()].copy_from_slice(space);
                room[space.len()..space.len() + rest.len()].copy_from_slice(rest);
                room[space.len() + rest.len()] = 0;
                end += space.len() + rest.len() + 1;
            }
            Ok(deliver(&list[..end]))
        })
    }
}

impl Node {
    /// Do new objects in this folder get an access control list from it?
    pub(super) fn has_default_acl(&self) -> Result<bool, HomeError> {
        self.default_acl.get(|| {
            match on_inode(self, |fd| rustix::fs::fgetxattr_query(fd, DEFAULT)) {
                Ok(_) => Ok(true),
                Err(HomeError::NotSupported(_)) => Ok(false),
                Err(HomeError::Io { source, .. }) if is(&source, Errno::NODATA) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    fn acl_changed(&self) {
        self.default_acl.forget();
    }
}

/// A name in the storage as this caller sees it, in two parts.
fn shown(stored: &[u8], caller: Caller) -> Option<(&[u8], &[u8])> {
    if [ACCESS, DEFAULT].into_iter().any(|acl| acl.to_bytes() == stored) {
        return Some((stored, b""));
    }
    xattr::plain_name(stored).filter(|(space, _)| *space != TRUSTED || caller.uid == 0)
}

/// Runs `call` on a descriptor of the inode that is no `O_PATH` one.
fn on_inode<T>(
    node: &Node,
    call: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
) -> Result<T, HomeError> {
    let done = match node.kind {
        FileType::RegularFile => match open_now(node) {
            Some(open) => call(open.fd()),
            None => call(open_node(node, OFlags::RDONLY)?.as_fd()),
        },
        FileType::Directory => call(open_node(node, OFlags::RDONLY)?.as_fd()),
        // Links cannot be opened, and opening the others does something.
        _ => return Err(HomeError::NotSupported("extended attributes of this kind of object")),
    };
    match done {
        Err(Errno::OPNOTSUPP) => {
            Err(HomeError::NotSupported("extended attributes on this storage"))
        }
        done => done.map_err(HomeError::io("extended attribute")),
    }
}

/// What is not there because it cannot be: lists and attributes that the kernel asks for by itself must be absent
/// then, an error would be one of the program's call.
fn absent(error: HomeError, kept: &Kept) -> HomeError {
    match (&error, kept) {
        (HomeError::NotSupported(_), Kept::Acl(_)) => {
            HomeError::io("access control list")(Errno::NODATA)
        }
        (HomeError::NotSupported(_), Kept::Sealed(name))
            if name.as_c_str().to_bytes() == b"user.:scapability" =>
        {
            HomeError::io("extended attribute")(Errno::NODATA)
        }
        _ => error,
    }
}

/// Who sets the rights of a file whose group is not theirs must not leave it a program that runs with that group.
/// The kernel knows all groups of the caller and does not say; of other groups than the first, the bit is lost too.
fn drop_foreign_group_bit(node: &Node, caller: Caller) -> Result<(), HomeError> {
    if caller.uid == 0 || node.kind != FileType::RegularFile {
        return Ok(());
    }
    let stat = rustix::fs::fstat(&node.fd).map_err(HomeError::io("stat of a file"))?;
    if stat.st_gid == caller.gid || stat.st_mode & super::create::SET_GROUP == 0 {
        return Ok(());
    }
    super::create::set_mode(node, stat.st_mode & !super::create::SET_GROUP)
}

fn is(error: &std::io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}
