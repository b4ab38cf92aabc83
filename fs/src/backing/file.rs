//! A [`Backing`] over a file or block device.
//!
//! Owns one descriptor; must not know its path (the opener names it in errors). Every call is a loop
//! over one system call until the whole range is done, taking up after signals and short transfers.

use super::Backing;
use rustix::fs::{Advice, FallocateFlags, FileType, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs::File, io};

/// Zeros written at a time where the storage has no call for it: large enough to be few calls, small
/// enough for the first-level cache.
const ZEROS: &[u8] = &[0; 32 * 1024];

/// Length, and alignment, of the hole that tells whether holes can be punched: a multiple of every block size.
const PROBE: u64 = 64 * 1024;

/// Types of file systems that keep files in memory (`statfs(2)`): tmpfs, ramfs, hugetlbfs.
const IN_MEMORY: [u64; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// A file or block device.
#[derive(Debug)]
pub struct FileBacking {
    fd: OwnedFd,
    /// Looked up when somebody asks: a file of a home is opened often and never asked.
    is_memory: OnceLock<bool>,
    can_tell: Capability,
    can_punch: Capability,
    can_zero: Capability,
}

impl FileBacking {
    /// Over an open file or block device. The access mode of the descriptor decides what works.
    pub fn new(fd: impl Into<OwnedFd>) -> Self {
        Self {
            fd: fd.into(),
            is_memory: OnceLock::new(),
            can_tell: Capability::default(),
            can_punch: Capability::default(),
            can_zero: Capability::default(),
        }
    }

    /// One read, at least one byte of `buf` unless that is empty.
    pub(super) fn read_some(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match rustix::io::retry_on_intr(|| rustix::io::pread(&self.fd, &mut *buf, offset))? {
            0 if !buf.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            done => Ok(done),
        }
    }

    /// One write, at least one byte of `buf` unless that is empty.
    pub(super) fn write_some(&self, offset: u64, buf: &[u8]) -> io::Result<usize> {
        match rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.fd, buf, offset))? {
            0 if !buf.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            done => Ok(done),
        }
    }

    fn write_zeros(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let chunk = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
            let (zeros, _) = ZEROS.split_at(chunk);
            self.write_at(offset, zeros)?;
            offset += chunk as u64;
            len -= chunk as u64;
        }
        Ok(())
    }

    fn allocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
        // A block device refuses a range of no bytes, and so does every file system.
        if len == 0 {
            return Ok(());
        }
        let flags = flags | FallocateFlags::KEEP_SIZE;
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.fd, flags, offset, len))
    }
}

impl From<File> for FileBacking {
    fn from(file: File) -> Self {
        Self::new(file)
    }
}

impl AsFd for FileBacking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Backing for FileBacking {
    fn len(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&self.fd)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            return u64::try_from(stat.st_size).map_err(io::Error::other);
        }
        // A block device has no st_size. Nothing here uses the file position, so it may move.
        Ok(rustix::fs::seek(&self.fd, SeekFrom::End(0))?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&self.fd, len))?)
    }

    fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let done = self.read_some(offset, buf)?;
            offset += done as u64;
            buf = &mut buf[done..];
        }
        Ok(())
    }

    /// `RWF_NOWAIT` of preadv2(2): EAGAIN, or a part, when the rest is not in the page cache. What is at hand in
    /// part is read again by whoever can wait, which is simpler than to keep count and no slower than the device.
    fn read_ready(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        if self.is_memory() {
            return self.read_at(offset, buf).map(|()| true);
        }
        let mut done = 0;
        let answer = self.can_tell.run(|| {
            let into = &mut [IoSliceMut::new(buf)];
            match rustix::io::preadv2(&self.fd, into, offset, ReadWriteFlags::NOWAIT) {
                Ok(read) => done = read,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            Ok(())
        });
        answer.unwrap_or(Ok(())).map(|()| done == buf.len())
    }

    fn is_memory(&self) -> bool {
        *self.is_memory.get_or_init(|| {
            let kind = rustix::fs::fstatfs(&self.fd).map(|fs| fs.f_type.cast_unsigned());
            kind.is_ok_and(|kind| IN_MEMORY.contains(&kind))
        })
    }

    fn write_at(&self, mut offset: u64, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let done = self.write_some(offset, buf)?;
            offset += done as u64;
            buf = &buf[done..];
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::fdatasync(&self.fd))?)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.can_punch
            .run(|| self.allocate(FallocateFlags::PUNCH_HOLE, offset, len))
            .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?
    }

    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.can_zero
            .run(|| self.allocate(FallocateFlags::ZERO_RANGE, offset, len))
            .unwrap_or_else(|| self.write_zeros(offset, len))
    }

    fn zero_range_fast(&self, offset: u64, len: u64) -> io::Result<()> {
        self.can_zero
            .run(|| self.allocate(FallocateFlags::ZERO_RANGE, offset, len))
            .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?
    }

    /// A hole is punched behind the end of the file, where there is nothing. A block device has no such place,
    /// and whether it zeroes fast or slowly it does not tell.
    fn can_punch(&self) -> bool {
        let regular = rustix::fs::fstat(&self.fd)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        let behind = self.len().map(|len| len.next_multiple_of(PROBE));
        regular && behind.is_ok_and(|behind| self.punch(behind, PROBE).is_ok())
    }

    fn prefetch(&self, offset: u64, len: u64) {
        if let Some(len) = NonZeroU64::new(len) {
            // Advice that cannot be taken harms nobody.
            let _ = rustix::fs::fadvise(&self.fd, offset, Some(len), Advice::WillNeed);
        }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) if lacks(error) => Ok(Some(offset)),
            Err(error) => Err(error.into()),
        }
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        match rustix::fs::seek(&self.fd, SeekFrom::Hole(offset)) {
            Ok(hole) => Ok(hole),
            Err(Errno::NXIO) => self.len(),
            Err(error) if lacks(error) => self.len(),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the error says that the storage does not have the call, as opposed to that it failed. EINVAL
/// is what block devices and older network file systems answer to a seek that they do not know.
fn lacks(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL)
}

/// Remembers that a call does not exist on this storage, so that it is not tried for every request.
#[derive(Debug, Default)]
struct Capability {
    missing: AtomicBool,
}

impl Capability {
    /// Runs the call; `None` when the storage does not have it.
    fn run(&self, call: impl FnOnce() -> Result<(), Errno>) -> Option<io::Result<()>> {
        if self.missing.load(Ordering::Relaxed) {
            return None;
        }
        match call() {
            Ok(()) => Some(Ok(())),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                self.missing.store(true, Ordering::Relaxed);
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
