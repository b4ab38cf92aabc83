//! What a volume stores its ciphertext on.
//!
//! Owns the [`Backing`] trait, the one joint at which storage differs and at which tests inject faults;
//! must not know ciphers or guests. Flow: a [`crate::volume::Volume`] turns a request into one call
//! here, [`FileBacking`] turns that into system calls.

mod alignment;
mod direct;
#[cfg(any(test, feature = "faults"))]
mod faulty;
mod file;

pub use alignment::Alignment;
#[cfg(test)]
pub(crate) use direct::tests as direct_tests;
pub use direct::{DirectBacking, direct_alignment};
#[cfg(any(test, feature = "faults"))]
pub use faulty::{Call, Fault, FaultyBacking, When};
pub use file::FileBacking;

use std::{io, sync::Arc};

/// Bytes at offsets, shared by many threads.
///
/// Offsets and lengths are in bytes. A failed write may have changed any part of its range; nothing
/// outside the range ever changes. What was written may be lost in a crash until a later
/// [`Backing::flush`] has returned.
pub trait Backing: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Makes it `len` bytes long; new bytes are zero.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Fills `buf` from `offset`; fails with `UnexpectedEof` when there is less.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// [`Backing::read_at`], but only if no device must be waited for: false when one must, or when the storage
    /// cannot tell; `buf` may have changed then.
    fn read_ready(&self, _offset: u64, _buf: &mut [u8]) -> io::Result<bool> {
        Ok(false)
    }

    /// Whether no call waits for a device, because everything is in memory.
    fn is_memory(&self) -> bool {
        false
    }

    /// What requests should be aligned to, when such ones take a better way than others: the caller then has memory
    /// of its own to put them in. Others are served as well.
    fn alignment(&self) -> Option<Alignment> {
        None
    }

    /// Whether a write takes as long as the device does, so that others should not have to wait behind it.
    fn waits_on_write(&self) -> bool {
        false
    }

    /// Writes all of `buf` at `offset`.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;

    /// Returns once everything written before the call survives a power loss.
    fn flush(&self) -> io::Result<()>;

    /// Gives the storage of a range back; it reads as zero afterwards, the length stays. Fails with
    /// `Unsupported`, and changes nothing, where the storage cannot do it.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes a range read as zero and keeps its storage, by writing zeros where there is no faster way.
    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()>;

    /// [`Backing::zero_range`] for a caller who would rather write the zeros himself: fails with
    /// `Unsupported`, and changes nothing, where the storage has no faster way than that.
    fn zero_range_fast(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether [`Backing::punch`] is expected to work, found out without a change of any byte.
    fn can_punch(&self) -> bool {
        false
    }

    /// Advice that a range will be read soon. Changes no byte, and may do nothing.
    fn prefetch(&self, _offset: u64, _len: u64) {}

    /// First offset at or after `offset` that may hold something else than zeros; `None` when the rest
    /// reads as zero. A storage that does not know answers `offset`.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;

    /// First offset at or after `offset` from which on at least one byte is known to read as zero; the
    /// length when there is none before the end.
    fn next_hole(&self, offset: u64) -> io::Result<u64>;
}

/// Lets several owners, a test and its volume for example, share one storage.
impl<B: Backing + ?Sized> Backing for Arc<B> {
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        (**self).set_len(len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }

    fn read_ready(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        (**self).read_ready(offset, buf)
    }

    fn is_memory(&self) -> bool {
        (**self).is_memory()
    }

    fn alignment(&self) -> Option<Alignment> {
        (**self).alignment()
    }

    fn waits_on_write(&self) -> bool {
        (**self).waits_on_write()
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, buf)
    }

    fn flush(&self) -> io::Result<()> {
        (**self).flush()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).punch(offset, len)
    }

    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).zero_range(offset, len)
    }

    fn zero_range_fast(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).zero_range_fast(offset, len)
    }

    fn can_punch(&self) -> bool {
        (**self).can_punch()
    }

    fn prefetch(&self, offset: u64, len: u64) {
        (**self).prefetch(offset, len);
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        (**self).next_data(offset)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        (**self).next_hole(offset)
    }
}
