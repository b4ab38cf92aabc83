//! Owns the calls into AWS-LC: one `EVP_aes_256_xts` context of one key and direction.
//!
//! It must not know lanes or sectors. Flow: `Context::new` expands the key once; each piece sets the
//! tweak (a copy of 16 bytes, the key stays) and runs the cipher over its data.
//!
//! The context lives on AWS-LC's heap, which cleanses every block before it frees it; processes that
//! use this engine lock their memory ([`crate::lock_process_memory`]).

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use aes::cipher::inout::InOutBuf;
use aws_lc_sys::{
    EVP_CIPHER_CTX, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new, EVP_Cipher, EVP_CipherInit_ex,
    EVP_aes_256_xts,
};
use zeroize::Zeroize;

use super::units::Piece;
use super::{Direction, Engine, XtsError};
use crate::bytes::fixed;
use crate::keys::Dek;
use crate::keys::sealed::Bytes;
use crate::stack::wiping_stack;

/// The largest stretch of a unit: all of a 4096-byte unit.
const SCRATCH_BYTES: usize = 4096;

/// A cipher context with an expanded key.
pub(super) struct Context {
    raw: NonNull<EVP_CIPHER_CTX>,
    direction: Direction,
}

// SAFETY: a context is heap memory without ties to a thread; AWS-LC asks only that two threads do
// not use one at the same time, and every use here needs `&mut`.
unsafe impl Send for Context {}

impl Context {
    /// A context for `key`, which AWS-LC checks once more for equal halves.
    pub(super) fn new(key: &Dek, direction: Direction) -> Result<Self, XtsError> {
        let key = fixed::<64>(key.bytes(), "XTS").map_err(|_| failed("EVP_CipherInit_ex"))?;
        // SAFETY: takes nothing, returns a new context or null.
        let raw =
            NonNull::new(unsafe { EVP_CIPHER_CTX_new() }).ok_or(failed("EVP_CIPHER_CTX_new"))?;
        let context = Self { raw, direction };
        let encrypt = c_int::from(direction == Direction::Encrypt);
        let tweak = [0; 16];
        // SAFETY: `raw` is a live context; the cipher is a static table; AES-256-XTS reads 64 bytes of
        // key and 16 of tweak, which these arrays have; the engine may be null.
        let done = wiping_stack(|| unsafe {
            EVP_CipherInit_ex(
                raw.as_ptr(),
                EVP_aes_256_xts(),
                ptr::null_mut(),
                key.as_ptr(),
                tweak.as_ptr(),
                encrypt,
            )
        });
        if done == 1 { Ok(context) } else { Err(failed("EVP_CipherInit_ex")) }
    }

    /// Runs the cipher over one piece (whole blocks, at most a unit).
    #[inline]
    pub(super) fn crypt(
        &mut self,
        piece: Piece,
        data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), XtsError> {
        if piece.skip == 0 {
            self.at_unit_start(piece, data)
        } else {
            self.inside_unit(piece, data)
        }
    }

    /// Data at the start of its unit: the cipher runs over it as it is. It may end before the unit
    /// does, since XTS blocks are independent of those that follow.
    #[inline]
    fn at_unit_start(&mut self, piece: Piece, data: InOutBuf<'_, '_, u8>) -> Result<(), XtsError> {
        let tweak = piece.tweak_bytes();
        let len = data.len();
        let (input, output) = data.into_raw();
        // SAFETY: `raw` is a live context with a key; a null cipher and key keep both, -1 keeps the
        // direction, and 16 bytes of tweak are copied. `input` and `output` come from an `InOutBuf`:
        // both are valid for `len` bytes and either the same or disjoint, which is what the cipher
        // accepts. `len` is a multiple of 16 and not 0, so the cipher reads and writes `len` bytes.
        let done = unsafe {
            EVP_CipherInit_ex(
                self.raw.as_ptr(),
                ptr::null(),
                ptr::null_mut(),
                ptr::null(),
                tweak.as_ptr(),
                -1,
            ) == 1
                && EVP_Cipher(self.raw.as_ptr(), output, input, len) == 1
        };
        if done { Ok(()) } else { Err(failed("EVP_Cipher")) }
    }

    /// Data that starts inside its unit. AWS-LC has no way to begin at a later block, so the cipher
    /// runs over a scratch unit up to the end of the data, and only the data is copied out.
    #[inline(never)]
    fn inside_unit(
        &mut self,
        piece: Piece,
        mut data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), XtsError> {
        let mut scratch = [0; SCRATCH_BYTES];
        let used = scratch.get_mut(..piece.skip + piece.len).ok_or(failed("the scratch unit"))?;
        used[piece.skip..].copy_from_slice(data.get_in());
        let whole = Piece { skip: 0, len: used.len(), ..piece };
        let result = self.at_unit_start(whole, InOutBuf::from(&mut *used));
        data.get_out().copy_from_slice(&used[piece.skip..]);
        if self.direction == Direction::Decrypt {
            scratch.zeroize();
        }
        result
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: `raw` came from EVP_CIPHER_CTX_new and is freed once, here. The key schedules are
        // cleansed on the way.
        unsafe { EVP_CIPHER_CTX_free(self.raw.as_ptr()) }
    }
}

fn failed(call: &'static str) -> XtsError {
    XtsError::Engine { engine: Engine::AwsLc, call }
}

#[cfg(test)]
#[path = "aws_lc_tests.rs"]
mod tests;
