//! Tests of the keyring with a provider that counts and fails on command.

use super::*;
use crypto::Kek;
use kms_client::{Health, KeyRecord, ProviderStatus};
use std::sync::atomic::{AtomicU32, Ordering};

/// A provider that derives keys from a root, as slowly and as badly as told.
struct Counting {
    root: crypto::RootKey,
    fetches: AtomicU32,
    delay: Duration,
    down: std::sync::atomic::AtomicBool,
}

impl KeyProvider for Counting {
    fn name(&self) -> &str {
        "test"
    }

    fn create_key(&self) -> Result<KeyId, KmsError> {
        Err(KmsError::BackupRequired { provider: "test".into() })
    }

    fn fetch(&self, key: &KeyId, arena: &Arena) -> Result<Kek, KmsError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.delay);
        if self.down.load(Ordering::SeqCst) {
            return Err(KmsError::Unavailable { provider: "test".into(), reason: "down".into() });
        }
        Ok(self.root.derive_kek(arena, key.uid())?)
    }

    fn may_wrap(&self, key: &KeyId) -> Result<(), KmsError> {
        if key.uid() != "old" {
            return Ok(());
        }
        Err(KmsError::Denied { provider: "test".into(), reason: "it was taken back".into() })
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

fn keyring(delay: Duration, idle: Duration) -> (Arc<Keyring>, Arc<Counting>) {
    let arena = Arena::new(64 * 1024).unwrap();
    let provider = Arc::new(Counting {
        root: crypto::RootKey::generate(&arena).unwrap(),
        fetches: AtomicU32::new(0),
        delay,
        down: false.into(),
    });
    let closed = ClosedProvider { name: "shut".into(), reason: "no passphrase".into() };
    let providers: Vec<Arc<dyn KeyProvider>> = vec![Arc::clone(&provider) as _];
    (Arc::new(Keyring::new(arena, providers, vec![closed], idle, Source::Providers)), provider)
}

fn id(text: &str) -> KeyId {
    text.parse().unwrap()
}

#[test]
fn many_users_of_one_key_fetch_it_once() {
    let (keyring, provider) = keyring(Duration::from_millis(50), Duration::ZERO);
    let key = id("test/a");
    let values: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| keyring.lease(&key, "vm").unwrap())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(provider.fetches.load(Ordering::SeqCst), 1);
    let value = |lease: &Lease| match lease.held() {
        Held::Kek(kek) => kek.check_value(),
        Held::Provider(_) => panic!("nobody keeps this key"),
    };
    assert!(values.iter().all(|v| value(v) == value(&values[0])));
    assert_eq!(keyring.state(&key), KeyringState::Present);
    drop(values);
    assert_eq!(keyring.state(&key), KeyringState::Expiring);
    keyring.expire(Instant::now());
    assert_eq!(keyring.state(&key), KeyringState::Absent);
}

#[test]
fn a_failed_fetch_leaves_no_trace_and_wakes_waiters() {
    let (keyring, provider) = keyring(Duration::from_millis(20), Duration::ZERO);
    provider.down.store(true, Ordering::SeqCst);
    let key = id("test/a");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let error = keyring.lease(&key, "vm").err().unwrap();
                assert!(matches!(error, KeyringError::Provider { .. }), "{error}");
            });
        }
    });
    assert_eq!(keyring.state(&key), KeyringState::Absent);
    provider.down.store(false, Ordering::SeqCst);
    assert!(keyring.lease(&key, "vm").is_ok());
}

#[test]
fn an_unknown_provider_is_named() {
    let (keyring, _) = keyring(Duration::ZERO, Duration::ZERO);
    let error = keyring.lease(&id("other/a"), "vm").err().unwrap();
    assert!(matches!(&error, KeyringError::NotConfigured(key) if key == &id("other/a")), "{error}");
    assert_eq!(keyring.state(&id("other/a")), KeyringState::Absent);
    let error = keyring.lease(&id("shut/a"), "vm").err().unwrap();
    assert!(error.to_string().contains("no passphrase"), "{error}");
}

#[test]
fn an_evicted_key_stays_away_until_readmitted() {
    let (keyring, provider) = keyring(Duration::ZERO, Duration::from_secs(60));
    let key = id("test/a");
    let lease = keyring.lease(&key, "web01").unwrap();
    assert_eq!(keyring.evict(&key, false), Err(vec!["web01".to_owned()]));
    drop(lease);
    assert_eq!(keyring.evict(&key, false), Ok(vec![]));
    assert!(matches!(keyring.lease(&key, "web01"), Err(KeyringError::Evicted(_))));
    keyring.readmit(&key);
    assert!(keyring.lease(&key, "web01").is_ok());
    assert_eq!(provider.fetches.load(Ordering::SeqCst), 2);
}

#[test]
fn a_key_that_was_taken_back_unwraps_and_wraps_nothing() {
    let (keyring, _) = keyring(Duration::ZERO, Duration::from_secs(10));
    let old = KeyId::new("test", "old").unwrap();
    keyring.lease(&old, "web01").unwrap();
    let refused = keyring.may_wrap(&old).unwrap_err();
    assert!(refused.to_string().contains("taken back"), "{refused}");
    keyring.may_wrap(&KeyId::new("test", "new").unwrap()).unwrap();
    // Of a key of a closed provider nothing is known; leasing it says why.
    keyring.may_wrap(&KeyId::new("shut", "1").unwrap()).unwrap();
}
