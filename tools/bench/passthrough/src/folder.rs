//! The folder below, and what requests do to it: one system call each where that can be.
//!
//! Owns the server's state; cache times and flags are those of a home of the same kind. `server` hands requests on.

use crate::attr::{attr, attr_of_nothing, kind};
use crate::nodes::{Handles, Nodes};
use cryptfs::door::Caching;
use fuser::{FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyEntry};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, RawDir, SeekFrom, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Bytes of names read at a time.
const BATCH: usize = 32 * 1024;

pub(crate) struct Server {
    pub(crate) nodes: Nodes,
    pub(crate) files: Handles,
    pub(crate) folders: Handles,
    pub(crate) caching: Caching,
    pub(crate) bypasses: bool,
}

impl Server {
    pub(crate) fn new(root: OwnedFd, caching: Caching) -> Server {
        Server {
            nodes: Nodes::new(root),
            files: Handles::default(),
            folders: Handles::default(),
            caching,
            bypasses: false,
        }
    }

    pub(crate) fn ttl(&self) -> Duration {
        match self.caching {
            Caching::Shared => Duration::from_secs(1),
            Caching::Exclusive => Duration::from_secs(3600),
        }
    }

    pub(crate) fn find(&self, folder: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let folder = self.nodes.get(folder.0)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*folder, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        self.nodes.visit(stat.st_ino, fd);
        Ok(attr(&stat))
    }

    pub(crate) fn entry(&self, found: Result<FileAttr, Errno>, reply: ReplyEntry) {
        match found {
            Ok(attr) => reply.entry(&self.ttl(), &attr, Generation(0)),
            Err(Errno::NOENT) if self.caching == Caching::Exclusive => {
                let absent = FileAttr { ino: INodeNo(0), ..attr_of_nothing() };
                reply.entry(&self.ttl(), &absent, Generation(0));
            }
            Err(error) => reply.error(number(error)),
        }
    }

    pub(crate) fn open_node(&self, id: INodeNo, flags: OFlags) -> Result<OwnedFd, Errno> {
        let node = self.nodes.get(id.0)?;
        let path = format!("/proc/self/fd/{}", node.as_raw_fd());
        rustix::fs::openat(rustix::fs::CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
    }

    pub(crate) fn open_flags(&self, flags: OFlags) -> FopenFlags {
        let cache = match self.caching {
            _ if self.bypasses && flags.contains(OFlags::DIRECT) => {
                FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
            }
            Caching::Shared => FopenFlags::empty(),
            Caching::Exclusive => FopenFlags::FOPEN_KEEP_CACHE,
        };
        match flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
            true => cache,
            false => cache | FopenFlags::FOPEN_NOFLUSH,
        }
    }

    pub(crate) fn create_file(
        &self,
        folder: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: OFlags,
    ) -> Result<(FileAttr, u64), Errno> {
        let at = self.nodes.get(folder.0)?;
        let kept = flags & (OFlags::EXCL | OFlags::TRUNC);
        let how = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | kept;
        let fd = rustix::fs::openat(&*at, name, how, Mode::from_raw_mode(mode & 0o7777))?;
        let attr = self.find(folder, name)?;
        Ok((attr, self.files.insert(fd)))
    }

    pub(crate) fn change(
        &self,
        id: INodeNo,
        mode: Option<u32>,
        owner: (Option<u32>, Option<u32>),
        size: Option<u64>,
        times: &Timestamps,
    ) -> Result<FileAttr, Errno> {
        let node = self.nodes.get(id.0)?;
        let path = format!("/proc/self/fd/{}", node.as_raw_fd());
        if let Some(mode) = mode {
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode & 0o7777))?;
        }
        if owner != (None, None) {
            let (uid, gid) = (owner.0.map(Uid::from_raw), owner.1.map(Gid::from_raw));
            rustix::fs::chownat(&*node, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(size) = size {
            rustix::fs::ftruncate(self.open_node(id, OFlags::WRONLY)?, size)?;
        }
        if times.last_access.tv_nsec != UTIME_OMIT || times.last_modification.tv_nsec != UTIME_OMIT
        {
            rustix::fs::utimensat(&*node, "", times, AtFlags::EMPTY_PATH)?;
        }
        Ok(attr(&rustix::fs::fstat(&*node)?))
    }

    /// Hands names from `from` on to `take` until it has enough.
    pub(crate) fn list(
        &self,
        handle: FileHandle,
        from: u64,
        mut take: impl FnMut(&OsStr, u64, FileType, u64) -> bool,
    ) -> Result<(), Errno> {
        let folder = self.folders.get(handle.0)?;
        rustix::fs::seek(&*folder, SeekFrom::Start(from))?;
        let mut space = [MaybeUninit::<u8>::uninit(); BATCH];
        let mut entries = RawDir::new(&*folder, &mut space);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if take(name, entry.ino(), kind(entry.file_type()), entry.next_entry_cookie()) {
                break;
            }
        }
        Ok(())
    }
}

pub(crate) fn number(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}
