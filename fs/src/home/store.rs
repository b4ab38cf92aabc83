//! What a home file asks of its storage beyond [`Backing`].
//!
//! Owns the [`Store`] trait and its implementation over a descriptor; must not know the file format. The
//! second implementation is the model check's, which decides what a crash leaves.

use crate::backing::{Backing, FileBacking};
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;
use std::io;
use std::time::Duration;

/// The storage of one home file.
pub(crate) trait Store: Backing {
    /// Makes data, length and all metadata durable (`fsync`; [`Backing::flush`] is `fdatasync`).
    fn sync_all(&self) -> io::Result<()>;

    /// Reserves storage for a range without changing the length or any byte.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Hands earlier writes to a network server and fetches its verdict, as closing a descriptor does; a
    /// local file system has nothing to do.
    fn settle(&self) -> io::Result<()>;

    /// Keeps out all others who would lock the stored file, on other hosts too, until [`Store::unlock`]. A storage
    /// that has no locks keeps nobody out.
    ///
    /// # Errors
    /// `TimedOut` when another one keeps it for too long.
    fn lock(&self) -> io::Result<()>;

    /// Lets others in again.
    fn unlock(&self) -> io::Result<()>;
}

/// Pauses between two tries for a lock, each twice as long as the one before: 8 seconds in all. It is held for two
/// calls of the storage.
const LOCK_PAUSES: u32 = 13;

impl Store for FileBacking {
    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::fsync(self))?)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let reserve = || rustix::fs::fallocate(self, FallocateFlags::KEEP_SIZE, offset, len);
        match rustix::io::retry_on_intr(reserve) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn settle(&self) -> io::Result<()> {
        use std::os::fd::IntoRawFd;
        let copy = match rustix::io::fcntl_dupfd_cloexec(self, 0) {
            // No descriptor is left: a sync fetches the same verdict.
            Err(Errno::MFILE) => return self.flush(),
            copy => copy?,
        };
        // SAFETY: the descriptor was just made, is owned by nobody else after `into_raw_fd`, and is not used
        // again; closing it by hand is the only way to see the error that the close reports.
        Ok(unsafe { rustix::io::try_close(copy.into_raw_fd()) }?)
    }

    fn lock(&self) -> io::Result<()> {
        for pause in 0..LOCK_PAUSES {
            match rustix::fs::flock(self, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => return Ok(()),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    std::thread::sleep(Duration::from_millis(1 << pause));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(self, FlockOperation::Unlock)?)
    }
}

/// For tests of faults; there is nothing to reserve, nothing late and nobody else in memory.
#[cfg(test)]
impl Store for std::sync::Arc<crate::backing::FaultyBacking> {
    fn sync_all(&self) -> io::Result<()> {
        self.flush()
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}
