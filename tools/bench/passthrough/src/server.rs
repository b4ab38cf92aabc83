//! Requests passed on to the folder below, one system call each where that can be.
//!
//! Owns the server; the order of the methods is that of the trait. Cache times and flags are those of a home of the
//! same kind, what is agreed with the kernel comes from the home itself.

use crate::nodes::{Handles, Nodes};
use cryptfs::door::{Caching, negotiate};
use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{
    AtFlags, FallocateFlags, Gid, Mode, OFlags, RawDir, SeekFrom, Stat, Timespec, Timestamps,
    UTIME_NOW, UTIME_OMIT, Uid,
};
use rustix::io::Errno;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of names read at a time.
const BATCH: usize = 32 * 1024;

/// Largest read.
const MOST: usize = 1024 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(crate) struct Server {
    nodes: Nodes,
    files: Handles,
    folders: Handles,
    caching: Caching,
    bypasses: bool,
}

impl Server {
    pub(crate) fn new(root: OwnedFd, caching: Caching) -> Result<Server, Errno> {
        Ok(Server {
            nodes: Nodes::new(root),
            files: Handles::default(),
            folders: Handles::default(),
            caching,
            bypasses: false,
        })
    }

    fn ttl(&self) -> Duration {
        match self.caching {
            Caching::Shared => Duration::from_secs(1),
            Caching::Exclusive => Duration::from_secs(3600),
        }
    }

    fn find(&self, folder: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let folder = self.nodes.get(folder.0)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*folder, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        self.nodes.visit(stat.st_ino, fd);
        Ok(attr(&stat))
    }

    fn entry(&self, found: Result<FileAttr, Errno>, reply: ReplyEntry) {
        match found {
            Ok(attr) => reply.entry(&self.ttl(), &attr, Generation(0)),
            Err(Errno::NOENT) if self.caching == Caching::Exclusive => {
                let absent = FileAttr { ino: INodeNo(0), ..attr_of_nothing() };
                reply.entry(&self.ttl(), &absent, Generation(0));
            }
            Err(error) => reply.error(number(error)),
        }
    }

    fn open_node(&self, id: INodeNo, flags: OFlags) -> Result<OwnedFd, Errno> {
        let node = self.nodes.get(id.0)?;
        let path = format!("/proc/self/fd/{}", node.as_raw_fd());
        rustix::fs::openat(rustix::fs::CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
    }

    fn open_flags(&self, flags: OFlags) -> FopenFlags {
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

    fn create_file(
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

    fn change(
        &self,
        id: INodeNo,
        mode: Option<u32>,
        owner: (Option<u32>, Option<u32>),
        size: Option<u64>,
        times: Timestamps,
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
            rustix::fs::utimensat(&*node, "", &times, AtFlags::EMPTY_PATH)?;
        }
        Ok(attr(&rustix::fs::fstat(&*node)?))
    }

    /// Hands names from `from` on to `take` until it has enough.
    fn list(
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
        match self.change(id, mode, (uid, gid), size, times) {
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
        let made =
            self.nodes.get(folder.0).and_then(|at| rustix::fs::mkdirat(&*at, name, mode));
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

    fn flush(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
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

fn number(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

fn kind(kind: rustix::fs::FileType) -> FileType {
    match kind {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn attr(stat: &Stat) -> FileAttr {
    let changed = time(stat.st_ctime, stat.st_ctime_nsec);
    FileAttr {
        ino: INodeNo(stat.st_ino),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: changed,
        crtime: changed,
        kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        ..attr_of_nothing()
    }
}

fn attr_of_nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn time(seconds: i64, nanoseconds: impl TryInto<u32>) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    UNIX_EPOCH + seconds + Duration::from_nanos(nanoseconds.try_into().unwrap_or(0).into())
}

fn new(time: Option<TimeOrNow>) -> Timespec {
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    match time {
        None => special(UTIME_OMIT),
        Some(TimeOrNow::Now) => special(UTIME_NOW),
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let tv_sec = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            Timespec { tv_sec, tv_nsec: since.subsec_nanos().into() }
        }
    }
}
