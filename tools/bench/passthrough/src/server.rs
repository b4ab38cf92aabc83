//! The requests of the kernel, one method each.
//!
//! Owns the answers; what is done is in `folder`. What is agreed with the kernel comes from the home itself, so that
//! both servers agree on the same. The order of the methods is that of the trait.

use crate::attr::{attr, attr_of_nothing, new};
use crate::folder::{Server, number};
use cryptfs::door::{Caching, negotiate};
use fuser::{
    BsdFileFlags, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, Timestamps};
use rustix::io::Errno;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Largest read.
const MOST: usize = 1024 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        self.bypasses = negotiate(config, self.caching);
        Ok(())
    }

    fn lookup(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.find(folder, name), reply);
    }

    fn forget(&self, _: &Request, id: INodeNo, count: u64) {
        self.nodes.forget(id.0, count);
    }

    fn getattr(&self, _: &Request, id: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.nodes.get(id.0).and_then(|node| rustix::fs::fstat(&*node)) {
            Ok(stat) => reply.attr(&self.ttl(), &attr(&stat)),
            Err(error) => reply.error(number(error)),
        }
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
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = Timestamps { last_access: new(atime), last_modification: new(mtime) };
        match self.change(id, mode, (uid, gid), size, &times) {
            Ok(attr) => reply.attr(&self.ttl(), &attr),
            Err(error) => reply.error(number(error)),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        folder: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let mode = Mode::from_raw_mode(mode & 0o7777 & !umask);
        let made = self.nodes.get(folder.0).and_then(|at| rustix::fs::mkdirat(&*at, name, mode));
        self.entry(made.and_then(|()| self.find(folder, name)), reply);
    }

    fn unlink(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let at = self.nodes.get(folder.0);
        done(at.and_then(|at| rustix::fs::unlinkat(&*at, name, AtFlags::empty())), reply);
    }

    fn rmdir(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let at = self.nodes.get(folder.0);
        done(at.and_then(|at| rustix::fs::unlinkat(&*at, name, AtFlags::REMOVEDIR)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        folder: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let renamed = self.nodes.get(folder.0).and_then(|from| {
            rustix::fs::renameat_with(&*from, name, &*self.nodes.get(to.0)?, new_name, flags)
        });
        done(renamed, reply);
    }

    fn open(&self, _: &Request, id: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let asked = OFlags::from_bits_retain(flags.0.cast_unsigned());
        // For reading, too: what the kernel collects of a part of a page, it reads first.
        match self.open_node(id, OFlags::RDWR | asked & OFlags::TRUNC) {
            Ok(fd) => reply.opened(FileHandle(self.files.insert(fd)), self.open_flags(asked)),
            Err(error) => reply.error(number(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = match self.files.get(handle.0) {
            Ok(file) => file,
            Err(error) => return reply.error(number(error)),
        };
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(MOST, 0);
            let wanted = usize::try_from(size).unwrap_or(MOST).min(MOST);
            match rustix::io::pread(&*file, &mut buffer[..wanted], at) {
                Ok(len) => reply.data(&buffer[..len]),
                Err(error) => reply.error(number(error)),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let file = self.files.get(handle.0);
        match file.and_then(|file| rustix::io::pwrite(&*file, data, at)) {
            Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(error) => reply.error(number(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Nothing to tell; the kernel asks no more.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.remove(handle.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let sync = |file: Arc<OwnedFd>| match data_only {
            true => rustix::fs::fdatasync(&*file),
            false => rustix::fs::fsync(&*file),
        };
        done(self.files.get(handle.0).and_then(sync), reply);
    }

    fn opendir(&self, _: &Request, id: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = match self.caching {
            Caching::Shared => FopenFlags::empty(),
            Caching::Exclusive => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        };
        let opened = self.nodes.get(id.0).and_then(|node| {
            let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(&*node, ".", how, Mode::empty())
        });
        match opened {
            Ok(fd) => reply.opened(FileHandle(self.folders.insert(fd)), flags),
            Err(error) => reply.error(number(error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        from: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.list(handle, from, |name, inode, kind, next| {
            reply.add(INodeNo(inode), next, kind, name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(number(error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        id: INodeNo,
        handle: FileHandle,
        from: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.list(handle, from, |name, inode, kind, next| {
            if matches!(name.as_bytes(), b"." | b"..") {
                let dot = FileAttr { ino: INodeNo(inode), kind, ..attr_of_nothing() };
                return reply.add(dot.ino, next, name, &Duration::ZERO, &dot, Generation(0));
            }
            let Ok(found) = self.find(id, name) else { return false };
            let full = reply.add(found.ino, next, name, &self.ttl(), &found, Generation(0));
            if full {
                self.nodes.forget(found.ino.0, 1);
            }
            full
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(number(error)),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.folders.remove(handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, id: INodeNo, reply: ReplyStatfs) {
        match self.nodes.get(id.0).and_then(|node| rustix::fs::fstatvfs(&*node)) {
            Ok(space) => reply.statfs(
                space.f_blocks,
                space.f_bfree,
                space.f_bavail,
                space.f_files,
                space.f_ffree,
                4096,
                255,
                4096,
            ),
            Err(error) => reply.error(number(error)),
        }
    }

    fn getxattr(&self, _: &Request, id: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let mut value = vec![0; usize::try_from(size).unwrap_or(0)];
        let got = self.nodes.get(id.0).and_then(|node| {
            let path = format!("/proc/self/fd/{}", node.as_raw_fd());
            rustix::fs::getxattr(path, name, &mut value[..])
        });
        match got {
            Ok(len) if size == 0 => reply.size(u32::try_from(len).unwrap_or(u32::MAX)),
            Ok(len) => reply.data(&value[..len]),
            Err(error) => reply.error(number(error)),
        }
    }

    fn create(
        &self,
        _: &Request,
        folder: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        match self.create_file(folder, name, mode & !umask, flags) {
            Ok((attr, handle)) => {
                let flags = self.open_flags(flags);
                reply.created(&self.ttl(), &attr, Generation(0), FileHandle(handle), flags);
            }
            Err(error) => reply.error(number(error)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        at: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let file = self.files.get(handle.0);
        done(file.and_then(|file| rustix::fs::fallocate(&*file, mode, at, len)), reply);
    }
}

fn done(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(number(error)),
    }
}
