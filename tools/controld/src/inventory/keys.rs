//! Which things need a key, and whether it may be destroyed.
//!
//! Owns the records of keys (their ids and states, never bytes) and the answer. Every change that makes a thing need a key expects that
//! key's record as it was read, so that a key that is retired meanwhile stops the change: after [`Inventory::retire`] nothing that this
//! inventory knows needs the key, and nothing will.

use super::records::Record;
use super::{Held, Inventory, InventoryError, KeyId, VERSION, Writing, decode, escape, rooted};
use crate::store::{Revision, StoreError, Txn};
use serde::{Deserialize, Serialize};

/// Most users that a verdict names; more do not help whoever reads it.
const NAMED: usize = 100;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Its id.
    pub id: KeyId,
    /// Whether it may be used.
    pub state: KeyState,
}

/// State of a key in the inventory. `Active` and `Retiring` go to and fro; `Retired` is the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// Things may need it.
    Active,
    /// Nothing new may need it: it is being found out whether something does.
    Retiring,
    /// Nothing needs it, and nothing will: it may be destroyed.
    Retired,
}

/// A thing that needs a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyUse {
    /// `vm`, `disk`, `policy` or `backup`.
    pub kind: String,
    /// Where it is kept below its kind.
    pub place: String,
    /// Its name.
    pub title: String,
}

/// Whether a key may be destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// Nothing that the inventory knows needs it. Copies that nobody listed are not known.
    Unused,
    /// These need it.
    Needed {
        /// The first hundred.
        users: Vec<KeyUse>,
        /// There are more.
        more: bool,
    },
}

impl Inventory {
    /// Things that need a key, at most `limit`, after `after` (the place of the last one, as `KIND/PLACE`); and whether there are more.
    ///
    /// # Errors
    /// [`InventoryError::Store`].
    pub fn users(
        &self,
        id: &KeyId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<KeyUse>, bool), InventoryError> {
        let folder = rooted(&format!("use/{}/", escape(&id.to_string())));
        let after = after.map(|after| format!("{folder}{after}"));
        let page = self.store.scan(&folder, after.as_deref(), limit)?;
        let users = page.entries.iter().filter_map(|entry| {
            let (kind, place) = entry.key.strip_prefix(&folder)?.split_once('/')?;
            let title = String::from_utf8_lossy(&entry.value).into_owned();
            Some(KeyUse { kind: kind.to_owned(), place: place.to_owned(), title })
        });
        Ok((users.collect(), page.more))
    }

    /// Whether a key may be destroyed, as of now. Only [`Inventory::retire`] makes sure that it stays so.
    ///
    /// # Errors
    /// [`InventoryError::Store`].
    pub fn verdict(&self, id: &KeyId) -> Result<Verdict, InventoryError> {
        let (users, more) = self.users(id, None, NAMED)?;
        Ok(if users.is_empty() { Verdict::Unused } else { Verdict::Needed { users, more } })
    }

    /// Sees to it that nothing needs a key and nothing will; then it may be destroyed. Done twice it is done once.
    ///
    /// # Errors
    /// [`InventoryError::Needed`]: the key is as it was. [`InventoryError::Changed`], [`InventoryError::Store`]: try again.
    pub fn retire(&self, id: &KeyId) -> Result<(), InventoryError> {
        let held = self.key(id)?;
        if held.as_ref().is_some_and(|held| held.record.state == KeyState::Retired) {
            return Ok(());
        }
        let revision = held.map_or(Revision::ABSENT, |held| held.revision);
        // From here on nothing new can need it: whoever read the record before fails.
        let revision = self.set_state(id, KeyState::Retiring, revision)?;
        let (users, _) = self.users(id, None, NAMED)?;
        if let Some(first) = users.first() {
            self.set_state(id, KeyState::Active, revision)?;
            let first = format!("{} {}", first.kind, first.title);
            return Err(InventoryError::Needed { id: id.clone(), users: users.len(), first });
        }
        self.set_state(id, KeyState::Retired, revision)?;
        Ok(())
    }

    /// The record of a key; `None` for one that nothing ever needed.
    ///
    /// # Errors
    /// [`InventoryError`].
    pub fn key(&self, id: &KeyId) -> Result<Option<Held<KeyRecord>>, InventoryError> {
        let found = self.store.get(&key_of(id))?;
        found.as_ref().map(decode).transpose()
    }

    fn set_state(
        &self,
        id: &KeyId,
        state: KeyState,
        held: Revision,
    ) -> Result<Revision, InventoryError> {
        let txn = Txn::new().expect(key_of(id), held).put(key_of(id), text(id, state)?);
        match self.store.commit(&txn) {
            Err(StoreError::Conflict { .. }) => {
                Err(InventoryError::Changed { what: format!("the key {id}") })
            }
            outcome => Ok(outcome?),
        }
    }

    /// Makes a transaction fail when a key that the record begins to need is retired meanwhile.
    pub(super) fn expect_keys<R: Record>(
        &self,
        mut txn: Txn,
        new: &R,
        old: Option<&Held<R>>,
    ) -> Result<Txn, InventoryError> {
        let had = old.map(|old| old.record.key_ids()).unwrap_or_default();
        let mut begun: Vec<_> = new.key_ids().iter().filter(|id| !had.contains(id)).collect();
        begun.sort();
        begun.dedup();
        for id in begun {
            match self.key(id)? {
                Some(held) if held.record.state == KeyState::Active => {
                    txn = txn.expect(key_of(id), held.revision);
                }
                Some(_) => return Err(InventoryError::Retired { id: id.clone() }),
                None => {
                    let text = text(id, KeyState::Active)?;
                    txn = txn.expect(key_of(id), Revision::ABSENT).put(key_of(id), text);
                }
            }
        }
        Ok(txn)
    }
}

fn key_of(id: &KeyId) -> String {
    rooted(&format!("key/{}", escape(&id.to_string())))
}

fn text(id: &KeyId, state: KeyState) -> Result<Vec<u8>, InventoryError> {
    let record = KeyRecord { id: id.clone(), state };
    serde_json::to_vec(&Writing { v: VERSION, record: &record })
        .map_err(|e| InventoryError::Damaged { key: key_of(id), reason: e.to_string() })
}
