//! Page-aligned memory of a connection, that can be given back.
//!
//! Owns one anonymous mapping. A `Vec` would not do: the heap keeps what it got (and the process locks it),
//! while an idle connection must cost next to nothing. It must not know what is in it. Flow: [`Buffer::grow`]
//! when a payload needs more, [`Buffer::release`] when the connection has been idle.

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::io;
use std::ptr::NonNull;

/// Anonymous memory, zeroed by the kernel at first touch.
#[derive(Debug)]
pub struct Buffer {
    /// Start of the mapping; dangling when `len` is zero.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, and is reached only through `&self` and `&mut self`.
unsafe impl Send for Buffer {}

impl Buffer {
    /// No memory yet.
    pub const fn new() -> Self {
        Self { start: NonNull::dangling(), len: 0 }
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no memory.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes the buffer at least `len` bytes long, in steps of `step`; `keep` bytes from `from` move to `to`.
    ///
    /// # Errors
    /// What `mmap` says, for example when the limit on locked memory is reached; the buffer is unchanged then.
    pub fn grow(
        &mut self,
        len: usize,
        step: usize,
        keep: std::ops::Range<usize>,
        to: usize,
    ) -> io::Result<()> {
        let mut bigger = Self::map(len.next_multiple_of(step))?;
        let kept = keep.len();
        if let (Some(from), Some(into)) = (
            self.bytes().get(keep),
            bigger.bytes_mut().get_mut(to..).and_then(|room| room.get_mut(..kept)),
        ) {
            into.copy_from_slice(from);
        }
        *self = bigger;
        Ok(())
    }

    /// Gives the memory back.
    pub fn release(&mut self) {
        *self = Self::new();
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start` points to `len` mapped, initialised bytes (or dangles with `len` zero), shared with
        // nobody while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// All bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    fn map(len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: the mapping was made by `map` with this length, and no borrow of it is left.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "unmapping an own mapping cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_keeps_and_gives_back() {
        let mut buffer = Buffer::new();
        assert!(buffer.is_empty() && buffer.bytes().is_empty());
        buffer.grow(10, 4096, 0..0, 0).unwrap();
        assert_eq!(buffer.len(), 4096);
        buffer.bytes_mut()[5..8].copy_from_slice(b"abc");
        buffer.grow(5000, 4096, 5..8, 4090).unwrap();
        assert_eq!(buffer.len(), 8192);
        assert_eq!(&buffer.bytes()[4090..4094], b"abc\0");
        buffer.release();
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_mapping_that_is_refused_leaves_the_buffer_alone() {
        let mut buffer = Buffer::new();
        buffer.grow(1, 4096, 0..0, 0).unwrap();
        assert!(buffer.grow(usize::MAX / 2, 4096, 0..0, 0).is_err());
        assert_eq!(buffer.len(), 4096);
    }
}
