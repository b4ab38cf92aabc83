//! Owns the overwriting of stack memory below a computation that touched key bytes.
//!
//! It must not know what the computation was. Flow: [`wiping_stack`] runs the closure one frame
//! deeper, then clears the vector registers and overwrites that part of the stack.

use crate::registers;

/// Bytes overwritten below the caller. The deepest user is the portable XTS engine with 8 KiB of
/// tweaks and the round keys that the `aes` crate spreads below: residue was seen down to 18 KiB in a
/// build with little inlining, to 3 KiB in a release build. Overwriting takes about 0.1 us.
const WIPE_BYTES: usize = 24 * 1024;

/// Runs `work`, then overwrites the stack that it used.
///
/// Best effort by nature: general registers and signal frames are out of reach.
pub(crate) fn wiping_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = one_frame_down(work);
    registers::clear();
    zeroize::zeroize_stack::<WIPE_BYTES>();
    result
}

/// A frame of its own, so that `work` is not inlined into the frame above the wiped part.
#[inline(never)]
fn one_frame_down<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[cfg(test)]
#[path = "stack_tests.rs"]
mod tests;
