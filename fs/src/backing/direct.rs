//! A [`Backing`] over a file that the page cache is kept out of (`O_DIRECT`).
//!
//! Owns two descriptors of one file, one opened with `O_DIRECT` and one without, and what the file asks of direct
//! requests. It must not know their path, nor change their flags: `O_DIRECT` belongs to the open file description
//! (fcntl(2), `F_SETFL`), which others may hold too. Flow: a request whose offset, length and memory are aligned goes
//! to the device; any other one goes through the page cache.
//!
//! # Why both ways see the same bytes
//!
//! open(2), "O_DIRECT", leaves it to the file system whether direct and cached requests to one file are coherent, and
//! asks programs to avoid the mix, which is slow at best. Local file systems of Linux are: a direct request first writes
//! back what is dirty in its range, and a direct write drops the pages of its range before and after it. A cached write
//! has the lock of the inode alone, which direct writes share, so no page turns dirty between these steps, and none
//! that holds old bytes of a neighbour is written back later. The cached way is for what is not aligned; few requests
//! of a guest are.
//!
//! fsync(2) speaks of the file, not of the descriptor: one fdatasync writes back the pages that cached writes left
//! dirty and has the drive make durable what went to it directly. It is always made on the cached descriptor, to which
//! Linux tells a failed write-back (once to each open file description); a failed direct write tells its own caller.

use super::{Alignment, Backing, FileBacking};
use rustix::fs::{AtFlags, OFlags, StatxFlags};
use rustix::io::retry_on_intr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The alignment where the kernel cannot tell it (before Linux 6.1, or a file system without `STATX_DIOALIGN`): the
/// largest logical block of drives then.
const USUAL: u32 = 4096;

/// Largest alignment that is served: the largest page of Linux. More would be a drive that is none.
const LARGEST: usize = 64 * 1024;

/// A file, past the page cache.
#[derive(Debug)]
pub struct DirectBacking {
    cached: FileBacking,
    direct: FileBacking,
    alignment: Alignment,
}

impl DirectBacking {
    /// Over two descriptors of one file with the same access, `direct` opened with `O_DIRECT`.
    ///
    /// # Errors
    /// `InvalidInput` when they are not two such descriptors, else as [`direct_alignment`].
    pub fn new(cached: impl Into<OwnedFd>, direct: impl Into<OwnedFd>) -> io::Result<Self> {
        let (cached, direct) = (cached.into(), direct.into());
        let (one, other) = (rustix::fs::fstat(&cached)?, rustix::fs::fstat(&direct)?);
        if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino) {
            return Err(invalid("the two descriptors are of different files"));
        }
        let access = |fd| rustix::fs::fcntl_getfl(fd).map(|flags| flags & OFlags::RWMODE);
        if access(&cached)? != access(&direct)? {
            return Err(invalid("the two descriptors differ in what they allow"));
        }
        let alignment = direct_alignment(direct.as_fd())?;
        Ok(Self::with_alignment(cached, direct, alignment))
    }

    /// Without a look at what the file asks for.
    fn with_alignment(cached: OwnedFd, direct: OwnedFd, alignment: Alignment) -> Self {
        Self { cached: FileBacking::new(cached), direct: FileBacking::new(direct), alignment }
    }

    /// The way of a request.
    fn way(&self, offset: u64, memory: *const u8, len: usize) -> &FileBacking {
        let aligned = self.alignment.fits(offset, len)
            && memory.addr().is_multiple_of(self.alignment.memory());
        if aligned { &self.direct } else { &self.cached }
    }
}

/// What requests to a file that was opened with `O_DIRECT` must be aligned to. Reads the first bytes to see that it
/// works, so the file must be open for reading.
///
/// # Errors
/// `InvalidInput` without `O_DIRECT`; `Unsupported` when the file system has no direct I/O for this file, or asks for
/// more than 64 KiB; what the read says.
pub fn direct_alignment(direct: BorrowedFd<'_>) -> io::Result<Alignment> {
    if !rustix::fs::fcntl_getfl(direct)?.contains(OFlags::DIRECT) {
        return Err(invalid("the descriptor was not opened with O_DIRECT"));
    }
    let alignment = told(direct)?;
    let (block, memory) = (alignment.block(), alignment.memory());
    let mut buf = vec![0; block + memory];
    let start = buf.as_ptr().align_offset(memory);
    let room = buf.get_mut(start..start + block).unwrap_or_default();
    match retry_on_intr(|| rustix::io::pread(direct, &mut *room, 0)) {
        Ok(_) => Ok(alignment),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Err(unsupported()),
        Err(error) => Err(error.into()),
    }
}

/// What statx(2) tells (`STATX_DIOALIGN`); two zeros are its word for "no direct I/O".
fn told(direct: BorrowedFd<'_>) -> io::Result<Alignment> {
    let wanted = StatxFlags::DIOALIGN;
    let (block, memory) = match rustix::fs::statx(direct, c"", AtFlags::EMPTY_PATH, wanted) {
        Ok(stat) if StatxFlags::from_bits_retain(stat.stx_mask).contains(wanted) => {
            (stat.stx_dio_offset_align, stat.stx_dio_mem_align)
        }
        Ok(_) | Err(rustix::io::Errno::NOSYS) => (USUAL, USUAL),
        Err(error) => return Err(error.into()),
    };
    let sizes = usize::try_from(block).ok().zip(usize::try_from(memory).ok());
    let alignment = sizes.and_then(|(block, memory)| Alignment::new(block, memory));
    alignment
        .filter(|found| found.block() <= LARGEST && found.memory() <= LARGEST)
        .ok_or_else(unsupported)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the file system has no direct I/O for this file")
}

impl Backing for DirectBacking {
    fn len(&self) -> io::Result<u64> {
        self.cached.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.cached.set_len(len)
    }

    fn alignment(&self) -> Option<Alignment> {
        Some(self.alignment)
    }

    fn waits_on_write(&self) -> bool {
        true
    }

    /// A direct read that ends early stops at a block, and may go on through the cache at the end of the file.
    fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let done = self.way(offset, buf.as_ptr(), buf.len()).read_some(offset, buf)?;
            offset += done as u64;
            buf = &mut buf[done..];
        }
        Ok(())
    }

    fn write_at(&self, mut offset: u64, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let done = self.way(offset, buf.as_ptr(), buf.len()).write_some(offset, buf)?;
            offset += done as u64;
            buf = &buf[done..];
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.cached.flush()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.cached.punch(offset, len)
    }

    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.cached.zero_range(offset, len)
    }

    fn zero_range_fast(&self, offset: u64, len: u64) -> io::Result<()> {
        self.cached.zero_range_fast(offset, len)
    }

    fn can_punch(&self) -> bool {
        self.cached.can_punch()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.cached.next_data(offset)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.cached.next_hole(offset)
    }
}

#[cfg(test)]
#[path = "direct_tests.rs"]
pub(crate) mod tests;
