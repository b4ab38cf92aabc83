//! Owns the calls into AWS-LC: one `EVP_aes_256_xts` context of one key and direction.
//!
//! It must not know lanes or sectors. Flow: `Context::new` expands the key once; each unit sets the
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

use super::units::{BLOCK_BYTES, SECTOR_BYTES, STRETCH_BYTES, Stretch, Unit, tweak_bytes};
use super::{Direction, Engine, XtsError};
use crate::bytes::fixed;
use crate::keys::Dek;
use crate::keys::sealed::Bytes;
use crate::stack::wiping_stack;

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

    /// Runs the cipher over one stretch.
    #[inline]
    pub(super) fn crypt(
        &mut self,
        unit: Unit,
        stretch: Stretch,
        mut data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), XtsError> {
        if unit == Unit::B4096 {
            return match stretch.in_large_unit() {
                (number, 0) => self.unit_start(tweak_bytes(number), data),
                (number, skip) => self.inside_unit(number, skip, data),
            };
        }
        let mut number = stretch.sector;
        while !data.is_empty() {
            let (sector, rest) = data.split_at(SECTOR_BYTES);
            self.unit_start(tweak_bytes(number), sector)?;
            data = rest;
            // What follows the last sector number is not used.
            number = number.wrapping_add(1);
        }
        Ok(())
    }

    /// Data at the start of its unit: the cipher runs over it as it is. It may end before the unit
    /// does, since XTS blocks are independent of those that follow.
    #[inline]
    pub(super) fn unit_start(
        &mut self,
        tweak: [u8; BLOCK_BYTES],
        data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), XtsError> {
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

    /// Data that starts `skip` bytes inside its unit. AWS-LC has no way to begin at a later block, so
    /// the cipher runs over a scratch unit up to the end of the data, and only the data is copied out.
    #[inline(never)]
    fn inside_unit(
        &mut self,
        number: u64,
        skip: usize,
        mut data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), XtsError> {
        let mut scratch = [0; STRETCH_BYTES];
        let used = scratch.get_mut(..skip + data.len()).ok_or(failed("the scratch unit"))?;
        used[skip..].copy_from_slice(data.get_in());
        let result = self.unit_start(tweak_bytes(number), InOutBuf::from(&mut *used));
        data.get_out().copy_from_slice(&used[skip..]);
        if self.direction == Direction::Decrypt || result.is_err() {
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
