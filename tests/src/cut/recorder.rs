//! A disk in memory, served as one file, that notes every write and every flush.
//!
//! Owns the file system of FUSE with that file as its root; must not know who writes. One thread answers, so the log
//! has an order: a write is in it before it is answered, a flush after everything that was answered before it.

use super::image::Image;
use super::log::Event;
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyOpen, ReplyWrite, Request, Session,
    SessionACL, WriteFlags,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// How long the kernel may believe what it was told of the file: nothing changes but its content.
const TTL: Duration = Duration::from_secs(3600);

/// How long the end waits for those who still use it.
const LAST_USERS: Duration = Duration::from_secs(5);

/// A disk that records. Dropping it ends its file system.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    disk: Shared,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Disk {
    image: Image,
    log: Vec<Event>,
}

#[derive(Debug, Clone)]
struct Shared(Arc<Mutex<Disk>>);

impl Shared {
    fn get(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    /// Serves `image` as the file `path`, which is made.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn start(path: &Path, image: Image) -> Self {
        File::create_new(path).expect("a file to mount on");
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let options =
            format!("fd={},rootmode=100600,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = CString::new(options).expect("no NUL");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("recorder", path, "fuse.recorder", flags, options.as_c_str()).expect("a FUSE mount");
        let disk = Shared(Arc::new(Mutex::new(Disk { image, log: Vec::new() })));
        let mut config = Config::default();
        config.n_threads = Some(1);
        config.acl = SessionACL::All;
        let served = disk.clone();
        let session = Session::from_fd(served, OwnedFd::from(device), SessionACL::All, config);
        let session = session.expect("the kernel answers as FUSE");
        let server = std::thread::spawn(move || {
            // An error is the end of the mount.
            let _ended = session.run();
        });
        Self { path: path.to_owned(), disk, server }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds now.
    #[must_use]
    pub fn image(&self) -> Image {
        self.disk.get().image.clone()
    }

    /// Forgets what was recorded, and says what the disk holds.
    #[must_use]
    pub fn begin(&self) -> Image {
        let mut disk = self.disk.get();
        disk.log.clear();
        disk.image.clone()
    }

    /// What was recorded since [`Recorder::begin`].
    #[must_use]
    pub fn log(&self) -> Vec<Event> {
        self.disk.get().log.clone()
    }

    /// Does one step, with marks around it.
    pub fn step<R>(&self, number: usize, work: impl FnOnce() -> R) -> R {
        self.disk.get().log.push(Event::Begun(number));
        let result = work();
        self.disk.get().log.push(Event::Done(number));
        result
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        // What still uses it, after a failed test or for a moment in another mount namespace, keeps the server.
        let end = Instant::now() + LAST_USERS;
        while !self.server.is_finished() && Instant::now() < end && !std::thread::panicking() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = fs::remove_file(&self.path);
    }
}

impl Filesystem for Shared {
    fn getattr(&self, _: &Request, _: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let size = self.get().image.size();
        let attributes = FileAttr {
            ino: INodeNo::ROOT,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: FileType::RegularFile,
            perm: 0o600,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        };
        reply.attr(&TTL, &attributes);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let disk = self.get();
        let left = usize::try_from(disk.image.size().saturating_sub(at)).unwrap_or(usize::MAX);
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(left);
        reply.data(&disk.image.read(at, len));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut disk = self.get();
        let (Ok(len), Some(end)) = (u32::try_from(data.len()), at.checked_add(data.len() as u64))
        else {
            return reply.error(Errno::EINVAL);
        };
        if end > disk.image.size() {
            return reply.error(Errno::ENOSPC);
        }
        disk.image.write(at, data);
        disk.log.push(Event::Write { at, bytes: data.to_vec() });
        drop(disk);
        reply.written(len);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.get().log.push(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }
}
