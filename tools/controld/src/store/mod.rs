//! The store: versioned keys with values, changed by transactions that compare and swap.
//!
//! Owns the trait, its words and its limits; must not know what is kept in it. Two backends stand behind it:
//! [`EmbeddedStore`] in a file of one controld, and [`EtcdStore`] in an etcd cluster that several share. Flow of a change:
//! read an [`Entry`], build a [`Txn`] that expects its [`Revision`], commit, and on [`StoreError::Conflict`] start over.
//!
//! Every call may wait for a disk or for the network; none may be made on a thread that serves a runtime.

mod election;
mod embedded;
mod etcd;
mod lease;
mod txn;

pub use election::{Leadership, Standing, campaign, leader, watch_key};
pub use embedded::EmbeddedStore;
pub use etcd::{EtcdSettings, EtcdStore, EtcdTls};
pub use lease::Session;
pub use txn::{Change, Compare, Txn};

use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Longest key in bytes: a key id or a name, escaped, with the folders before it.
pub const MAX_KEY: usize = 1024;

/// Largest value in bytes: a record has names, ids and times. etcd takes 1.5 MiB for a whole transaction.
pub const MAX_VALUE: usize = 64 * 1024;

/// Largest transaction in bytes, keys and values together; half of what etcd takes, for base64 makes it a third longer.
pub const MAX_TXN_BYTES: usize = 768 * 1024;

/// Most comparisons, and most changes, of one transaction: etcd's own default (`--max-txn-ops`).
pub const MAX_TXN_STEPS: usize = 128;

/// Most entries of one page of a scan, so that a page is some megabytes at most.
pub const MAX_PAGE: usize = 1000;

/// Bounds of the life of a lease that is not kept alive. etcd gives none that is shorter than its election takes.
pub const LEASE_LIFE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(2)..=Duration::from_secs(3600);

/// The number of a commit; the revision of a key is that of the commit that wrote it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// That of a key that is not there.
    pub const ABSENT: Self = Self(0);
}

/// A lease: keys that are put under it go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease(pub i64);

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// When it was written last.
    pub revision: Revision,
}

/// A part of the keys below a prefix, in ascending order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// There are more after the last one.
    pub more: bool,
    /// The state of the store that the page shows; a watch from here misses nothing.
    pub revision: Revision,
}

/// A key was written or deleted. Its value is not told: who cares reads what is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: String,
    /// By which commit.
    pub revision: Revision,
    /// Written, or deleted.
    pub kind: EventKind,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted, by somebody or with its lease.
    Deleted,
}

/// Keys, values, transactions, watches and leases. Reads see every commit that was acknowledged before they began, also those
/// of other controlds.
pub trait Store: Send + Sync {
    /// The entry of a key.
    ///
    /// # Errors
    /// [`StoreError`], not for a key that is absent.
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// At most `limit` entries (and [`MAX_PAGE`]) whose keys begin with `prefix` and, where given, come after `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Does all changes if all comparisons hold, or nothing; durable when it returns. The result is the revision of what was put.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a comparison did not hold; [`StoreError::Uncertain`] when nobody can tell whether it was
    /// done: read again. In every other case nothing was done.
    fn commit(&self, txn: &Txn) -> Result<Revision, StoreError>;

    /// Tells of every change below `prefix` that comes after a revision.
    ///
    /// # Errors
    /// [`StoreError`]; that a revision is too old is told by the watch.
    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// A lease that ends after `life` (within [`LEASE_LIFE`], whole seconds) unless it is kept alive.
    ///
    /// # Errors
    /// [`StoreError`].
    fn grant(&self, life: Duration) -> Result<Lease, StoreError>;

    /// Begins the life of a lease anew.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when it has ended, with all its keys.
    fn keep_alive(&self, lease: Lease) -> Result<(), StoreError>;

    /// Ends a lease and deletes its keys; one that has ended already is fine.
    ///
    /// # Errors
    /// [`StoreError`].
    fn revoke(&self, lease: Lease) -> Result<(), StoreError>;
}

/// A watch in progress.
pub trait Watch: Send {
    /// Waits for at most `wait` for changes; none is an answer too. Events come in the order of their revisions, each once.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when changes were missed: scan again, and watch from there.
    fn next(&mut self, wait: Duration) -> Result<Vec<Event>, StoreError>;
}

/// Why the store did not do it.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Somebody else changed the key first.
    #[error("{key} was changed by somebody else meanwhile; read it again and decide anew")]
    Conflict {
        /// The first key whose comparison did not hold.
        key: String,
    },
    /// Nobody can tell whether a transaction was done.
    #[error("whether the change was made is not known: {reason}; read again before you repeat it")]
    Uncertain {
        /// What happened.
        reason: String,
    },
    /// The store cannot be reached, or has no majority.
    #[error("the store does not answer: {reason}")]
    Unavailable {
        /// What happened, at which address.
        reason: String,
    },
    /// The store refuses to talk to this controld.
    #[error("the store refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// A watch began too long ago.
    #[error("changes after revision {} are not kept any more; scan again, and watch from there", after.0)]
    Compacted {
        /// From where the watch was to begin.
        after: Revision,
    },
    /// A lease has ended.
    #[error("the lease {} has ended, and its keys with it", lease.0)]
    LeaseLost {
        /// The lease.
        lease: Lease,
    },
    /// A key, value or transaction is beyond a limit; a fault of the caller.
    #[error("the store does not take it: {0}")]
    Limit(String),
    /// Another process has the file.
    #[error("{} is in use by another process; stop the other controld, or set another state_dir", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// What is stored cannot be read.
    #[error("{}: {reason}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer release wrote it.
    #[error("{} has version {found}, this release knows {known}; use the release that wrote it, or a newer one", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: u64,
        /// The newest version known here.
        known: u64,
    },
    /// A file operation failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl StoreError {
    /// A comparison did not hold: reading again and deciding anew may help.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

/// The first key after all that begin with `prefix`; `None` when there is none. Keys are ASCII, see [`Txn`].
fn end_of(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The successor of an ASCII character is a character; 0x7F is none that a key has.
        if let Some(next) = u8::try_from(last).ok().filter(|last| *last < 0x7F) {
            end.push(char::from(next + 1));
            return Some(end);
        }
    }
    None
}
