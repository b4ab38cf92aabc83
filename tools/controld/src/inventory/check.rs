//! Whether the records and what points to them agree.
//!
//! Owns the comparison: it reads everything, makes what should be there from the records alone, and tells each difference. Used after a
//! restore, and by the tests after every crash.

use super::{
    Backup, Cluster, Datastore, Disk, Host, Indexed, Inventory, InventoryError, Policy, Provider,
    ROOT, Record, Vm, entries, rooted,
};
use std::collections::BTreeMap;

/// A key that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disagreement {
    /// The key, below the folder of the inventory.
    pub key: String,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Folders that no record asks for: states of keys, and removals that were begun.
const FREE: [&str; 2] = ["key/", "leaving/"];

impl Inventory {
    /// Reads the whole inventory and tells what does not agree. Changes that go on meanwhile may show as disagreements.
    ///
    /// # Errors
    /// [`InventoryError`].
    pub fn check(&self) -> Result<Vec<Disagreement>, InventoryError> {
        let mut wanted = BTreeMap::new();
        self.want::<Cluster>(&mut wanted)?;
        self.want::<Host>(&mut wanted)?;
        self.want::<Datastore>(&mut wanted)?;
        self.want::<Vm>(&mut wanted)?;
        self.want::<Disk>(&mut wanted)?;
        self.want::<Policy>(&mut wanted)?;
        self.want::<Provider>(&mut wanted)?;
        self.want::<Backup>(&mut wanted)?;
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.scan(ROOT, after.as_deref(), usize::MAX)?;
            for entry in &page.entries {
                let wanted = wanted.remove(&entry.key);
                let what = match wanted {
                    None if FREE.iter().any(|free| entry.key.starts_with(&rooted(free))) => {
                        continue;
                    }
                    None => "leads to nothing",
                    Some(wanted) if wanted.value != entry.value => {
                        "has another value than its record"
                    }
                    Some(_) => continue,
                };
                found.push(Disagreement { key: entry.key[ROOT.len()..].to_owned(), what });
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more {
                break;
            }
        }
        let missing = wanted.into_keys();
        found.extend(
            missing
                .map(|key| Disagreement { key: key[ROOT.len()..].to_owned(), what: "is missing" }),
        );
        Ok(found)
    }

    /// Adds what the records of a kind want, and that their parents are there.
    fn want<R: Record>(
        &self,
        wanted: &mut BTreeMap<String, Indexed>,
    ) -> Result<(), InventoryError> {
        let mut after = None;
        loop {
            let page = self.list::<R>("", after.as_deref(), usize::MAX)?;
            for held in &page.records {
                let mut own = entries(&held.record)?;
                wanted.append(&mut own);
                for parent in held.record.parents() {
                    let sign = rooted(&parent.sign());
                    if self.store.get(&sign)?.is_none() {
                        let nobody = Indexed { value: Vec::new(), is_unique: false };
                        wanted.insert(sign, nobody);
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}
