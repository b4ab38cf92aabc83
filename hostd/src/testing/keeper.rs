//! A provider that keeps its keys, for the tests of this crate.
//!
//! It wraps by remembering: the blob has the form of a transit engine's and is a number inside.

use crypto::{Arena, Kek, KeyId, OpaqueKey, WrapAlg, Wrapped};
use kms_client::{Custody, Health, KeyProvider, KeyRecord, KmsError, ProviderStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The provider `vault` with one key, `vault/k`.
pub(crate) struct Keeper {
    arena: Arena,
    wraps: Mutex<Vec<(String, OpaqueKey)>>,
    pub(crate) version: AtomicU32,
    pub(crate) down: AtomicBool,
    pub(crate) unwraps: AtomicU32,
}

impl Keeper {
    pub(crate) fn new() -> Self {
        Self {
            arena: Arena::new(64 * 1024).unwrap(),
            wraps: Mutex::default(),
            version: AtomicU32::new(1),
            down: AtomicBool::new(false),
            unwraps: AtomicU32::new(0),
        }
    }

    fn answers(&self) -> Result<(), KmsError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(KmsError::Unavailable { provider: "vault".into(), reason: "down".into() });
        }
        Ok(())
    }
}

impl KeyProvider for Keeper {
    fn name(&self) -> &str {
        "vault"
    }

    fn create_key(&self) -> Result<KeyId, KmsError> {
        self.answers()?;
        Ok("vault/k".parse().unwrap())
    }

    fn custody(&self) -> Custody {
        Custody::Provider
    }

    fn fetch(&self, _key: &KeyId, _arena: &Arena) -> Result<Kek, KmsError> {
        panic!("a key that never leaves its provider was asked for");
    }

    fn wrap(
        &self,
        _key: &KeyId,
        data: &OpaqueKey,
        bound: &str,
        _arena: &Arena,
    ) -> Result<Wrapped, KmsError> {
        self.answers()?;
        let mut wraps = self.wraps.lock().unwrap();
        wraps.push((bound.to_owned(), data.copy_to(&self.arena)?));
        let width = OpaqueKey::base64_len(data.key_len() + 28);
        let version = self.version.load(Ordering::SeqCst);
        let blob = format!("vault:v{version}:{:0width$}", wraps.len() - 1);
        Ok(Wrapped { alg: WrapAlg::Transit, blob: blob.into_bytes() })
    }

    fn unwrap(
        &self,
        _key: &KeyId,
        wrapped: &Wrapped,
        bound: &str,
        arena: &Arena,
    ) -> Result<OpaqueKey, KmsError> {
        self.answers()?;
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        let text = std::str::from_utf8(&wrapped.blob).unwrap();
        let number: usize = text.rsplit(':').next().unwrap().parse().unwrap();
        let wraps = self.wraps.lock().unwrap();
        match wraps.get(number) {
            Some((of, key)) if of == bound => Ok(key.copy_to(arena)?),
            _ => Err(KmsError::BadKey { provider: "vault".into(), reason: "no such wrap".into() }),
        }
    }

    fn renew(&self, _key: &KeyId) -> Result<bool, KmsError> {
        self.answers()?;
        self.version.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }

    fn keys(&self) -> Result<Vec<KeyRecord>, KmsError> {
        Ok(Vec::new())
    }

    fn status(&self) -> ProviderStatus {
        ProviderStatus {
            kind: "test",
            health: Health::Ready,
            backed_up_at: None,
            demo: false,
            detail: String::new(),
            servers: Vec::new(),
            certificate_days: None,
            alarms: Vec::new(),
            differences: Vec::new(),
        }
    }
}
