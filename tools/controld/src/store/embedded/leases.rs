//! The leases of an embedded store.
//!
//! Owns who has which keys and until when; reads no clock, the time comes in. Must not know the file.

use crate::store::{Change, Lease, Txn};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The leases that have not ended.
#[derive(Debug, Default)]
pub(super) struct Leases {
    last: i64,
    granted: BTreeMap<Lease, Granted>,
}

#[derive(Debug)]
struct Granted {
    life: Duration,
    end: Instant,
    keys: BTreeSet<String>,
}

impl Leases {
    pub(super) fn grant(&mut self, life: Duration, now: Instant) -> Lease {
        self.last += 1;
        let lease = Lease(self.last);
        self.granted.insert(lease, Granted { life, end: now + life, keys: BTreeSet::new() });
        lease
    }

    /// Whether it was still there.
    pub(super) fn keep(&mut self, lease: Lease, now: Instant) -> bool {
        let granted = self.granted.get_mut(&lease);
        granted.map(|granted| granted.end = now + granted.life).is_some()
    }

    /// One that has ended by now.
    pub(super) fn due(&self, now: Instant) -> Option<Lease> {
        self.granted.iter().find(|(_, granted)| granted.end <= now).map(|(lease, _)| *lease)
    }

    /// When the next one ends.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.granted.values().map(|granted| granted.end).min()
    }

    pub(super) fn keys(&self, lease: Lease) -> Vec<String> {
        self.granted.get(&lease).into_iter().flat_map(|granted| granted.keys.clone()).collect()
    }

    pub(super) fn forget(&mut self, lease: Lease) {
        self.granted.remove(&lease);
    }

    /// A lease that the transaction names and that is not there.
    pub(super) fn first_unknown(&self, txn: &Txn) -> Option<Lease> {
        let named = txn.changes().iter().filter_map(|change| match change {
            Change::Put { lease, .. } => *lease,
            Change::Delete { .. } => None,
        });
        named.into_iter().find(|lease| !self.granted.contains_key(lease))
    }

    /// Notes whose the keys of a transaction are now: a key is under the lease of its last write, or under none.
    pub(super) fn follow(&mut self, txn: &Txn) {
        for change in txn.changes() {
            for granted in self.granted.values_mut() {
                granted.keys.remove(change.key());
            }
            if let Change::Put { key, lease: Some(lease), .. } = change
                && let Some(granted) = self.granted.get_mut(lease)
            {
                granted.keys.insert(key.clone());
            }
        }
    }
}
