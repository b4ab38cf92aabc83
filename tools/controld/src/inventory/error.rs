//! Why the inventory did not do it.
//!
//! Owns the errors; must not know how they come about.

use super::{KeyId, MAX_KEY_IDS, VERSION};
use crate::store::StoreError;
use thiserror::Error;

/// Why the inventory did not do it.
#[derive(Debug, Error)]
pub enum InventoryError {
    /// There is no such thing.
    #[error("there is no {what}")]
    NotFound {
        /// The thing.
        what: String,
    },
    /// Name or identity is taken.
    #[error("{what} is there already")]
    Exists {
        /// The thing, or the key that it would share.
        what: String,
    },
    /// Somebody else changed it first.
    #[error("{what} was changed by somebody else meanwhile; look at it again and repeat")]
    Changed {
        /// The thing.
        what: String,
    },
    /// It, or what it belongs to, is being removed.
    #[error("{what} is being removed")]
    Leaving {
        /// The thing.
        what: String,
    },
    /// Others still belong to it.
    #[error("{what} is not empty: {first} belongs to it; remove that first")]
    NotEmpty {
        /// The thing.
        what: String,
        /// One of the others.
        first: String,
    },
    /// A key is, or will be, destroyed.
    #[error("the key {id} was retired; take another key")]
    Retired {
        /// The key.
        id: KeyId,
    },
    /// A key is needed still.
    #[error("the key {id} is needed by {users} or more things, such as {first}")]
    Needed {
        /// The key.
        id: KeyId,
        /// How many were counted.
        users: usize,
        /// One of them.
        first: String,
    },
    /// A record has too much in it.
    #[error("{what} has {count} key ids; the limit is {MAX_KEY_IDS}")]
    TooManyKeys {
        /// The thing.
        what: String,
        /// How many.
        count: usize,
    },
    /// A record in the store is none.
    #[error("the record {key} cannot be read: {reason}; restore the store from a backup")]
    Damaged {
        /// The key in the store.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A newer release wrote it.
    #[error(
        "the record {key} has version {found}, this release knows {VERSION}; use a newer release"
    )]
    Unsupported {
        /// The key in the store.
        key: String,
        /// Its version.
        found: u32,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}
