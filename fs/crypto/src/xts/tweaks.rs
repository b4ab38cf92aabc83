//! Owns the arithmetic of tweaks: runs of powers of x in GF(2^128), many at a time.
//!
//! It must not know keys or data. Flow: a unit's first tweak is doubled a few times one by one; the
//! run then grows by multiplying all that is there by x^8, x^16, x^32 and x^64, in loops without
//! dependences. Everything is inlined, so that these loops become vector code of the width that the
//! block cipher's own context has (512 bits in the context of VAES-512).
//!
//! Reduction is modulo x^128 + x^7 + x^2 + x + 1 (IEEE 1619 section 5.2). Nothing here branches on, or
//! indexes by, a value.

use super::units::{BLOCK_BYTES, STRETCH_BYTES};

/// Blocks of the longest stretch.
const MOST: usize = STRETCH_BYTES / BLOCK_BYTES;

/// The tweaks of the blocks of a stretch. 8 KiB; made once a call and filled anew for each stretch.
pub(super) struct Tweaks {
    /// Low and high halves of 64 bits, for growing.
    low: [u64; MOST],
    high: [u64; MOST],
    /// The same as the bytes that are added to the data.
    bytes: [u8; STRETCH_BYTES],
}

impl Tweaks {
    pub(super) fn new() -> Self {
        Self { low: [0; MOST], high: [0; MOST], bytes: [0; STRETCH_BYTES] }
    }

    /// Writes `first`, x first, x^2 first ... to the `count` places from `start` on.
    #[inline(always)]
    pub(super) fn fill(&mut self, start: usize, count: usize, first: u128) {
        let low = &mut self.low[start..start + count];
        let high = &mut self.high[start..start + count];
        let mut tweak = first;
        for (low, high) in low.iter_mut().zip(high.iter_mut()).take(8) {
            (*low, *high) = halves(tweak);
            tweak = double(tweak);
        }
        grow::<8>(low, high);
        grow::<16>(low, high);
        grow::<32>(low, high);
        for known in (64..count).step_by(64) {
            grow_by_64(&mut low[known - 64..], &mut high[known - 64..]);
        }
        let bytes = &mut self.bytes[start * BLOCK_BYTES..(start + count) * BLOCK_BYTES];
        for (block, (low, high)) in bytes.as_chunks_mut().0.iter_mut().zip(low.iter().zip(high)) {
            *block = (u128::from(*high) << 64 | u128::from(*low)).to_le_bytes();
        }
    }

    /// Adds the tweaks, from the first place on, to the data.
    #[inline(always)]
    pub(super) fn add_to(&self, data: &mut [u8]) {
        for (byte, add) in data.iter_mut().zip(&self.bytes) {
            *byte ^= add;
        }
    }
}

/// `tweak` times x.
#[inline(always)]
pub(super) fn double(tweak: u128) -> u128 {
    (tweak << 1) ^ ((tweak >> 127) * 0x87)
}

/// Writes x^K times the first K places to the next K, as far as there are such. K is at most 32, so
/// that what is shifted out folds back without a second carry.
#[inline(always)]
fn grow<const K: usize>(low: &mut [u64], high: &mut [u64]) {
    if low.len() <= K {
        return;
    }
    let (low, next_low) = low.split_at_mut(K);
    let (high, next_high) = high.split_at_mut(K);
    let next = next_low.iter_mut().zip(next_high);
    for ((next_low, next_high), (low, high)) in next.zip(low.iter().zip(high)) {
        let out = *high >> (64 - K);
        *next_low = (low << K) ^ out ^ (out << 1) ^ (out << 2) ^ (out << 7);
        *next_high = (*high << K) | (low >> (64 - K));
    }
}

/// Writes x^64 times the first 64 places to the next 64, as far as there are such.
#[inline(always)]
fn grow_by_64(low: &mut [u64], high: &mut [u64]) {
    let (low, next_low) = low.split_at_mut(64);
    let (high, next_high) = high.split_at_mut(64);
    let next = next_low.iter_mut().zip(next_high);
    for ((next_low, next_high), (low, high)) in next.zip(low.iter().zip(high)) {
        let high = *high;
        *next_low = high ^ (high << 1) ^ (high << 2) ^ (high << 7);
        *next_high = low ^ (high >> 63) ^ (high >> 62) ^ (high >> 57);
    }
}

/// The low and the high 64 bits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "taking the low half is the purpose")]
fn halves(tweak: u128) -> (u64, u64) {
    (tweak as u64, (tweak >> 64) as u64)
}

#[cfg(test)]
#[path = "tweaks_tests.rs"]
mod tests;
