//! Whole sectors between a caller's buffer and a storage that asks for aligned memory.
//!
//! Owns the aligned memory, one piece a thread, so that no request allocates. It holds ciphertext only. Flow: the
//! cipher is the copy: a write is encrypted out of the caller's buffer into it, a read comes into it and is decrypted
//! into the caller's buffer. What is not whole blocks of the storage goes the plain way.

use super::geometry::SECTOR;
use super::{Volume, VolumeError};
use crate::backing::Alignment;
use std::cell::Cell;
use std::io;

/// Most bytes that are ciphered and then moved as one: large enough to keep a drive busy, small enough for the
/// second-level cache and for many threads to have it. A multiple of every alignment.
const CHUNK: usize = 1024 * 1024;

/// Least memory that a thread takes.
const LEAST: usize = 64 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Gives this thread's memory for direct requests back; the next one takes it anew.
pub fn release_scratch() {
    drop(SCRATCH.take());
}

impl Volume {
    /// Reads whole sectors; `offset` and the length are multiples of 512.
    pub(super) fn read_whole(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        let Some(alignment) = self.backing.alignment() else {
            return self.read_plain(offset, buf);
        };
        let inner = alignment.inner(offset, buf.len());
        let (rest, tail) = buf.split_at_mut(inner.end);
        let (head, body) = rest.split_at_mut(inner.start);
        self.read_plain(offset, head)?;
        self.read_blocks(offset + inner.start as u64, body, alignment)?;
        self.read_plain(offset + inner.end as u64, tail)
    }

    /// Writes whole sectors; `offset` and the length are multiples of 512.
    pub(super) fn write_whole(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        let Some(alignment) = self.backing.alignment() else {
            return self.write_plain(offset, buf);
        };
        let inner = alignment.inner(offset, buf.len());
        let (rest, tail) = buf.split_at_mut(inner.end);
        let (head, body) = rest.split_at_mut(inner.start);
        self.write_plain(offset, head)?;
        self.write_blocks(offset + inner.start as u64, body, alignment)?;
        self.write_plain(offset + inner.end as u64, tail)
    }

    /// One call to the storage, ciphered where it lies.
    fn read_plain(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        if buf.is_empty() {
            return Ok(());
        }
        self.backing
            .read_at(offset, buf)
            .map_err(|error| VolumeError::io("read", offset, error))?;
        Ok(self.xts.decrypt(offset / SECTOR, buf)?)
    }

    fn write_plain(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        if buf.is_empty() {
            return Ok(());
        }
        self.xts.encrypt(offset / SECTOR, buf)?;
        self.backing.write_at(offset, buf).map_err(|error| VolumeError::io("write", offset, error))
    }

    fn read_blocks(
        &self,
        offset: u64,
        buf: &mut [u8],
        alignment: Alignment,
    ) -> Result<(), VolumeError> {
        for (part, at) in buf.chunks_mut(CHUNK).zip((offset..).step_by(CHUNK)) {
            let failed = |error| VolumeError::io("read", at, error);
            with_scratch(part.len(), alignment.memory(), |scratch| {
                self.backing.read_at(at, scratch).map_err(failed)?;
                Ok::<(), VolumeError>(self.xts.decrypt_into(at / SECTOR, scratch, part)?)
            })
            .map_err(failed)??;
        }
        Ok(())
    }

    fn write_blocks(
        &self,
        offset: u64,
        buf: &[u8],
        alignment: Alignment,
    ) -> Result<(), VolumeError> {
        for (part, at) in buf.chunks(CHUNK).zip((offset..).step_by(CHUNK)) {
            let failed = |error| VolumeError::io("write", at, error);
            with_scratch(part.len(), alignment.memory(), |scratch| {
                self.xts.encrypt_into(at / SECTOR, part, scratch)?;
                self.backing.write_at(at, scratch).map_err(failed)
            })
            .map_err(failed)??;
        }
        Ok(())
    }
}

/// Runs `work` with `len` bytes of this thread's memory, at a multiple of `alignment`, whatever they hold.
fn with_scratch<R>(
    len: usize,
    alignment: usize,
    work: impl FnOnce(&mut [u8]) -> R,
) -> io::Result<R> {
    // Out of its place while it is in use, so that a use inside of a use would get other memory.
    let mut memory = SCRATCH.take();
    let need = len.next_power_of_two().max(LEAST) + alignment;
    if memory.len() < need {
        memory = Vec::new();
        memory.try_reserve_exact(need)?;
        memory.resize(need, 0);
    }
    let start = memory.as_ptr().align_offset(alignment);
    let room = start.checked_add(len).and_then(|end| memory.get_mut(start..end));
    let done = work(room.ok_or(io::ErrorKind::OutOfMemory)?);
    SCRATCH.set(memory);
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_kept_and_given_back() {
        for alignment in [1, 4, 512, 4096, 65_536] {
            for len in [0, 1, 512, LEAST, LEAST + 512, CHUNK] {
                let place = with_scratch(len, alignment, |bytes| {
                    assert_eq!(bytes.len(), len);
                    assert_eq!(bytes.as_ptr().addr() % alignment, 0);
                    bytes.as_ptr().addr()
                });
                let again = with_scratch(len, alignment, |bytes| bytes.as_ptr().addr());
                assert_eq!(place.unwrap(), again.unwrap());
            }
        }
        let held = SCRATCH.take();
        assert!((CHUNK..=CHUNK + 65_536).contains(&held.len()));
        SCRATCH.set(held);
        release_scratch();
        assert_eq!(SCRATCH.take().capacity(), 0);
    }

    #[test]
    fn a_use_inside_of_a_use_gets_other_memory() {
        let outer = with_scratch(8, 8, |outer| {
            outer.fill(1);
            with_scratch(8, 8, |inner| inner.fill(2)).unwrap();
            outer.to_vec()
        });
        assert_eq!(outer.unwrap(), [1; 8]);
    }
}
