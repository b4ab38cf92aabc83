//! Names of VMs and disks.
//!
//! Owns the one rule for a name; must not know where names are used. A name becomes a file name and a
//! part of an NBD export and of a URI, so the rule leaves out everything that any of these would have
//! to quote.

use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, fmt, str::FromStr};
use thiserror::Error;

/// Most characters in a name: leaves room for suffixes in a 255-byte file name and in a socket path.
pub const MAX_NAME: usize = 64;

/// Name of a VM or disk: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first neither `.` nor `-`.
///
/// A leading dot is kept for files of our own (locks, temporary files), a leading dash would be taken
/// for an option by tools.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Which rule a name breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// It has no characters.
    #[error("a name needs at least one character")]
    Empty,
    /// It has more than [`MAX_NAME`] bytes.
    #[error("a name has at most {MAX_NAME} characters, this one has {0}")]
    TooLong(usize),
    /// A character is not allowed.
    #[error("a name is made of A-Z a-z 0-9 . _ -, and {0:?} is none of these")]
    Character(char),
    /// The first character is a dot or a dash.
    #[error("a name cannot start with {0:?}")]
    Start(char),
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), NameError> {
    let first = text.chars().next().ok_or(NameError::Empty)?;
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong(text.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
        return Err(NameError::Character(bad));
    }
    if matches!(first, '.' | '-') { Err(NameError::Start(first)) } else { Ok(()) }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text).map(|()| Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        check(&text).map(|()| Self(text))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> NameError {
        text.parse::<Name>().unwrap_err()
    }

    #[test]
    fn accepts_what_the_rule_allows() {
        for text in ["a", "0", "_", "web01", "Web-01_a.b", "a..b", &"x".repeat(MAX_NAME)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn names_the_broken_rule() {
        assert_eq!(fault(""), NameError::Empty);
        assert_eq!(fault(&"x".repeat(65)), NameError::TooLong(65));
        assert_eq!(fault("."), NameError::Start('.'));
        assert_eq!(fault(".."), NameError::Start('.'));
        assert_eq!(fault("-rf"), NameError::Start('-'));
        for bad in ['/', '\0', ' ', '\n', '%', ':', '\u{e4}', '\\'] {
            assert_eq!(fault(&format!("a{bad}b")), NameError::Character(bad));
        }
    }

    #[test]
    fn json_applies_the_rule() {
        let name: Name = serde_json::from_str("\"web01\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"web01\"");
        let error = serde_json::from_str::<Name>("\"../web01\"").unwrap_err().to_string();
        assert!(error.contains("A-Z a-z 0-9"), "{error}");
    }

    #[test]
    fn display_pads() {
        assert_eq!(format!("{:6}|", "ab".parse::<Name>().unwrap()), "ab    |");
    }
}
