//! The end of a key: taken back, and destroyed at its provider, once nothing that this host can see is encrypted by it.
//!
//! Owns the look through the datastores. It does not ask the inventory: a copy of a VM folder, a folder that is damaged or was never
//! registered need their key as well. It must not know providers beyond their trait. What other hosts have on datastores of
//! their own is not seen; they are warned by the state of the key, so a key is taken back first and destroyed later.

use crate::datastore::Datastore;
use crate::fault::Fault;
use crate::host::Host;
use crate::keys::said_info;
use cryptfs::folder::DESCRIPTOR_SUFFIX;
use crypto::KeyId;
use hostd_api::error::ErrorCode;
use hostd_api::kms::{DestroyKey, EndedKey, RevokeKey};
use hostd_api::types::KeyringState;
use kms_client::KeyProvider;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Deepest folder of a datastore that is looked into; VM folders lie at its top, or a few below it.
const MAX_DEPTH: usize = 32;

/// Most names that are looked at: a datastore has thousands of VMs, and a handful of names in each.
const MAX_NAMES: usize = 2_000_000;

/// How much of a safe or descriptor is searched. Those that are larger are refused by their reader.
const MAX_READ: u64 = 1 << 20;

/// Most users that are named; one is enough to refuse.
const MAX_USERS: usize = 16;

/// What was looked at, and what was found.
#[derive(Default)]
struct Looked {
    datastores: Vec<String>,
    files: u64,
    names: usize,
    users: Vec<String>,
}

impl Host {
    /// `POST /v1/keys/revoke`.
    ///
    /// # Errors
    /// `in-use` with what uses the key; `storage` when a datastore cannot be looked at; the fault of the provider.
    pub fn revoke_key(self: &Arc<Self>, request: &RevokeKey) -> Result<EndedKey, Fault> {
        let key = parse(&request.key)?;
        let provider = self.provider_of(&key)?;
        let looked = self.unused(&key)?;
        if matches!(self.keyring.state(&key), KeyringState::Present | KeyringState::Fetching) {
            return Err(in_use(&key, "a verb that runs now", &looked));
        }
        let why = request.why.as_deref().unwrap_or("no VM uses it any more");
        let said = provider.revoke(&key, request.compromised, why)?;
        Ok(ended(&key, said, looked))
    }

    /// `POST /v1/keys/destroy`.
    ///
    /// # Errors
    /// Those of [`Host::revoke_key`]; `denied` for a key that was not taken back.
    pub fn destroy_key(self: &Arc<Self>, request: &DestroyKey) -> Result<EndedKey, Fault> {
        let key = parse(&request.key)?;
        let provider = self.provider_of(&key)?;
        let looked = self.unused(&key)?;
        // From here on nobody here can take it up.
        if let Err(users) = self.keyring.evict(&key, false) {
            return Err(in_use(&key, &users.join(", "), &looked));
        }
        match provider.destroy(&key) {
            Ok(said) => Ok(ended(&key, said, looked)),
            Err(fault) => {
                self.keyring.readmit(&key);
                Err(fault.into())
            }
        }
    }

    fn provider_of(&self, key: &KeyId) -> Result<Arc<dyn KeyProvider>, Fault> {
        let provider = self.keyring.providers().iter().find(|p| p.name() == key.provider());
        provider.cloned().ok_or_else(|| {
            Fault::refused(
                ErrorCode::NotFound,
                format!("there is no open key provider {}", key.provider()),
                "see `coffer key status`",
            )
        })
    }

    /// Looks through all datastores for users of a key.
    fn unused(self: &Arc<Self>, key: &KeyId) -> Result<Looked, Fault> {
        self.refresh_datastores();
        let mut looked = Looked::default();
        for store in &self.datastores {
            let _pass = store.admit()?;
            store.readable()?;
            looked.look(store, key)?;
            looked.datastores.push(store.name.clone());
        }
        if looked.users.is_empty() {
            return Ok(looked);
        }
        Err(in_use(key, &looked.users.join(", "), &looked))
    }
}

impl Looked {
    /// Looks at every safe and descriptor of a datastore, wherever it lies.
    fn look(&mut self, store: &Datastore, key: &KeyId) -> Result<(), Fault> {
        let mut left = vec![(store.path.clone(), 0)];
        while let Some((folder, depth)) = left.pop() {
            let names = self.list(&folder)?;
            // What is in the home of a VM is ciphertext, and may be millions of files.
            let is_vm = names.iter().any(|(name, is_folder)| !is_folder && name == "vm.safe");
            for (name, is_folder) in names {
                let path = folder.join(&name);
                if is_folder && !(is_vm && name == "home") {
                    if depth >= MAX_DEPTH {
                        return Err(too_much(&path));
                    }
                    left.push((path, depth + 1));
                } else if !is_folder && is_sealed(&name) {
                    self.files += 1;
                    if names_key(&path, key)? && self.users.len() < MAX_USERS {
                        self.users.push(path.display().to_string());
                    }
                }
            }
        }
        Ok(())
    }

    /// Names in a folder, each with whether it is one. Links lead to something that lies elsewhere.
    fn list(&mut self, folder: &Path) -> Result<Vec<(String, bool)>, Fault> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(Fault::io("list", folder))? {
            let entry = entry.map_err(Fault::io("list", folder))?;
            self.names += 1;
            if self.names > MAX_NAMES {
                return Err(too_much(folder));
            }
            let kind = entry.file_type().map_err(Fault::io("look at", &entry.path()))?;
            if !kind.is_dir() && !kind.is_file() {
                continue;
            }
            // Names of Coffer are ASCII; what is in a folder of any other name cannot be named to anybody.
            let name = entry.file_name().to_str().map(ToOwned::to_owned);
            match name {
                Some(name) => names.push((name, kind.is_dir())),
                None if kind.is_dir() => return Err(odd(&entry.path())),
                None => {}
            }
        }
        Ok(names)
    }
}

fn parse(key: &str) -> Result<KeyId, Fault> {
    key.parse().map_err(|e| Fault::invalid(format!("{e}"), "see `coffer key status`"))
}

fn is_sealed(name: &str) -> bool {
    name == "vm.safe" || name.ends_with(DESCRIPTOR_SUFFIX)
}

/// Whether a safe or descriptor names a key. It is not parsed, so a damaged one counts as well: ids stand in quotes, and have nothing
/// in them that JSON would escape.
fn names_key(path: &Path, key: &KeyId) -> Result<bool, Fault> {
    let mut content = Vec::new();
    let file = File::open(path).map_err(Fault::io("open", path))?;
    file.take(MAX_READ).read_to_end(&mut content).map_err(Fault::io("read", path))?;
    let wanted = format!("\"{key}\"");
    Ok(content.windows(wanted.len()).any(|part| part == wanted.as_bytes()))
}

fn ended(key: &KeyId, said: Vec<kms_client::Said>, looked: Looked) -> EndedKey {
    EndedKey {
        key: key.to_string(),
        servers: said.into_iter().map(said_info).collect(),
        datastores: looked.datastores,
        files: looked.files,
    }
}

fn in_use(key: &KeyId, users: &str, looked: &Looked) -> Fault {
    Fault::refused(
        ErrorCode::InUse,
        format!(
            "key {key} is used by {users} ({} safes and descriptors were looked at)",
            looked.files
        ),
        "give those VMs another key by `coffer key rotate`, or delete them",
    )
}

fn too_much(path: &Path) -> Fault {
    Fault::refused(
        ErrorCode::HostLimit,
        format!("{} is too deep, or there is too much to look through", path.display()),
        "move what is not a VM out of the datastore",
    )
}

fn odd(path: &Path) -> Fault {
    Fault::refused(
        ErrorCode::Storage,
        format!("{} has a name that is no text, and is not looked into", path.display()),
        "rename it, or move it out of the datastore",
    )
}

#[cfg(test)]
#[path = "ending_tests.rs"]
mod tests;
