//! Extended attributes: where they are kept in the stored file, and how their values are sealed.
//!
//! Owns the codec (`docs/format.md`, "Extended attributes"); does no I/O. Every name that a program uses becomes a
//! name in the user space of the storage, which needs no privilege there; the value is sealed together with the
//! plain name, so that a value only opens under the name that it was set for. Flow: [`StoredName::of`] and [`seal`]
//! when an attribute is set, [`open`] when it is read, [`plain_name`] in a listing.

use crypto::SivKey;
use std::ffi::CStr;

/// Label under which the key of the values is derived from the home key.
pub const KEY_INFO: &str = "coffer v1 xattr";

/// What stored names start with; a letter for the space follows.
const PREFIX: &[u8] = b"user.:";

/// Spaces of names (xattr(7)) with their letters.
const SPACES: [(&[u8], u8); 3] = [(b"user.", b'u'), (b"trusted.", b't'), (b"security.", b's')];

/// Longest name in Linux (`XATTR_NAME_MAX`), plain or stored.
pub const MAX_NAME: usize = 255;

/// Longest value in Linux (`XATTR_SIZE_MAX`), and so the longest stored one.
pub const MAX_STORED: usize = 65_536;

const VERSION: u8 = 1;
const NONCE_AT: usize = 1;
const VECTOR_AT: usize = NONCE_AT + NONCE_LEN;

/// Length of the random number of each value.
pub const NONCE_LEN: usize = 16;

/// Bytes that a stored value has in front of the ciphertext.
pub const OVERHEAD: usize = VECTOR_AT + SivKey::VECTOR;

/// Why there is no stored name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameFault {
    /// Not a name in one of the spaces that are kept.
    Space,
    /// Longer than Linux, or the stored form, allows.
    TooLong,
}

/// The name under which the storage keeps an attribute, with a zero byte at its end.
#[derive(Debug, Clone, Copy)]
pub struct StoredName {
    bytes: [u8; MAX_NAME + 1],
}

impl StoredName {
    /// The stored name for a plain one.
    ///
    /// # Errors
    /// See [`NameFault`]. Nothing but names of `user` is too long that Linux allows: those of 254 and 255 bytes.
    pub fn of(plain: &[u8]) -> Result<StoredName, NameFault> {
        let (letter, rest) = SPACES
            .iter()
            .find_map(|(space, letter)| Some((*letter, plain.strip_prefix(*space)?)))
            .filter(|(_, rest)| !rest.is_empty() && !rest.contains(&0))
            .ok_or(NameFault::Space)?;
        let (front, mut bytes) = (PREFIX.len() + 1, [0; MAX_NAME + 1]);
        if plain.len() > MAX_NAME || front + rest.len() > MAX_NAME {
            return Err(NameFault::TooLong);
        }
        bytes[..PREFIX.len()].copy_from_slice(PREFIX);
        bytes[PREFIX.len()] = letter;
        bytes[front..front + rest.len()].copy_from_slice(rest);
        Ok(StoredName { bytes })
    }

    /// For the calls of the system.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// Has a stored name the form of those that are kept here?
pub fn is_kept(stored: &[u8]) -> bool {
    stored.starts_with(PREFIX)
}

/// The plain name of a stored one, in two parts: its space, with the dot, and the rest. `None` for attributes that
/// are not ours.
pub fn plain_name(stored: &[u8]) -> Option<(&'static [u8], &[u8])> {
    let (letter, rest) = stored.strip_prefix(PREFIX)?.split_first()?;
    let (space, _) = SPACES.iter().find(|(_, known)| known == letter)?;
    (!rest.is_empty()).then_some((*space, rest))
}

/// Seals `value` for the plain name into `out`, and returns the stored value. `out` must be at least as long as
/// the value and [`OVERHEAD`]; `None` when it is not.
pub fn seal<'a>(
    name: &[u8],
    value: &[u8],
    nonce: &[u8; NONCE_LEN],
    key: &SivKey,
    out: &'a mut [u8],
) -> Option<&'a [u8]> {
    let out = out.get_mut(..OVERHEAD + value.len())?;
    let (front, data) = out.split_at_mut(OVERHEAD);
    data.copy_from_slice(value);
    let vector = key.seal(&[name, nonce], data);
    front[0] = VERSION;
    front[NONCE_AT..VECTOR_AT].copy_from_slice(nonce);
    front[VECTOR_AT..].copy_from_slice(&vector);
    Some(out)
}

/// Opens a stored value in place; `None` for everything that [`seal`] did not make for this name with this key.
pub fn open<'a>(name: &[u8], stored: &'a mut [u8], key: &SivKey) -> Option<&'a [u8]> {
    let (front, data) = stored.split_at_mut_checked(OVERHEAD)?;
    let (fixed, vector) = front.split_last_chunk()?;
    let (version, nonce) = fixed.split_first()?;
    (*version == VERSION && key.open(&[name, nonce], vector, data)).then_some(&*data)
}

/// Length of the value in a stored one of this length; what is too short for a sealed value opens to nothing.
pub fn plain_len(stored: usize) -> usize {
    stored.saturating_sub(OVERHEAD)
}

#[cfg(test)]
#[path = "xattr_tests.rs"]
mod tests;
