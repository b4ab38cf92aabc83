//! What requests mean: flags and handles turned into calls of the home.
//!
//! Owns the decisions; `operations` only hands requests on. Every function returns the home's own error.

use super::errno::{LOOK_AGAIN, Refusal};
use super::operations::Door;
use super::protocol::{Answer, Cache, Entry, NewAttributes, Opened, Reply, Write};
use super::settings::Caching;
use crate::home::{
    Attributes, Caller, Changes, Handle, HomeError, Listed, OpenFile, Zeroing, copy,
};
use rustix::fs::{FallocateFlags, FileType, OFlags};
use std::ffi::OsStr;
use std::ops::Deref;
use std::sync::Arc;

/// `lseek(2)`: the next data.
const SEEK_DATA: i32 = 3;
/// `lseek(2)`: the next hole.
const SEEK_HOLE: i32 = 4;

fn open_flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags.cast_unsigned())
}

fn writes(flags: OFlags) -> bool {
    flags.intersects(OFlags::WRONLY | OFlags::RDWR)
}

impl Door {
    pub(super) fn set_attributes(
        &self,
        id: u64,
        new: &NewAttributes,
        caller: Caller,
    ) -> Result<Attributes, HomeError> {
        let changes = Changes {
            mode: new.mode,
            uid: new.uid,
            gid: new.gid,
            size: new.size,
            accessed: new.accessed,
            modified: new.modified,
        };
        let file = new.handle.map(|handle| self.files.get(handle)).transpose()?;
        self.home.change(id, changes, file.as_deref().map(Deref::deref), caller)
    }

    pub(super) fn open_file(&self, id: u64, flags: i32) -> Result<Opened, HomeError> {
        let flags = open_flags(flags);
        let node = self.home.node(id)?;
        let open = self.home.open_file(&node, writes(flags))?;
        self.opened(open, flags)
    }

    pub(super) fn create_file(
        &self,
        folder: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<Answer<'static>, Refusal> {
        let flags = open_flags(flags);
        let (made, open) = match self.home.create(folder, name, mode, caller) {
            Err(error) if error.is_taken() && !flags.contains(OFlags::EXCL) => {
                return Err(Refusal::Always(LOOK_AGAIN));
            }
            made => made?,
        };
        match self.opened(open, flags) {
            Ok(opened) => Ok(Answer::Created(made, self.caching.ttl(), opened)),
            Err(error) => {
                // The kernel is not told of the lookup.
                self.home.forget(made.id, 1);
                Err(error.into())
            }
        }
    }

    fn opened(&self, open: Arc<OpenFile>, flags: OFlags) -> Result<Opened, HomeError> {
        let bypass = self.bypasses && flags.contains(OFlags::DIRECT);
        let cache = if bypass { Cache::Bypass } else { self.kept() };
        // Who only reads has no writes of which the storage would tell when it is closed.
        let flush = writes(flags);
        let handle = self.files.insert(Arc::new(Handle::new(open, flush)))?;
        Ok(Opened { handle, cache, flush })
    }

    /// What the kernel does with what it had cached when something is opened: alone, nobody changed it meanwhile.
    pub(super) fn kept(&self) -> Cache {
        match self.caching {
            Caching::Shared => Cache::Renew,
            Caching::Exclusive => Cache::Keep,
        }
    }

    pub(super) fn write_file(&self, handle: u64, write: &Write<'_>) -> Result<u32, HomeError> {
        let open = self.files.get(handle)?;
        let file = open.for_writing()?;
        file.write(write.at, write.data)?;
        if write.kill {
            open.drop_set_ids()?;
        }
        let flags = open_flags(write.flags);
        if flags.intersects(OFlags::SYNC | OFlags::DSYNC) {
            file.sync(!flags.contains(OFlags::SYNC))?;
        }
        u32::try_from(write.data.len()).map_err(|_| HomeError::Invalid("write of more than 4 GiB"))
    }

    pub(super) fn allocate(
        &self,
        handle: u64,
        (at, len): (u64, u64),
        mode: i32,
        caller: Caller,
    ) -> Result<(), HomeError> {
        let open = self.files.get(handle)?;
        let file = open.for_writing()?;
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let keep_size = mode.contains(FallocateFlags::KEEP_SIZE);
        let kind = mode - FallocateFlags::KEEP_SIZE;
        if len == 0 {
            return Err(HomeError::Invalid("fallocate of no bytes"));
        } else if kind.is_empty() {
            file.allocate(at, len, keep_size)?;
        } else if kind == FallocateFlags::PUNCH_HOLE && keep_size {
            file.zero(at, len, Zeroing::Punch, true)?;
        } else if kind == FallocateFlags::ZERO_RANGE {
            file.zero(at, len, Zeroing::Keep, keep_size)?;
        } else {
            return Err(HomeError::NotSupported("this mode of fallocate"));
        }
        if caller.keeps_set_ids() { Ok(()) } else { open.drop_set_ids() }
    }

    pub(super) fn copy_range(
        &self,
        from: (u64, u64),
        to: (u64, u64),
        len: u64,
        caller: Caller,
    ) -> Result<u32, HomeError> {
        let (source, target) = (self.files.get(from.0)?, self.files.get(to.0)?);
        let copied = copy((&source, from.1), (&target, to.1), len)?;
        if !caller.keeps_set_ids() {
            target.drop_set_ids()?;
        }
        Ok(u32::try_from(copied).unwrap_or(u32::MAX))
    }

    pub(super) fn list(
        &self,
        id: u64,
        handle: u64,
        from: u64,
        reply: &mut impl Reply,
    ) -> Result<(), HomeError> {
        let folder = self.folders.get(handle)?;
        folder.list(from, |listed| {
            let kind = match listed.kind {
                FileType::Unknown if listed.is_dot() => FileType::Directory,
                FileType::Unknown => match self.home.kind_of(id, listed.name) {
                    Ok(kind) => kind,
                    // Removed meanwhile.
                    Err(_) => return Ok(false),
                },
                kind => kind,
            };
            Ok(reply.add(&entry(&listed, kind, None)))
        })
    }

    /// Lists with attributes; every name handed out is a lookup, except the dots.
    pub(super) fn list_with_attributes(
        &self,
        id: u64,
        handle: u64,
        from: u64,
        reply: &mut impl Reply,
    ) -> Result<(), HomeError> {
        let (ttl, folder) = (self.caching.ttl(), self.folders.get(handle)?);
        folder.list(from, |listed| {
            if listed.is_dot() {
                return Ok(reply.add(&entry(&listed, FileType::Directory, None)));
            }
            let full = match self.home.lookup(id, listed.name) {
                Ok(found) => {
                    let full = reply.add(&entry(&listed, found.kind, Some((found, ttl))));
                    if full {
                        self.home.forget(found.id, 1);
                    }
                    full
                }
                // Removed meanwhile.
                Err(error) if error.is_not_found() => return Ok(false),
                // The name exists: it must not end the listing, nor be missing from it.
                Err(error) => {
                    self.faults.refuse("readdirplus", &error);
                    let full = reply.add(&entry(&listed, listed.kind, None));
                    if !full {
                        self.home.expect_forget(listed.inode);
                    }
                    full
                }
            };
            // A listing alone could take all nodes, and holds the lock of the folder while it lasts: in need,
            // one name at a time.
            Ok(full || self.home.nodes().are_scarce())
        })
    }
}

/// What `lseek(2)` finds from `at` on.
pub(super) fn search(open: &OpenFile, at: u64, whence: i32) -> Result<i64, HomeError> {
    let found = match whence {
        SEEK_DATA => open.file.next_data(at)?,
        SEEK_HOLE => open.file.next_hole(at)?,
        _ => return Err(HomeError::Invalid("lseek that the kernel does itself")),
    };
    i64::try_from(found).map_err(|_| HomeError::PastEnd)
}

fn entry<'a>(
    listed: &Listed<'a>,
    kind: FileType,
    found: Option<(Attributes, std::time::Duration)>,
) -> Entry<'a> {
    Entry { name: listed.name, inode: listed.inode, kind, next: listed.next, found }
}
