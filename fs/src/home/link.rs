//! Targets of symbolic links: stored with a tag, or encrypted, so that none is believed that was not made here.
//!
//! Owns the codec (`docs/format.md`, "Links"); does no I/O. The kernel of the host follows what a link says, so
//! whoever could plant one in the storage could have files of the guest written to a place of his. A target is made of
//! names: it is in clear where they are, and encrypted where they are. Flow: [`encode`] or [`seal`] when a link is
//! made, [`decode`] or [`open`] whenever it is read.

use super::base64url;
use crypto::{MacKey, SivKey};

/// Label under which the MAC key is derived from the home key.
pub const MAC_INFO: &str = "coffer v1 link mac";

/// Label under which the key of encrypted targets is derived from the home key.
pub const KEY_INFO: &str = "coffer v1 link";

/// What a stored target in clear starts with.
const MAGIC: &[u8] = b"coffer1.";

/// What an encrypted one starts with.
const SEALED_MAGIC: &[u8] = b"coffer2.";

/// Longest stored target: the longest of Linux (`PATH_MAX` without its zero).
const MAX_STORED: usize = 4095;

/// Bytes of HMAC-SHA-256 that are kept: enough against guessing, where each guess takes a lookup, and short
/// enough to leave room for targets.
const TAG: usize = 16;

/// Between tag and target.
const DOT: u8 = b'.';

const TAG_AT: usize = MAGIC.len();
const TAG_END: usize = TAG_AT + 2 * TAG;

/// Bytes that a stored target has in front of the plain one.
pub const OVERHEAD: usize = TAG_END + 1;

/// Longest plain target in clear, in bytes.
pub const MAX_TARGET: usize = MAX_STORED - OVERHEAD;

/// Longest plain target that is encrypted.
pub const MAX_SEALED_TARGET: usize =
    base64url::decoded_len(MAX_STORED - SEALED_MAGIC.len()) - SivKey::VECTOR;

/// The stored form of a target in clear; `None` when it would be too long.
pub fn encode(target: &[u8], mac: &MacKey) -> Option<Vec<u8>> {
    if target.len() > MAX_TARGET {
        return None;
    }
    let tag = hex::encode(&mac.tag(&[target])[..TAG]);
    Some([MAGIC, tag.as_bytes(), &[DOT], target].concat())
}

/// The stored form of an encrypted target; `None` when it would be too long.
pub fn seal(target: &[u8], key: &SivKey) -> Option<Vec<u8>> {
    if target.len() > MAX_SEALED_TARGET {
        return None;
    }
    let mut sealed = [&[0; SivKey::VECTOR], target].concat();
    let (vector, data) = sealed.split_at_mut(SivKey::VECTOR);
    vector.copy_from_slice(&key.seal(&[], data));
    let mut stored = SEALED_MAGIC.to_vec();
    stored.resize(SEALED_MAGIC.len() + base64url::encoded_len(sealed.len()), 0);
    base64url::encode(&sealed, &mut stored[SEALED_MAGIC.len()..]);
    Some(stored)
}

/// The target in a stored form that is in clear; `None` for everything that [`encode`] did not make with this key.
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

/// The target in an encrypted form; `None` for everything that [`seal`] did not make with this key.
pub fn open(stored: &[u8], key: &SivKey) -> Option<Vec<u8>> {
    let text = stored.strip_prefix(SEALED_MAGIC).filter(|_| stored.len() <= MAX_STORED)?;
    let mut sealed = vec![0; base64url::decoded_len(text.len())];
    base64url::decode(text, &mut sealed)?;
    let (vector, data) = sealed.split_first_chunk_mut::<{ SivKey::VECTOR }>()?;
    (!data.is_empty() && key.open(&[], vector, data)).then(|| data.to_vec())
}

/// Plain length for a stored one in clear; a target that is too short for a tag is none, and has none.
pub fn plain_len(stored: u64) -> u64 {
    stored.saturating_sub(OVERHEAD as u64)
}

/// Plain length for an encrypted one; a target that is too short is none, and has none.
pub fn opened_len(stored: u64) -> u64 {
    let text = stored.saturating_sub(SEALED_MAGIC.len() as u64);
    (text / 4 * 3 + text % 4 * 3 / 4).saturating_sub(SivKey::VECTOR as u64)
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
