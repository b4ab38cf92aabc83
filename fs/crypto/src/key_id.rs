//! Owns the name of a KEK: `provider/uid`.
//!
//! It must not know what a provider is or whether the key exists. Flow: text from files, command
//! lines and APIs is parsed once; the rest of the program passes the type.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest provider name: it appears in file names, unit names and listings.
const MAX_PROVIDER: usize = 64;
/// Longest uid: KMIP servers use up to 64 characters, transit paths somewhat more.
const MAX_UID: usize = 128;

/// The name of a KEK, `provider/uid`; a string in serialised form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId {
    provider: String,
    uid: String,
}

/// A text that names no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyIdError {
    /// No `/`.
    #[error("key id {0:?}: it has the form provider/uid")]
    NoSlash(String),
    /// A bad first part.
    #[error("key id {0:?}: a provider is 1 to {MAX_PROVIDER} characters of A-Z a-z 0-9 . _ -")]
    Provider(String),
    /// A bad second part.
    #[error("key id {0:?}: a uid is 1 to {MAX_UID} characters of A-Z a-z 0-9 . _ : -")]
    Uid(String),
}

impl KeyId {
    /// A key id of its two parts.
    ///
    /// # Errors
    /// [`KeyIdError`] names the part that breaks the rules.
    pub fn new(provider: &str, uid: &str) -> Result<Self, KeyIdError> {
        format!("{provider}/{uid}").parse()
    }

    /// The provider that has the key.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The provider's own name of the key.
    pub fn uid(&self) -> &str {
        &self.uid
    }
}

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (provider, uid) =
            text.split_once('/').ok_or_else(|| KeyIdError::NoSlash(text.to_owned()))?;
        if !is_name(provider, MAX_PROVIDER, b"._-") {
            return Err(KeyIdError::Provider(text.to_owned()));
        }
        if !is_name(uid, MAX_UID, b"._:-") {
            return Err(KeyIdError::Uid(text.to_owned()));
        }
        Ok(Self { provider: provider.to_owned(), uid: uid.to_owned() })
    }
}

/// 1 to `max` ASCII letters, digits and characters of `also`.
fn is_name(text: &str, max: usize, also: &[u8]) -> bool {
    (1..=max).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
}

impl TryFrom<String> for KeyId {
    type Error = KeyIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.uid)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

#[cfg(test)]
#[path = "key_id_tests.rs"]
mod tests;
