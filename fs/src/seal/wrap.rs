//! A data key wrapped by a key-encrypting key, as it stands in a sealed file.

use crypto::{CheckValue, DataKey, Kek, KeyError, KeyId};
use serde::{Deserialize, Serialize};

/// One wrapped key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrap {
    /// The key that wrapped it.
    pub key: KeyId,
    /// How.
    pub alg: WrapAlg,
    /// Tells a wrong key from a damaged blob: `crypto::Kek::check_value`.
    pub check: CheckValue,
    /// The wrapped key.
    #[serde(with = "hex_text")]
    pub blob: Vec<u8>,
}

/// Algorithms of key wrapping, by their JOSE names (RFC 7518 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WrapAlg {
    /// AES-256 key wrap, RFC 3394.
    A256KW,
}

impl Wrap {
    /// Wraps `key` by `kek`, whose id is `id`.
    pub fn make<K: DataKey>(kek: &Kek, id: &KeyId, key: &K) -> Result<Self, KeyError> {
        let blob = kek.wrap(key)?;
        Ok(Self { key: id.clone(), alg: WrapAlg::A256KW, check: kek.check_value(), blob })
    }
}

/// Bytes as a string of hex digits.
mod hex_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        hex::decode(text).map_err(D::Error::custom)
    }
}
