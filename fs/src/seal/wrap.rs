//! A data key wrapped by a key-encrypting key, as it stands in a sealed file.
//!
//! Owns the text form of each algorithm, and what its check value is of. Must not know who unwraps.

use super::Flaw;
use crypto::{CheckValue, DataKey, Kek, KeyError, KeyId, OpaqueKey, Wrapped};
use serde::{Deserialize, Serialize};

pub use crypto::WrapAlg;

/// Begins the blob of a transit engine; its version of the key and base64 follow.
const TRANSIT: &str = "vault:v";

/// Most digits of a version: it is a number of 32 bits.
const MAX_VERSION_DIGITS: usize = 10;

/// Bytes that AES-256-GCM adds: a nonce of 96 bits before, a tag of 128 bits behind (NIST SP 800-38D).
const GCM_BYTES: usize = 12 + 16;

/// One wrapped key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Wrap {
    /// The key that wrapped it.
    pub key: KeyId,
    /// How.
    pub alg: WrapAlg,
    /// Tells a wrong key from a damaged blob: `crypto::Kek::check_value`, or with [`WrapAlg::Transit`], where nobody has the
    /// KEK, `crypto::OpaqueKey::check_value` of the key inside.
    pub check: CheckValue,
    /// The wrapped key.
    pub blob: Vec<u8>,
}

/// A wrap in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    key: KeyId,
    alg: WrapAlg,
    check: CheckValue,
    blob: String,
}

impl Wrap {
    /// Wraps `key` by `kek`, whose id is `id`.
    pub fn make<K: DataKey>(kek: &Kek, id: &KeyId, key: &K) -> Result<Self, KeyError> {
        let blob = kek.wrap(key)?;
        Ok(Self { key: id.clone(), alg: WrapAlg::A256KW, check: kek.check_value(), blob })
    }

    /// The wrap of `key` that a provider made by its key `id`, which it keeps.
    pub fn made_elsewhere(id: &KeyId, wrapped: Wrapped, key: &OpaqueKey) -> Result<Self, KeyError> {
        let check = key.check_value()?;
        Ok(Self { key: id.clone(), alg: wrapped.alg, check, blob: wrapped.blob })
    }

    /// The wrapped key alone, as a provider takes it.
    #[must_use]
    pub fn wrapped(&self) -> Wrapped {
        Wrapped { alg: self.alg, blob: self.blob.clone() }
    }

    /// Checks the length, which tells which kind of key is inside.
    pub(super) fn check_length<K: DataKey>(&self) -> Result<(), Flaw> {
        let (len, expected) = match self.alg {
            WrapAlg::A256KW => (self.blob.len(), K::WRAPPED_LEN),
            WrapAlg::Transit => {
                let digits = self.blob.rsplit(|byte| *byte == b':').next().map_or(0, <[u8]>::len);
                (digits, OpaqueKey::base64_len(K::LEN + GCM_BYTES))
            }
        };
        if len == expected {
            return Ok(());
        }
        Err(Flaw::WrapLength { key: self.key.clone(), len, expected })
    }
}

impl From<Wrap> for Text {
    fn from(wrap: Wrap) -> Self {
        let blob = match wrap.alg {
            WrapAlg::A256KW => hex::encode(&wrap.blob),
            // It was text when it was read or made.
            WrapAlg::Transit => String::from_utf8_lossy(&wrap.blob).into_owned(),
        };
        Self { key: wrap.key, alg: wrap.alg, check: wrap.check, blob }
    }
}

impl TryFrom<Text> for Wrap {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let blob = match text.alg {
            WrapAlg::A256KW => hex::decode(&text.blob).map_err(|e| e.to_string())?,
            WrapAlg::Transit if is_transit(&text.blob) => text.blob.into_bytes(),
            WrapAlg::Transit => return Err("the blob is not vault:vN:BASE64".to_owned()),
        };
        Ok(Self { key: text.key, alg: text.alg, check: text.check, blob })
    }
}

/// Whether a text can be a wrap of a transit engine.
fn is_transit(text: &str) -> bool {
    let Some((version, code)) = text.strip_prefix(TRANSIT).and_then(|rest| rest.split_once(':'))
    else {
        return false;
    };
    let digits = version.bytes().all(|byte| byte.is_ascii_digit()) && !version.starts_with('0');
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    digits && (1..=MAX_VERSION_DIGITS).contains(&version.len()) && code.bytes().all(base64)
}

#[cfg(test)]
#[path = "wrap_tests.rs"]
mod tests;
