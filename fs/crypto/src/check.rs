//! Owns key check values: the public eight bytes that tell a wrong KEK from a damaged wrap.
//!
//! It must not hold key bytes. Flow: [`crate::Kek::check_value`] derives one; it is stored beside
//! each wrap and compared before the wrap is opened.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a check value: a chance of 2^-64 that two different KEKs share one.
const LEN: usize = 8;

/// The check value of a KEK; lower-case hex in text and in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckValue([u8; LEN]);

/// A text that is no check value.
#[derive(Debug, thiserror::Error)]
#[error("a key check value is {} hex digits", 2 * LEN)]
pub struct CheckValueError(());

impl CheckValue {
    pub(crate) fn new(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// The eight bytes.
    pub fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl FromStr for CheckValue {
    type Err = CheckValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; LEN];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| CheckValueError(()))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for CheckValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for CheckValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckValue({self})")
    }
}

impl Serialize for CheckValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CheckValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
