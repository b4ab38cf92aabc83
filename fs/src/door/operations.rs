//! The requests of the kernel, one method each: unpack, call, answer.
//!
//! Owns nothing but the list; what a request means is in `requests` and in the home. The file is long because
//! the trait must be implemented in one block, and stays flat: no method decides anything.

use super::attr::file_attr;
use super::errno::{
    ALL_IS_DATA, ALWAYS_READY, NO_ACCESS_CHECK, NO_EXTENDED_ATTRIBUTES, NO_IOCTL, refuse,
};
use super::handles::Handles;
use super::init::negotiate;
use super::replies::{attributes, empty, entry, opened, written};
use super::requests::{Wanted, caller};
use super::settings::Caching;
use crate::home::{Folder, Home, OpenFile};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

/// A home and what the kernel has open of it.
pub(super) struct Door {
    pub(super) home: Home,
    pub(super) files: Handles<OpenFile>,
    pub(super) folders: Handles<Folder>,
    pub(super) caching: Caching,
}

impl Door {
    pub(super) fn new(home: Home, caching: Caching) -> Door {
        Door { home, files: Handles::new(), folders: Handles::new(), caching }
    }
}

impl Filesystem for Door {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config, self.caching);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.caching.ttl(), "lookup", self.home.lookup(parent.0, name), reply);
    }

    fn forget(&self, _: &Request, id: INodeNo, count: u64) {
        self.home.forget(id.0, count);
    }

    fn getattr(&self, _: &Request, id: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attributes(self.caching.ttl(), "getattr", self.home.attributes(id.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        id: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wanted = Wanted { mode, uid, gid, size, atime, mtime, handle };
        attributes(self.caching.ttl(), "setattr", self.set_attributes(id, &wanted), reply);
    }

    fn readlink(&self, _: &Request, id: INodeNo, reply: ReplyData) {
        match self.home.read_link(id.0) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(refuse("readlink", &error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let made = self.home.make_node(parent.0, name, mode, device, caller(request));
        entry(self.caching.ttl(), "mknod", made, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        entry(
            self.caching.ttl(),
            "mkdir",
            self.home.make_folder(parent.0, name, mode, caller(request)),
            reply,
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty("unlink", self.home.remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty("rmdir", self.home.remove_folder(parent.0, name), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = self.home.make_link(parent.0, name, target.as_os_str(), caller(request));
        entry(self.caching.ttl(), "symlink", made, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((parent.0, name), (new_parent.0, new_name));
        empty("rename", self.home.rename(from, to, flags.bits()), reply);
    }

    fn link(&self, _: &Request, id: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.caching.ttl(), "link", self.home.link(id.0, parent.0, name), reply);
    }

    fn open(&self, _: &Request, id: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        opened("open", self.open_file(id, flags.0), self.fopen_flags(), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.create_file(parent, name, mode, flags, caller(request)) {
            Ok((made, handle)) => {
                let (ttl, generation) = (self.caching.ttl(), Generation(made.generation));
                let flags = self.fopen_flags();
                reply.created(&ttl, &file_attr(&made), generation, handle, flags);
            }
            Err(error) => reply.error(refuse("create", &error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _id: INodeNo,
        handle: FileHandle,
        at: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut reply = Some(reply);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let done = self.open_of(handle).and_then(|open| {
            open.file.read(at, size, |plain| {
                // Straight from the thread's buffer to the kernel.
                if let Some(reply) = reply.take() {
                    reply.data(plain);
                }
            })
        });
        if let (Err(error), Some(reply)) = (done, reply) {
            reply.error(refuse("read", &error));
        }
    }

    fn write(
        &self,
        _: &Request,
        _id: INodeNo,
        handle: FileHandle,
        at: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // Writes of the kernel's cache are nobody's: what was asked to be durable gets a sync of its own.
        let flags = if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) { 0 } else { flags.0 };
        written("write", self.write_file(handle, at, data, flags), reply);
    }

    fn flush(
        &self,
        _: &Request,
        _id: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        empty("flush", self.open_of(handle).and_then(|open| open.file.settle()), reply);
    }

    fn release(
        &self,
        _: &Request,
        _id: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        drop(self.files.remove(handle));
        reply.ok();
    }

    fn fsync(
        &self,
        _: &Request,
        _id: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        empty("fsync", self.open_of(handle).and_then(|open| open.file.sync(data_only)), reply);
    }

    fn opendir(&self, _: &Request, id: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        opened("opendir", self.open_folder(id), FopenFlags::empty(), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.list(id, handle, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(refuse("readdir", &error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.list_with_attributes(id, handle, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(refuse("readdirplus", &error)),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _id: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        drop(self.folders.remove(handle));
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _: &Request,
        _id: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        empty("fsyncdir", self.folders.get(handle).and_then(|folder| folder.sync()), reply);
    }

    fn statfs(&self, _: &Request, id: INodeNo, reply: ReplyStatfs) {
        match self.home.space(id.0) {
            Ok(space) => {
                let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
                reply.statfs(
                    space.f_blocks,
                    space.f_bfree,
                    space.f_bavail,
                    space.f_files,
                    space.f_ffree,
                    small(space.f_bsize),
                    small(space.f_namemax),
                    small(space.f_frsize),
                );
            }
            Err(error) => reply.error(refuse("statfs", &error)),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        _id: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(NO_EXTENDED_ATTRIBUTES);
    }

    fn getxattr(&self, _: &Request, _id: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(NO_EXTENDED_ATTRIBUTES);
    }

    fn listxattr(&self, _: &Request, _id: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(NO_EXTENDED_ATTRIBUTES);
    }

    fn removexattr(&self, _: &Request, _id: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(NO_EXTENDED_ATTRIBUTES);
    }

    fn access(&self, _: &Request, _id: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(NO_ACCESS_CHECK);
    }

    fn ioctl(
        &self,
        _: &Request,
        _id: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _room: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(NO_IOCTL);
    }

    fn poll(
        &self,
        _: &Request,
        _id: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(ALWAYS_READY);
    }

    fn fallocate(
        &self,
        _: &Request,
        _id: INodeNo,
        handle: FileHandle,
        at: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        empty("fallocate", self.allocate(handle, at, len, mode), reply);
    }

    fn lseek(
        &self,
        _: &Request,
        _id: INodeNo,
        handle: FileHandle,
        at: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        // The kernel does not write what it collected before it asks, and would take fresh data for a hole.
        if self.caching == Caching::Exclusive {
            return reply.error(ALL_IS_DATA);
        }
        match self.seek(handle, at, whence) {
            Ok(found) => reply.offset(found),
            Err(error) => reply.error(refuse("lseek", &error)),
        }
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _from: INodeNo,
        from_handle: FileHandle,
        from_at: u64,
        _to: INodeNo,
        to_handle: FileHandle,
        to_at: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let copied = self.copy_range((from_handle, from_at), (to_handle, to_at), len);
        written("copy_file_range", copied, reply);
    }
}
