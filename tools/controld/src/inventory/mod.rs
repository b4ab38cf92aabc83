//! The inventory: clusters, hosts, datastores, VMs, disks, policies, providers, listed backups, and which key id each of them needs.
//!
//! Owns records and the index by key id, and keeps them together: one transaction writes both. Must not know who asks nor why. Flow of a
//! change: read the record with its revision, [`Inventory::put`] it back with that revision; whoever was second gets
//! [`InventoryError::Changed`].
//!
//! What must not go on while something is removed is stopped by a key `leaving/...`: nothing new can be put below a cluster or VM from then
//! on, so that what is found below it afterwards is all there will ever be.

mod check;
mod error;
mod keys;
mod names;
mod records;

pub use check::Disagreement;
pub use crypto::KeyId;
pub use error::InventoryError;
pub use keys::{KeyRecord, KeyState, KeyUse, Verdict};
pub use names::{Name, NameError, escape};
pub use records::{
    Backup, Cluster, DETACHED, Datastore, Disk, Host, MAX_KEY_IDS, Parent, Policy, Provider,
    Record, Vm,
};

use crate::store::{Entry, Revision, Store, StoreError, Txn};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// Version of the records.
const VERSION: u32 = 1;

/// The folder of the inventory in the store.
const ROOT: &str = "inventory/";

/// How often a change is tried when what it depends on, and not the thing itself, changed meanwhile.
const TRIES: usize = 8;

/// The inventory, in a store.
#[derive(Clone)]
pub struct Inventory {
    store: Arc<dyn Store>,
}

/// A record, and when it was written last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held<R> {
    /// The record.
    pub record: R,
    /// Its revision, which a change must name.
    pub revision: Revision,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<R> {
    /// The records.
    pub records: Vec<Held<R>>,
    /// From where to go on, when there are more.
    pub next: Option<String>,
}

#[derive(Serialize)]
struct Writing<'a, R> {
    v: u32,
    record: &'a R,
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Deserialize)]
struct Reading<R> {
    record: R,
}

impl Inventory {
    /// The inventory in this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The thing at a place, see [`Record::place`].
    ///
    /// # Errors
    /// [`InventoryError::NotFound`], [`InventoryError::Damaged`], [`InventoryError::Unsupported`], [`InventoryError::Store`].
    pub fn get<R: Record>(&self, place: &str) -> Result<Held<R>, InventoryError> {
        let found = self.store.get(&record_key::<R>(place))?;
        let entry = found.ok_or_else(|| missing::<R>(place))?;
        decode(&entry)
    }

    /// The VM of an identity.
    ///
    /// # Errors
    /// As [`Inventory::get`].
    pub fn vm(&self, id: Uuid) -> Result<Held<Vm>, InventoryError> {
        self.by_identity(&format!("vm-id/{id}"), &id.to_string())
    }

    /// The disk of an identity.
    ///
    /// # Errors
    /// As [`Inventory::get`].
    pub fn disk(&self, id: Uuid) -> Result<Held<Disk>, InventoryError> {
        self.by_identity(&format!("disk-id/{id}"), &id.to_string())
    }

    fn by_identity<R: Record>(&self, key: &str, title: &str) -> Result<Held<R>, InventoryError> {
        // It may move between the two reads.
        for _ in 0..TRIES {
            let entry = self.store.get(&rooted(key))?.ok_or_else(|| missing::<R>(title))?;
            match self.get::<R>(&String::from_utf8_lossy(&entry.value)) {
                Err(InventoryError::NotFound { .. }) => {}
                outcome => return outcome,
            }
        }
        Err(InventoryError::Changed { what: format!("{} {title}", R::KIND) })
    }

    /// Things of a kind whose places begin with `below` (such as `CLUSTER/`) and come after `after`, at most `limit` of them.
    ///
    /// # Errors
    /// As [`Inventory::get`], except for what is not there.
    pub fn list<R: Record>(
        &self,
        below: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listed<R>, InventoryError> {
        let after = after.map(record_key::<R>);
        let page = self.store.scan(&record_key::<R>(below), after.as_deref(), limit)?;
        let records: Result<Vec<_>, _> = page.entries.iter().map(decode).collect();
        let last = page.entries.last().filter(|_| page.more);
        let next = last.map(|entry| entry.key[record_key::<R>("").len()..].to_owned());
        Ok(Listed { records: records?, next })
    }

    /// Writes a new thing (`held` is `None`), or one that was read at the revision `held`.
    ///
    /// # Errors
    /// [`InventoryError`]; nothing was changed, except after [`StoreError::Uncertain`].
    pub fn put<R: Record>(
        &self,
        record: &R,
        held: Option<&Held<R>>,
    ) -> Result<Revision, InventoryError> {
        let count = record.key_ids().len();
        if count > MAX_KEY_IDS {
            return Err(InventoryError::TooManyKeys { what: named(record), count });
        }
        for _ in 0..TRIES {
            let txn = self.change(Some(record), held)?;
            match self.store.commit(&txn) {
                Err(StoreError::Conflict { key }) => self.explain(record, held, &key)?,
                outcome => return Ok(outcome?),
            }
        }
        Err(InventoryError::Changed { what: named(record) })
    }

    /// Removes a thing that was read. A VM goes with its disks; a cluster must be empty.
    ///
    /// # Errors
    /// [`InventoryError`]. What was begun is finished by the next try.
    pub fn remove<R: Record>(&self, held: &Held<R>) -> Result<(), InventoryError> {
        let mut txn = Txn::new();
        if let Some(parent) = held.record.as_parent() {
            let mark = self.mark_leaving(&parent, held)?;
            self.empty(&parent)?;
            // Somebody else may have found it full meanwhile, and let it stay.
            txn = txn.expect(rooted(&parent.leaving()), mark).delete(rooted(&parent.leaving()));
        }
        let txn = self.change_in(txn, None, Some(held))?;
        match self.store.commit(&txn) {
            Err(StoreError::Conflict { .. }) => {
                Err(InventoryError::Changed { what: named(&held.record) })
            }
            outcome => outcome.map(|_| ()).map_err(Into::into),
        }
    }

    fn mark_leaving<R: Record>(
        &self,
        parent: &Parent,
        held: &Held<R>,
    ) -> Result<Revision, InventoryError> {
        let there = Txn::new().expect(rooted_key(&held.record), held.revision);
        match self.store.commit(&there.put(rooted(&parent.leaving()), "")) {
            Err(StoreError::Conflict { .. }) => {
                Err(InventoryError::Changed { what: named(&held.record) })
            }
            outcome => Ok(outcome?),
        }
    }

    /// Sees that nothing belongs to it any more.
    fn empty(&self, parent: &Parent) -> Result<(), InventoryError> {
        match parent {
            Parent::Vm(id) => loop {
                let disks = self.list::<Disk>(&format!("{id}/"), None, usize::MAX)?;
                for disk in &disks.records {
                    match self.remove(disk) {
                        Err(InventoryError::Changed { .. }) => {}
                        outcome => outcome?,
                    }
                }
                if disks.records.is_empty() {
                    return Ok(());
                }
            },
            Parent::Cluster(name) => {
                for below in ["cluster-host", "datastore", "vm"] {
                    let page = self.store.scan(&rooted(&format!("{below}/{name}/")), None, 1)?;
                    if let Some(first) = page.entries.first() {
                        // It stays, so new things may come again.
                        self.store.commit(&Txn::new().delete(rooted(&parent.leaving())))?;
                        let first = first.key[ROOT.len()..].to_owned();
                        return Err(InventoryError::NotEmpty { what: parent.title(), first });
                    }
                }
                Ok(())
            }
        }
    }

    fn change<R: Record>(
        &self,
        new: Option<&R>,
        old: Option<&Held<R>>,
    ) -> Result<Txn, InventoryError> {
        self.change_in(Txn::new(), new, old)
    }

    /// The transaction that makes `new` of `old`, the record with all that points to it.
    fn change_in<R: Record>(
        &self,
        mut txn: Txn,
        new: Option<&R>,
        old: Option<&Held<R>>,
    ) -> Result<Txn, InventoryError> {
        let (old_keys, new_keys) = (old.map(|old| entries(&old.record)), new.map(entries));
        let (old_keys, new_keys) =
            (old_keys.transpose()?.unwrap_or_default(), new_keys.transpose()?.unwrap_or_default());
        if let Some(old) = old {
            txn = txn.expect(rooted_key(&old.record), old.revision);
        }
        for key in old_keys.keys().filter(|key| !new_keys.contains_key(*key)) {
            txn = txn.delete(key.clone());
        }
        let own = old.map(|old| rooted_key(&old.record));
        for (key, entry) in &new_keys {
            if old_keys.get(key).is_some_and(|was| was.value == entry.value)
                && Some(key) != own.as_ref()
            {
                continue;
            }
            if entry.is_unique && !old_keys.contains_key(key) {
                txn = txn.expect(key.clone(), Revision::ABSENT);
            }
            txn = txn.put(key.clone(), entry.value.clone());
        }
        if let Some(new) = new {
            txn = self.expect_parents(txn, new, old)?;
            txn = self.expect_keys(txn, new, old)?;
        }
        Ok(txn)
    }

    fn expect_parents<R: Record>(
        &self,
        mut txn: Txn,
        new: &R,
        old: Option<&Held<R>>,
    ) -> Result<Txn, InventoryError> {
        let had = old.map(|old| old.record.parents()).unwrap_or_default();
        if let Some(own) = new.as_parent() {
            txn = txn.expect(rooted(&own.leaving()), Revision::ABSENT);
        }
        for parent in new.parents().iter().filter(|parent| !had.contains(parent)) {
            let sign = rooted(&parent.sign());
            let found = self.store.get(&sign)?;
            let found = found.ok_or_else(|| InventoryError::NotFound { what: parent.title() })?;
            txn = txn.expect(sign, found.revision);
            txn = txn.expect(rooted(&parent.leaving()), Revision::ABSENT);
        }
        Ok(txn)
    }

    /// Says which fault a conflict is; `Ok` when it is none and the change may be tried again.
    fn explain<R: Record>(
        &self,
        record: &R,
        held: Option<&Held<R>>,
        key: &str,
    ) -> Result<(), InventoryError> {
        if let Some(place) = key.strip_prefix(&rooted("leaving/")) {
            return Err(InventoryError::Leaving { what: place.to_owned() });
        }
        if held.is_some_and(|held| rooted_key(&held.record) == key) {
            return Err(InventoryError::Changed { what: named(record) });
        }
        let unique = record.unique();
        let taken = rooted_key(record) == key || unique.iter().any(|(own, _)| rooted(own) == key);
        if taken {
            return Err(InventoryError::Exists { what: key[ROOT.len()..].to_owned() });
        }
        Ok(())
    }
}

/// What a record puts into the store under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Indexed {
    value: Vec<u8>,
    is_unique: bool,
}

/// Everything that a record puts into the store.
fn entries<R: Record>(record: &R) -> Result<BTreeMap<String, Indexed>, InventoryError> {
    let text = serde_json::to_vec(&Writing { v: VERSION, record });
    let key = rooted_key(record);
    let text =
        text.map_err(|e| InventoryError::Damaged { key: key.clone(), reason: e.to_string() })?;
    let place = record.place();
    let mut all = BTreeMap::from([(key, Indexed { value: text, is_unique: true })]);
    for (key, value) in record.unique() {
        all.insert(rooted(&key), Indexed { value: value.into_bytes(), is_unique: true });
    }
    for key in record.also() {
        all.insert(rooted(&key), Indexed { value: place.clone().into_bytes(), is_unique: false });
    }
    for id in record.key_ids() {
        let key = rooted(&records::use_key(id, R::KIND, &place));
        let value = record.title().into_bytes();
        all.insert(key, Indexed { value, is_unique: false });
    }
    Ok(all)
}

fn decode<R: DeserializeOwned>(entry: &Entry) -> Result<Held<R>, InventoryError> {
    let damaged = |e: serde_json::Error| InventoryError::Damaged {
        key: entry.key.clone(),
        reason: e.to_string(),
    };
    let version: Versioned = serde_json::from_slice(&entry.value).map_err(damaged)?;
    if version.v != VERSION {
        return Err(InventoryError::Unsupported { key: entry.key.clone(), found: version.v });
    }
    let reading: Reading<R> = serde_json::from_slice(&entry.value).map_err(damaged)?;
    Ok(Held { record: reading.record, revision: entry.revision })
}

fn rooted(key: &str) -> String {
    format!("{ROOT}{key}")
}

fn record_key<R: Record>(place: &str) -> String {
    format!("{ROOT}{}/{place}", R::KIND)
}

fn rooted_key<R: Record>(record: &R) -> String {
    record_key::<R>(&record.place())
}

fn named<R: Record>(record: &R) -> String {
    format!("{} {}", R::KIND, record.title())
}

fn missing<R: Record>(place: &str) -> InventoryError {
    InventoryError::NotFound { what: format!("{} {place}", R::KIND) }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "agreement_tests.rs"]
mod agreement;
