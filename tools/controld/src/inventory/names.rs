//! Names, and how texts become parts of keys of the store.
//!
//! Owns the rules; pure, and must not know records.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Most characters of a name: the rule of hosts for VMs and disks.
const MAX_NAME: usize = 64;

/// Name of a cluster, host, datastore, VM, disk, policy, provider, role or person: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first neither
/// `.` nor `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no name; names are 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -, the first neither . nor -"
)]
pub struct NameError(String);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_good = !text.is_empty()
            && text.len() <= MAX_NAME
            && text.chars().all(is_allowed)
            && !text.starts_with(['.', '-']);
        if is_good {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError(text.chars().take(2 * MAX_NAME).collect()))
        }
    }
}

/// A text as one part of a key of the store: everything but letters, digits and `. _ -` as `%XX`, so that no `/` is left and no
/// two texts become the same.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, prop_assert_ne, proptest};

    #[test]
    fn rules() {
        for good in ["a", "web01", "A.b_c-d", "0"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", ".a", "-a", "a/b", "a b", "\u{e9}", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
            assert!(serde_json::from_value::<Name>(serde_json::json!(bad)).is_err());
        }
    }

    proptest! {
        #[test]
        fn escaped_texts_are_parts_of_keys_and_stay_apart(a in any::<String>(), b in any::<String>()) {
            prop_assert!(escape(&a).chars().all(|c| c.is_ascii_graphic() && c != '/'));
            if a == b {
                prop_assert_eq!(escape(&a), escape(&b));
            } else {
                prop_assert_ne!(escape(&a), escape(&b));
            }
        }
    }
}
