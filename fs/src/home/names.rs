//! Encrypted names: what a name of the home is stored as in a home whose policy is `names = "encrypted"`.
//!
//! Owns the codec (`docs/format.md`, "Encrypted names"); does no I/O and takes no memory. The same name becomes the
//! same stored name in every folder, so a lookup is one call of the storage and a rename moves nothing but the name.
//! Flow: [`encode`] with a name that a program uses, [`decode`] with one that the storage lists.

use super::base64url;
use crypto::SivKey;

/// Label under which the key of names is derived from the home key.
pub const KEY_INFO: &str = "coffer v1 name";

/// Longest stored name: the longest of Linux (`NAME_MAX`).
pub const MAX_STORED: usize = 255;

/// Bytes of a stored name before they are written as text: the vector of AES-SIV and the encrypted name.
const MAX_SEALED: usize = base64url::decoded_len(MAX_STORED);

/// Longest plain name.
pub const MAX_PLAIN: usize = MAX_SEALED - SivKey::VECTOR;

/// A stored name.
#[derive(Debug, Clone)]
pub struct Encoded {
    text: [u8; MAX_STORED],
    len: usize,
}

impl Encoded {
    /// Its bytes, all of them of the alphabet of base64url.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// Memory for one decoded name.
#[derive(Debug)]
pub struct Room([u8; MAX_SEALED]);

impl Room {
    /// For any number of names, one after the other.
    pub const fn new() -> Room {
        Room([0; MAX_SEALED])
    }
}

impl Default for Room {
    fn default() -> Room {
        Room::new()
    }
}

/// The stored name for a plain one; `None` when it has no byte, or more than [`MAX_PLAIN`].
pub fn encode(plain: &[u8], key: &SivKey) -> Option<Encoded> {
    if plain.is_empty() {
        return None;
    }
    let mut sealed = [0; MAX_SEALED];
    let sealed = sealed.get_mut(..SivKey::VECTOR + plain.len())?;
    let (vector, name) = sealed.split_at_mut(SivKey::VECTOR);
    name.copy_from_slice(plain);
    vector.copy_from_slice(&key.seal(&[], name));
    let mut text = [0; MAX_STORED];
    let len = base64url::encode(sealed, &mut text);
    Some(Encoded { text, len })
}

/// The plain name of a stored one; `None` for everything that [`encode`] did not make with this key.
pub fn decode<'a>(stored: &[u8], key: &SivKey, room: &'a mut Room) -> Option<&'a [u8]> {
    let len = base64url::decode(stored, &mut room.0)?;
    let (vector, name) = room.0[..len].split_first_chunk_mut::<{ SivKey::VECTOR }>()?;
    (!name.is_empty() && key.open(&[], vector, name)).then_some(&*name)
}

/// Could it be a stored name of whatever key, or one of which some characters were changed?
pub fn looks_encoded(stored: &[u8]) -> bool {
    stored.len() >= base64url::encoded_len(SivKey::VECTOR + 1) && base64url::is_text(stored)
}

/// Longest plain name where stored names have at most so many bytes; 0 where none fits.
pub fn plain_limit(stored: usize) -> usize {
    base64url::decoded_len(stored.min(MAX_STORED)).saturating_sub(SivKey::VECTOR)
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
