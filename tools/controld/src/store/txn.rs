//! A transaction: what must hold, and what is changed then.
//!
//! Owns the shape and the limits that both backends have in common; must not know a backend. Pure.

use super::{Lease, MAX_KEY, MAX_TXN_BYTES, MAX_TXN_STEPS, MAX_VALUE, Revision, StoreError};
use std::collections::BTreeSet;

/// A comparison: the key was written last by this commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// Its revision; [`Revision::ABSENT`] for a key that must not be there.
    pub revision: Revision,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Writes a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
        /// The lease that it goes with.
        lease: Option<Lease>,
    },
    /// Deletes a key; one that is absent is fine.
    Delete {
        /// The key.
        key: String,
    },
}

/// Comparisons and changes. Keys are printable ASCII without blanks, and none is changed twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    compares: Vec<Compare>,
    changes: Vec<Change>,
}

impl Txn {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if `key` was written last by that commit.
    #[must_use]
    pub fn expect(mut self, key: impl Into<String>, revision: Revision) -> Self {
        self.compares.push(Compare { key: key.into(), revision });
        self
    }

    /// Writes a key.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        let (key, value) = (key.into(), value.into());
        self.changes.push(Change::Put { key, value, lease: None });
        self
    }

    /// Writes a key that goes with a lease.
    #[must_use]
    pub fn put_under(mut self, lease: Lease, key: impl Into<String>, value: &[u8]) -> Self {
        let (key, value) = (key.into(), value.to_owned());
        self.changes.push(Change::Put { key, value, lease: Some(lease) });
        self
    }

    /// Deletes a key.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.changes.push(Change::Delete { key: key.into() });
        self
    }

    /// What must hold.
    #[must_use]
    pub fn compares(&self) -> &[Compare] {
        &self.compares
    }

    /// What is changed.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Holds it against the limits that every backend has.
    ///
    /// # Errors
    /// [`StoreError::Limit`] that names the limit.
    pub fn check(&self) -> Result<(), StoreError> {
        for (what, count) in [("comparisons", self.compares.len()), ("changes", self.changes.len())]
        {
            if count > MAX_TXN_STEPS {
                return limit(format!(
                    "{count} {what} in one transaction; the limit is {MAX_TXN_STEPS}"
                ));
            }
        }
        let mut bytes = 0;
        let mut seen = BTreeSet::new();
        for change in &self.changes {
            let (key, length) = match change {
                Change::Put { key, value, .. } => (key, value.len()),
                Change::Delete { key } => (key, 0),
            };
            check_key(key)?;
            if length > MAX_VALUE {
                return limit(format!("{length} bytes for {key}; the limit is {MAX_VALUE}"));
            }
            if !seen.insert(key) {
                return limit(format!("{key} is changed twice in one transaction"));
            }
            bytes += key.len() + length;
        }
        for compare in &self.compares {
            check_key(&compare.key)?;
            bytes += compare.key.len();
        }
        if bytes > MAX_TXN_BYTES {
            return limit(format!(
                "{bytes} bytes in one transaction; the limit is {MAX_TXN_BYTES}"
            ));
        }
        Ok(())
    }
}

impl Change {
    /// The key that is changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > MAX_KEY {
        return limit(format!("a key of {} bytes; keys have 1 to {MAX_KEY}", key.len()));
    }
    match key.chars().find(|c| !c.is_ascii_graphic()) {
        Some(bad) => limit(format!("a key with {bad:?}; keys are printable ASCII without blanks")),
        None => Ok(()),
    }
}

fn limit(reason: String) -> Result<(), StoreError> {
    Err(StoreError::Limit(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(txn: &Txn) -> String {
        match txn.check() {
            Err(StoreError::Limit(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn limits_are_named() {
        let many = (0..=MAX_TXN_STEPS).fold(Txn::new(), |txn, n| txn.delete(format!("k/{n}")));
        assert!(refused(&many).contains("129 changes"));
        let many = (0..=MAX_TXN_STEPS)
            .fold(Txn::new(), |txn, n| txn.expect(format!("k/{n}"), Revision::ABSENT));
        assert!(refused(&many).contains("129 comparisons"));
        assert!(refused(&Txn::new().put("k", vec![0; MAX_VALUE + 1])).contains("bytes for k"));
        let large =
            (0..13).fold(Txn::new(), |txn, n| txn.put(format!("k/{n}"), vec![0; MAX_VALUE]));
        assert!(refused(&large).contains("one transaction"));
        assert!(refused(&Txn::new().put("k", "1").delete("k")).contains("changed twice"));
        for key in ["", "a b", "a\n", "\u{e9}", &"x".repeat(MAX_KEY + 1)] {
            assert!(refused(&Txn::new().delete(key)).contains("key"));
            assert!(refused(&Txn::new().expect(key, Revision(1))).contains("key"));
        }
        let at_the_limit =
            (0..MAX_TXN_STEPS).fold(Txn::new(), |txn, n| txn.put(format!("k/{n}"), "v"));
        at_the_limit.check().unwrap();
        Txn::new().put("k".repeat(MAX_KEY), vec![0; MAX_VALUE]).check().unwrap();
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(super::super::end_of("vm/").as_deref(), Some("vm0"));
        assert_eq!(super::super::end_of("a~"), Some("a\u{7f}".to_owned()));
        assert_eq!(super::super::end_of("a\u{7f}").as_deref(), Some("b"));
        assert_eq!(super::super::end_of(""), None);
    }
}
