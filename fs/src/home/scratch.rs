//! Page-aligned working memory, one buffer a thread, so that no request allocates.
//!
//! Owns the buffers; must not know what they hold. They carry ciphertext and, between decryption and reply,
//! plaintext of the guest, never a key.

use std::cell::RefCell;

/// Largest request of the door, and the piece in which longer work is cut.
pub(crate) const CHUNK: usize = 1024 * 1024;

/// Storage and cipher take turns on pieces of this length, which stay in the processor's second-level cache between
/// them: reads and writes of 1 MiB were a tenth faster than in one piece. A whole number of units.
pub(crate) const PIECE: usize = 128 * 1024;

/// A chunk, and the sectors or units at both of its ends.
const LEN: usize = CHUNK + 8192;

/// Alignment that direct I/O on every storage accepts.
const ALIGN: usize = 4096;

thread_local! {
    static CIPHER: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
    static COPY: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
}

/// Runs `work` with `len` bytes of this thread's buffer, whatever they hold.
pub(crate) fn with_cipher_buffer<R>(len: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
    CIPHER.with(|buffer| run(buffer, len, work))
}

/// The same with the buffer for copies between files, in which the other one is in use too.
pub(crate) fn with_copy_buffer<R>(len: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
    COPY.with(|buffer| run(buffer, len, work))
}

fn run<R>(buffer: &RefCell<Buffer>, len: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
    match buffer.try_borrow_mut() {
        Ok(mut buffer) => work(buffer.slice(len)),
        // A nested use is no error, only slower.
        Err(_) => work(Buffer::new().slice(len)),
    }
}

struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    const fn new() -> Self {
        Buffer { bytes: Vec::new() }
    }

    fn slice(&mut self, len: usize) -> &mut [u8] {
        let needed = len.max(LEN) + ALIGN;
        if self.bytes.len() < needed {
            self.bytes = vec![0; needed];
        }
        let skip = self.bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        &mut self.bytes[skip..skip + len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_and_as_long_as_asked() {
        for len in [0, 1, 512, LEN, LEN + 1, 4 * CHUNK] {
            with_cipher_buffer(len, |bytes| {
                assert_eq!(bytes.len(), len);
                assert_eq!(bytes.as_ptr().align_offset(ALIGN), 0);
            });
        }
    }

    #[test]
    fn nested_use_gets_other_memory() {
        with_cipher_buffer(4, |outer| {
            outer.fill(1);
            with_cipher_buffer(4, |inner| inner.fill(2));
            with_copy_buffer(4, |copy| copy.fill(3));
            assert_eq!(outer, [1; 4]);
        });
    }
}
