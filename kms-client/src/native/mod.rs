//! The native provider: every KEK of a host or a small cluster derived from one sealed root key.
//!
//! Owns the rules of that provider: what is derived, when keys may be made, what a backup is. It must
//! not know who wraps what with the KEKs. Flow: [`NativeProvider::open`] claims the key file, opens
//! its root key with the passphrase, and from then on derives the KEK of any uid without I/O; a new
//! key is a new random uid, recorded in the file.
//!
//! Why a root key with derivation: `docs/decisions/native-provider.md`.

mod file;
mod format;

use crate::{Clock, Health, KeyProvider, KeyRecord, KeyState, KmsError, ProviderStatus};
use crypto::{Arena, Argon2Params, Kek, KeyId, MacKey, Passphrase, RootKey};
use file::Place;
use format::{Body, Entry};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// The provider that needs nothing but one file and its passphrase.
///
/// **One backup is enough.** A KEK depends on the root key and its uid only, so any backup of this
/// file, however old, opens every VM made before or after it. For the same reason
/// [`fetch`](KeyProvider::fetch) derives the KEK of every well-formed uid (a version 4 UUID), listed or
/// not: after an older file was restored, the list lacks the newest keys, and the VMs that use them
/// must open all the same. A KEK derived for a uid that this root key never made is harmless and
/// useless: it does not pass the key check value in the safe.
pub struct NativeProvider {
    name: String,
    demo: bool,
    clock: Clock,
    root: RootKey,
    mac: MacKey,
    place: Place,
    /// Held by the one who replaces the file. `current` is held for moments only, so that status and
    /// list never wait for a disk.
    writer: Mutex<()>,
    current: Mutex<Current>,
}

/// The key file as it is on disk.
struct Current {
    body: Body,
    text: String,
}

impl NativeProvider {
    /// Makes a new key file at `path` (mode 0600) with a new random root key.
    ///
    /// # Errors
    /// [`KmsError::Exists`] when there is one: it is never replaced. [`KmsError::InUse`] when another
    /// process holds it, [`KmsError::Config`] when `name` cannot be in a key id, [`KmsError::Key`] when
    /// `params` are out of bounds or key memory is short, [`KmsError::Io`].
    pub fn init(
        path: &Path,
        passphrase: &Passphrase,
        name: &str,
        params: Argon2Params,
        arena: &Arena,
    ) -> Result<(), KmsError> {
        key_id(name, &Uuid::nil(), path)?;
        let place = Place::claim(path)?;
        place.create(&format::new_file(name, passphrase, params, arena)?)
    }

    /// Opens the key file at `path`, and holds it for as long as the provider lives.
    ///
    /// `name` is what the configuration calls the provider; it must be the name in the file, because
    /// the key ids in the safes carry it. With `demo` the provider makes keys without a backup; its
    /// status says so. `clock` stamps new keys. The root key stays in `arena`.
    ///
    /// # Errors
    /// [`KmsError::WrongPassphrase`]; [`KmsError::Damaged`]; [`KmsError::Unsupported`] for a file of a
    /// later version; [`KmsError::Config`] for a file that others can read or of another name;
    /// [`KmsError::InUse`]; [`KmsError::Key`] when key memory is short; [`KmsError::Io`], with the kind
    /// `NotFound` when there is no file yet.
    pub fn open(
        path: &Path,
        passphrase: &Passphrase,
        name: &str,
        demo: bool,
        clock: Clock,
        arena: &Arena,
    ) -> Result<Self, KmsError> {
        key_id(name, &Uuid::nil(), path)?;
        let place = Place::claim(path)?;
        let text = place.read()?;
        let opened = format::unseal(&text, &place.origin(), passphrase, arena)?;
        if opened.body.provider != name {
            return Err(KmsError::Config {
                origin: place.origin(),
                problem: format!(
                    "belongs to the provider {:?}, not to {name:?}",
                    opened.body.provider
                ),
                remedy: "give the provider that name in the configuration".to_owned(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            demo,
            clock,
            root: opened.root,
            mac: opened.mac,
            place,
            writer: Mutex::new(()),
            current: Mutex::new(Current { body: opened.body, text }),
        })
    }

    /// The text of a backup: the key file as it is, sealed by its passphrase. Written to a file (mode
    /// 0600) and put in place of the key file, it restores the provider.
    #[must_use]
    pub fn backup(&self) -> String {
        self.current().text.clone()
    }

    /// Records that a backup was stored: `sha256_hex` is what the caller computed over what it stored,
    /// `now` the time in seconds since 1970. From then on the provider makes keys.
    ///
    /// # Errors
    /// [`KmsError::StaleBackup`] when it is not the digest of the key file as it is; [`KmsError::Io`].
    pub fn confirm_backup(&self, sha256_hex: &str, now: u64) -> Result<(), KmsError> {
        self.change(|body| {
            if !sha256_hex.eq_ignore_ascii_case(&crypto::sha256_hex(self.backup().as_bytes())) {
                return Err(KmsError::StaleBackup { origin: self.place.origin() });
            }
            body.backed_up_at = Some(now);
            Ok(())
        })
    }

    /// Changes the file first and the memory after it, so that a failure leaves both as they were; the failure
    /// to make a file durable that is in place leaves both new.
    fn change<T>(
        &self,
        edit: impl FnOnce(&mut Body) -> Result<T, KmsError>,
    ) -> Result<T, KmsError> {
        let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut body = self.current().body.clone();
        let made = edit(&mut body)?;
        body.sequence = body.sequence.checked_add(1).ok_or_else(|| KmsError::Limit {
            what: "the key file was replaced too often".to_owned(),
            limit: u64::MAX,
        })?;
        let text = format::seal(&body, &self.mac)?;
        let replaced = self.place.replace(&text);
        if matches!(replaced, Ok(()) | Err(KmsError::NotDurable { .. })) {
            *self.current() = Current { body, text };
        }
        replaced.map(|()| made)
    }

    fn may_make_keys(&self, body: &Body) -> Result<(), KmsError> {
        if body.backed_up_at.is_none() && !self.demo {
            return Err(KmsError::BackupRequired { provider: self.name.clone() });
        }
        if body.keys.len() >= format::MAX_KEYS {
            return Err(KmsError::Limit {
                what: format!("key provider {} holds as many keys as it may", self.name),
                limit: format::MAX_KEYS as u64,
            });
        }
        Ok(())
    }

    fn id_of(&self, uid: &Uuid) -> Result<KeyId, KmsError> {
        key_id(&self.name, uid, Path::new(&self.place.origin()))
    }

    /// A panic elsewhere cannot leave the value half changed: it is replaced whole.
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyProvider for NativeProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn create_key(&self) -> Result<KeyId, KmsError> {
        self.change(|body| {
            self.may_make_keys(body)?;
            let uid = uuid::Builder::from_random_bytes(crypto::random_array()?).into_uuid();
            let created_at = (self.clock)();
            body.keys.push(Entry { uid, created_at, state: KeyState::Active });
            self.id_of(&uid)
        })
    }

    /// Never touches the file, and takes no lock: it also works while the disk is full or gone.
    fn fetch(&self, key: &KeyId, arena: &Arena) -> Result<Kek, KmsError> {
        let unknown = |reason: String| KmsError::NotFound { key: key.clone(), reason };
        if key.provider() != self.name {
            return Err(unknown(format!("it is not a key of the provider {}", self.name)));
        }
        if !is_our_uid(key.uid()) {
            return Err(unknown("the uids of this provider are version 4 UUIDs".to_owned()));
        }
        Ok(self.root.derive_kek(arena, key.uid())?)
    }

    fn keys(&self) -> Result<Vec<KeyRecord>, KmsError> {
        let record = |entry: &Entry| {
            Ok(KeyRecord {
                id: self.id_of(&entry.uid)?,
                created_at: Some(entry.created_at),
                state: entry.state,
            })
        };
        self.current().body.keys.iter().map(record).collect()
    }

    fn status(&self) -> ProviderStatus {
        let backed_up_at = self.current().body.backed_up_at;
        let (health, detail) = match (backed_up_at, self.demo) {
            (Some(_), false) => (Health::Ready, "ready".to_owned()),
            (_, true) => (
                Health::Ready,
                "demo mode: makes keys without a backup; not for VMs that matter".to_owned(),
            ),
            (None, false) => (
                Health::FetchOnly,
                KmsError::BackupRequired { provider: self.name.clone() }.to_string(),
            ),
        };
        ProviderStatus {
            kind: "native",
            health,
            backed_up_at,
            demo: self.demo,
            detail,
            servers: Vec::new(),
            certificate_days: None,
            alarms: Vec::new(),
            differences: Vec::new(),
        }
    }
}

/// Only the spelling that [`NativeProvider`] makes: one key, one uid.
fn is_our_uid(uid: &str) -> bool {
    Uuid::from_str(uid)
        .is_ok_and(|parsed| parsed.get_version_num() == 4 && parsed.hyphenated().to_string() == uid)
}

fn key_id(name: &str, uid: &Uuid, path: &Path) -> Result<KeyId, KmsError> {
    KeyId::from_str(&format!("{name}/{uid}")).map_err(|e| KmsError::Config {
        origin: path.display().to_string(),
        problem: format!("cannot belong to a provider named {name:?}: {e}"),
        remedy: "choose another name".to_owned(),
    })
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod native_tests;
#[cfg(test)]
mod testing;
