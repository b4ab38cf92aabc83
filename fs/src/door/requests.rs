//! What requests mean: flags and handles turned into calls of the home.
//!
//! Owns the decisions; `operations` only unpacks requests and packs replies. Every function returns the
//! home's own error.

use super::attr::{dot_attr, file_attr, file_type, new_time, unknown_attr};
use super::errno::refuse;
use super::operations::Door;
use super::settings::Caching;
use crate::home::{
    Attributes, Caller, Changes, HomeError, Listed, OpenFile, Opening, Zeroing, copy,
};
use fuser::{
    FileHandle, FopenFlags, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus, Request,
    TimeOrNow,
};
use rustix::fs::{FallocateFlags, FileType, OFlags};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

/// Nothing is known that the kernel could believe.
const NEVER: Duration = Duration::ZERO;

/// `lseek(2)`: the next data.
const SEEK_DATA: i32 = 3;
/// `lseek(2)`: the next hole.
const SEEK_HOLE: i32 = 4;

/// The attributes of a `setattr` request that this file system has.
pub(super) struct Wanted {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) atime: Option<TimeOrNow>,
    pub(super) mtime: Option<TimeOrNow>,
    pub(super) handle: Option<FileHandle>,
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

pub(super) fn open_flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags.cast_unsigned())
}

fn writes(flags: OFlags) -> bool {
    flags.intersects(OFlags::WRONLY | OFlags::RDWR)
}

impl Door {
    /// How an opened file is cached.
    pub(super) fn fopen_flags(&self) -> FopenFlags {
        match self.caching {
            Caching::Shared => FopenFlags::empty(),
            // Nobody changed what is cached since the file was closed.
            Caching::Exclusive => FopenFlags::FOPEN_KEEP_CACHE,
        }
    }

    pub(super) fn set_attributes(
        &self,
        id: INodeNo,
        wanted: &Wanted,
    ) -> Result<Attributes, HomeError> {
        let changes = Changes {
            mode: wanted.mode,
            uid: wanted.uid,
            gid: wanted.gid,
            size: wanted.size,
            accessed: wanted.atime.map(new_time),
            modified: wanted.mtime.map(new_time),
        };
        let file = wanted.handle.map(|handle| self.files.get(handle)).transpose()?;
        self.home.change(id.0, changes, file.as_ref())
    }

    pub(super) fn open_file(&self, id: INodeNo, flags: i32) -> Result<FileHandle, HomeError> {
        let flags = open_flags(flags);
        let node = self.home.node(id.0)?;
        // O_TRUNC alone is enough to write: the kernel has checked the permission.
        let truncates = flags.contains(OFlags::TRUNC);
        let open = self.home.open_file(&node, writes(flags) || truncates)?;
        if truncates {
            open.for_writing()?.truncate(0)?;
        }
        self.files.insert(open)
    }

    pub(super) fn create_file(
        &self,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Attributes, FileHandle), HomeError> {
        let flags = open_flags(flags);
        let opening = Opening {
            exclusive: flags.contains(OFlags::EXCL),
            write: writes(flags) || flags.contains(OFlags::TRUNC),
        };
        let (made, open) = self.home.create(parent.0, name, mode, opening, caller)?;
        let finish = || {
            if flags.contains(OFlags::TRUNC) && open.file.size() > 0 {
                open.for_writing()?.truncate(0)?;
            }
            self.files.insert(Arc::clone(&open))
        };
        match finish() {
            Ok(handle) => Ok((made, handle)),
            Err(error) => {
                // The kernel is not told of the lookup.
                self.home.forget(made.id, 1);
                Err(error)
            }
        }
    }

    pub(super) fn write_file(
        &self,
        handle: FileHandle,
        at: u64,
        data: &[u8],
        flags: i32,
    ) -> Result<u32, HomeError> {
        let open = self.files.get(handle)?;
        let file = open.for_writing()?;
        file.write(at, data)?;
        let flags = open_flags(flags);
        if flags.intersects(OFlags::SYNC | OFlags::DSYNC) {
            file.sync(!flags.contains(OFlags::SYNC))?;
        }
        u32::try_from(data.len()).map_err(|_| HomeError::Invalid("write of more than 4 GiB"))
    }

    pub(super) fn allocate(
        &self,
        handle: FileHandle,
        at: u64,
        len: u64,
        mode: i32,
    ) -> Result<(), HomeError> {
        let open = self.files.get(handle)?;
        let file = open.for_writing()?;
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let keep_size = mode.contains(FallocateFlags::KEEP_SIZE);
        let kind = mode - FallocateFlags::KEEP_SIZE;
        if len == 0 {
            Err(HomeError::Invalid("fallocate of no bytes"))
        } else if kind.is_empty() {
            file.allocate(at, len, keep_size)
        } else if kind == FallocateFlags::PUNCH_HOLE && keep_size {
            file.zero(at, len, Zeroing::Punch, true)
        } else if kind == FallocateFlags::ZERO_RANGE {
            file.zero(at, len, Zeroing::Keep, keep_size)
        } else {
            Err(HomeError::NotSupported("this mode of fallocate"))
        }
    }

    pub(super) fn seek(&self, handle: FileHandle, at: i64, whence: i32) -> Result<i64, HomeError> {
        let at = u64::try_from(at).map_err(|_| HomeError::PastEnd)?;
        let open = self.files.get(handle)?;
        let found = match whence {
            SEEK_DATA => open.file.next_data(at)?,
            SEEK_HOLE => open.file.next_hole(at)?,
            _ => return Err(HomeError::Invalid("lseek that the kernel does itself")),
        };
        i64::try_from(found).map_err(|_| HomeError::PastEnd)
    }

    pub(super) fn copy_range(
        &self,
        from: (FileHandle, u64),
        to: (FileHandle, u64),
        len: u64,
    ) -> Result<u32, HomeError> {
        let (source, target) = (self.files.get(from.0)?, self.files.get(to.0)?);
        let copied = copy((&source, from.1), (&target, to.1), len)?;
        Ok(u32::try_from(copied).unwrap_or(u32::MAX))
    }

    pub(super) fn open_folder(&self, id: INodeNo) -> Result<FileHandle, HomeError> {
        self.folders.insert(Arc::new(self.home.open_folder(id.0)?))
    }

    pub(super) fn list(
        &self,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: &mut ReplyDirectory,
    ) -> Result<(), HomeError> {
        let folder = self.folders.get(handle)?;
        folder.list(offset, |entry| {
            let kind = match entry.kind {
                FileType::Unknown if entry.is_dot() => FileType::Directory,
                FileType::Unknown => match self.home.kind_of(id.0, entry.name) {
                    Ok(kind) => kind,
                    // Removed meanwhile.
                    Err(_) => return Ok(false),
                },
                kind => kind,
            };
            Ok(reply.add(INodeNo(entry.inode), entry.next, file_type(kind), entry.name))
        })
    }

    /// Lists with attributes; every name handed out is a lookup, except the dots.
    pub(super) fn list_with_attributes(
        &self,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: &mut ReplyDirectoryPlus,
    ) -> Result<(), HomeError> {
        let (ttl, folder) = (self.caching.ttl(), self.folders.get(handle)?);
        folder.list(offset, |entry| {
            if entry.is_dot() {
                let (attr, generation) = (dot_attr(entry.inode), Generation(0));
                return Ok(reply.add(attr.ino, entry.next, entry.name, &ttl, &attr, generation));
            }
            let full = match self.home.lookup(id.0, entry.name) {
                Ok(found) => {
                    let full = add_found(reply, &entry, &found, ttl);
                    if full {
                        self.home.forget(found.id, 1);
                    }
                    full
                }
                // Removed meanwhile.
                Err(HomeError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    return Ok(false);
                }
                // The name exists: it must not end the listing, nor be missing from it.
                Err(error) => {
                    refuse("readdirplus", &error);
                    let attr = unknown_attr(entry.inode, entry.kind);
                    let full =
                        reply.add(attr.ino, entry.next, entry.name, &NEVER, &attr, Generation(0));
                    if !full {
                        self.home.expect_forget(entry.inode);
                    }
                    full
                }
            };
            // A listing alone could take all nodes, and holds the lock of the folder while it lasts: in need,
            // one name at a time.
            Ok(full || self.home.nodes().are_scarce())
        })
    }

    pub(super) fn open_of(&self, handle: FileHandle) -> Result<Arc<OpenFile>, HomeError> {
        self.files.get(handle)
    }
}

fn add_found(
    reply: &mut ReplyDirectoryPlus,
    entry: &Listed<'_>,
    found: &Attributes,
    ttl: Duration,
) -> bool {
    let (attr, generation) = (file_attr(found), Generation(found.generation));
    reply.add(attr.ino, entry.next, entry.name, &ttl, &attr, generation)
}
