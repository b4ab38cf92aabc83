//! Targets of symbolic links: stored in clear, with a tag, so that none is believed that was not made here.
//!
//! Owns the codec (`docs/format.md`, "Links"); does no I/O. The kernel of the host follows what a link says, so
//! whoever could plant one in the storage could have files of the guest written to a place of his. Flow:
//! [`encode`] when a link is made, [`decode`] whenever it is read.

use crypto::MacKey;

/// Label under which the MAC key is derived from the home key.
pub const MAC_INFO: &str = "coffer v1 link mac";

/// What a stored target starts with.
const MAGIC: &[u8] = b"coffer1.";

/// Bytes of HMAC-SHA-256 that are kept: enough against guessing, where each guess takes a lookup, and short
/// enough to leave room for targets.
const TAG: usize = 16;

/// Between tag and target.
const DOT: u8 = b'.';

const TAG_AT: usize = MAGIC.len();
const TAG_END: usize = TAG_AT + 2 * TAG;

/// Bytes that a stored target has in front of the plain one.
pub const OVERHEAD: usize = TAG_END + 1;

/// Longest plain target, in bytes: the longest of Linux (`PATH_MAX` without its zero) and room for the tag.
pub const MAX_TARGET: usize = 4095 - OVERHEAD;

/// The stored form of a target.
pub fn encode(target: &[u8], mac: &MacKey) -> Vec<u8> {
    let tag = hex::encode(&mac.tag(&[target])[..TAG]);
    [MAGIC, tag.as_bytes(), &[DOT], target].concat()
}

/// The target in a stored form; `None` for everything that [`encode`] did not make with this key.
pub fn decode<'a>(stored: &'a [u8], mac: &MacKey) -> Option<&'a [u8]> {
    let (front, target) = stored.split_at_checked(OVERHEAD)?;
    let digits = front.strip_prefix(MAGIC)?.strip_suffix(&[DOT])?;
    if digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut tag = [0; TAG];
    hex::decode_to_slice(digits, &mut tag).ok()?;
    mac.verify_half(&[target], &tag).then_some(target)
}

/// Plain length for a stored one; a target that is too short for a tag is none, and has none.
pub fn plain_len(stored: u64) -> u64 {
    stored.saturating_sub(OVERHEAD as u64)
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
