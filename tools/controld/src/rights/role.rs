//! Roles: named sets of privileges.
//!
//! Owns the four that are built in and cannot be changed, and custom ones in the store. Must not know who has which.

use super::{Privilege, Rights, RightsError};
use crate::inventory::Name;
use crate::store::{Revision, StoreError, Txn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Names of the built-in roles.
pub const BUILT_IN: [&str; 4] =
    ["administrator", "no-cryptography-administrator", "operator", "auditor"];

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Its name.
    pub name: Name,
    /// What it allows.
    pub privileges: BTreeSet<Privilege>,
}

/// What an operator does in a day: run, move, encrypt and unlock VMs; nothing that decrypts, destroys a key or changes rights.
const OPERATOR: [Privilege; 11] = [
    Privilege::Read,
    Privilege::ManageInventory,
    Privilege::ReadKeyServersInfo,
    Privilege::Access,
    Privilege::AddDisk,
    Privilege::Clone,
    Privilege::Encrypt,
    Privilege::EncryptNew,
    Privilege::Migrate,
    Privilege::Recrypt,
    Privilege::RegisterVm,
];

const AUDITOR: [Privilege; 3] =
    [Privilege::Read, Privilege::ReadKeyServersInfo, Privilege::ReadAudit];

/// The privileges of a built-in role.
fn built_in(name: &str) -> Option<BTreeSet<Privilege>> {
    let all = Privilege::ALL.iter().copied();
    Some(match name {
        "administrator" => all.collect(),
        // As vSphere's role of that name: no crypto right, and none that could give one.
        "no-cryptography-administrator" => all
            .filter(|p| !p.is_cryptographer())
            .filter(|p| !matches!(p, Privilege::ManageRights | Privilege::Approve))
            .collect(),
        "operator" => OPERATOR.into(),
        "auditor" => AUDITOR.into(),
        _ => return None,
    })
}

impl Rights {
    /// A role; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`RightsError`].
    pub fn role(&self, name: &Name) -> Result<Option<Role>, RightsError> {
        if let Some(privileges) = built_in(name.as_str()) {
            return Ok(Some(Role { name: name.clone(), privileges }));
        }
        self.load(&key(name)).map(|found| found.map(|(role, _)| role))
    }

    /// All roles, the built-in ones first.
    ///
    /// # Errors
    /// [`RightsError`].
    pub fn roles(&self) -> Result<Vec<Role>, RightsError> {
        let mut roles = Vec::new();
        for name in BUILT_IN {
            if let (Ok(name), Some(privileges)) = (name.parse(), built_in(name)) {
                roles.push(Role { name, privileges });
            }
        }
        roles.extend(self.load_all::<Role>("role/")?);
        Ok(roles)
    }

    /// Makes or replaces a custom role.
    ///
    /// # Errors
    /// [`RightsError::Fixed`] for a built-in one.
    pub fn put_role(&self, role: &Role) -> Result<(), RightsError> {
        fixed(&role.name)?;
        self.save(&key(&role.name), role, None)
    }

    /// Removes a custom role; who had it has less from now on.
    ///
    /// # Errors
    /// [`RightsError::Fixed`] for a built-in one, [`RightsError::NotFound`].
    pub fn remove_role(&self, name: &Name) -> Result<(), RightsError> {
        fixed(name)?;
        self.discard::<Role>(&key(name), &format!("role {name}"))
    }
}

fn fixed(name: &Name) -> Result<(), RightsError> {
    if BUILT_IN.contains(&name.as_str()) {
        let what = format!("the role {name} is built in; make another one of another name");
        return Err(RightsError::Fixed(what));
    }
    Ok(())
}

fn key(name: &Name) -> String {
    format!("role/{name}")
}

/// How things of this module are kept: JSON below `rights/`.
impl Rights {
    pub(super) fn load<T: serde::de::DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<(T, Revision)>, RightsError> {
        let Some(entry) = self.store.get(&rooted(key))? else { return Ok(None) };
        let read = serde_json::from_slice(&entry.value);
        let thing = read.map_err(|e| damaged(&entry.key, &e))?;
        Ok(Some((thing, entry.revision)))
    }

    pub(super) fn load_all<T: serde::de::DeserializeOwned>(
        &self,
        folder: &str,
    ) -> Result<Vec<T>, RightsError> {
        let (folder, mut all, mut after) = (rooted(folder), Vec::new(), None::<String>);
        loop {
            let page = self.store.scan(&folder, after.as_deref(), usize::MAX)?;
            for entry in &page.entries {
                let read = serde_json::from_slice(&entry.value);
                all.push(read.map_err(|e| damaged(&entry.key, &e))?);
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more {
                return Ok(all);
            }
        }
    }

    /// Writes a thing; with a revision only if it is still the one that was read.
    pub(super) fn save<T: Serialize>(
        &self,
        key: &str,
        thing: &T,
        expected: Option<Revision>,
    ) -> Result<(), RightsError> {
        let key = rooted(key);
        let text = serde_json::to_vec(thing).map_err(|e| damaged(&key, &e))?;
        let mut txn = Txn::new();
        if let Some(revision) = expected {
            txn = txn.expect(key.clone(), revision);
        }
        match self.store.commit(&txn.put(key.clone(), text)) {
            Err(StoreError::Conflict { .. }) if expected == Some(Revision::ABSENT) => {
                Err(RightsError::Exists(key))
            }
            outcome => outcome.map(|_| ()).map_err(Into::into),
        }
    }

    pub(super) fn discard<T: serde::de::DeserializeOwned>(
        &self,
        key: &str,
        what: &str,
    ) -> Result<(), RightsError> {
        let found = self.load::<T>(key)?;
        let (_, revision) = found.ok_or_else(|| RightsError::NotFound(what.to_owned()))?;
        let key = rooted(key);
        self.store.commit(&Txn::new().expect(key.clone(), revision).delete(key))?;
        Ok(())
    }
}

fn rooted(key: &str) -> String {
    format!("rights/{key}")
}

fn damaged(key: &str, e: &serde_json::Error) -> RightsError {
    RightsError::Damaged { key: key.to_owned(), reason: e.to_string() }
}
