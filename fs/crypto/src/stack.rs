//! Owns the overwriting of stack memory below a computation that touched key bytes.
//!
//! It must not know what the computation was. Flow: [`wiping_stack`] runs the closure one frame
//! deeper, then overwrites that part of the stack.

/// Bytes overwritten below the caller. The deepest user here is the AES-256 key schedule inside
/// AES-KW (two schedules of 240 bytes and their broadcast to 64-byte registers, about 2 KiB) and
/// HKDF over two HMAC states; 16 KiB leaves room for unoptimised builds.
const WIPE_BYTES: usize = 16 * 1024;

/// Runs `work`, then overwrites the stack that it used.
///
/// Best effort by nature: registers and signal frames are out of reach.
pub(crate) fn wiping_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = one_frame_down(work);
    zeroize::zeroize_stack::<WIPE_BYTES>();
    result
}

/// A frame of its own, so that `work` is not inlined into the frame above the wiped part.
#[inline(never)]
fn one_frame_down<T>(work: impl FnOnce() -> T) -> T {
    work()
}
