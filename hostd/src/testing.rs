//! A host over temporary folders, for the tests of this crate.
//!
//! Real parts all of them: native provider with a cheap passphrase KDF, datastore, state. Only the vmd program
//! is absent, so what needs one is tested by the integration tests of the workspace.

mod keeper;

pub(crate) use keeper::Keeper;

use crate::config::{Config, Control, DatastoreConfig};
use crate::control::api_error;
use crate::datastore::Datastore;
use crate::fault::Fault;
use crate::files::{self, Locked};
use crate::host::Host;
use crate::inventory::Inventory;
use crate::keyring::{ClosedProvider, Keyring, Source};
use crate::keys::NATIVE;
use crate::plane::ControlPlane;
use crate::service::Spawner;
use crate::service::polling::Polling;
use crate::state::State;
use crypto::{Arena, Argon2Params, Passphrase};
use hostd_api::error::{ApiError, ErrorCode};
use hostd_api::types::{CreateDisk, CreateVm, HomeNames};
use kms_client::native::NativeProvider;
use kms_client::{KeyProvider, KmsError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[expect(unreachable_pub, reason = "it is public in the harness of the integration tests")]
#[path = "../../tests/src/pki.rs"]
pub(crate) mod pki;

/// A host and the folder that all of it lies in.
pub(crate) struct TestHost {
    pub(crate) host: Arc<Host>,
    pub(crate) dir: TempDir,
}

impl TestHost {
    /// A host with an empty datastore and an open provider.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("ds")).unwrap();
        let arena = Arena::new(256 * 1024).unwrap();
        init_keys(&dir.path().join("native.keys"), &arena);
        Self { host: build(dir.path(), &dir.path().join("ds"), true), dir }
    }

    /// The same as the host h1 of the cluster prod, to which a control plane may push keys.
    pub(crate) fn with_plane() -> Self {
        Self::with_authority().0
    }

    /// The same with an authority that the test keeps, for more members.
    pub(crate) fn with_authority() -> (Self, pki::Authority) {
        let made = Self::new();
        let authority = pki::Authority::new(&made.dir.path().join("pki"));
        let _files = authority.member(Some("coffer://prod/host/h1"));
        (made.restarted(), authority)
    }

    /// A host whose datastore is `store`.
    pub(crate) fn over(store: &Path) -> Self {
        let made = Self::new();
        made.rebuilt(store, true)
    }

    /// The same host after a restart.
    pub(crate) fn restarted(self) -> Self {
        let store = self.store();
        self.rebuilt(&store, true)
    }

    /// The same host after a restart without the passphrase.
    pub(crate) fn restarted_without_keys(self) -> Self {
        let store = self.store();
        self.rebuilt(&store, false)
    }

    /// The same host after a restart with other keys.
    pub(crate) fn restarted_with_other_keys(self) -> Self {
        let (store, Self { host, dir }) = (self.store(), self);
        drop(host);
        let file = dir.path().join("native.keys");
        std::fs::remove_file(&file).unwrap();
        init_keys(&file, &Arena::new(256 * 1024).unwrap());
        Self { host: build(dir.path(), &store, true), dir }
    }

    /// The same host after a restart, with something done while it is down.
    pub(crate) fn restarted_after(self, meanwhile: impl FnOnce()) -> Self {
        let (store, Self { host, dir }) = (self.store(), self);
        drop(host);
        meanwhile();
        Self { host: build(dir.path(), &store, true), dir }
    }

    /// The same host after a restart with a provider that keeps its keys, which new keys come from.
    pub(crate) fn with_keeper(self, keeper: &Arc<Keeper>) -> Self {
        let (store, Self { host, dir }) = (self.store(), self);
        drop(host);
        let keeper = Arc::clone(keeper) as Arc<dyn KeyProvider>;
        Self { host: build_with(dir.path(), &store, true, vec![keeper]), dir }
    }

    fn rebuilt(self, store: &Path, open: bool) -> Self {
        let Self { host, dir } = self;
        // The lock files and the key file are held until the last user is gone: the thread that opens VMs after a push
        // may still be one.
        patiently(|| (Arc::strong_count(&host) == 1).then_some(()));
        drop(host);
        Self { host: build(dir.path(), store, open), dir }
    }

    /// Folder of the datastore.
    pub(crate) fn store(&self) -> PathBuf {
        self.host.datastores[0].path.clone()
    }

    /// Makes a VM.
    pub(crate) fn vm(&self, name: &str) {
        self.host
            .create_vm(&CreateVm {
                name: name.into(),
                datastore: None,
                names: HomeNames::Plain,
                key_id: None,
            })
            .unwrap();
    }

    /// Makes a disk.
    pub(crate) fn disk(&self, vm: &str, name: &str) {
        self.host.create_disk(vm, &create_disk(name, 1 << 20)).unwrap();
    }
}

/// A plain request for a disk.
pub(crate) fn create_disk(name: &str, size: u64) -> CreateDisk {
    CreateDisk { name: name.into(), size, unit: None, importing: false }
}

fn passphrase(arena: &Arena) -> Passphrase {
    Passphrase::read(arena, &b"correct horse"[..]).unwrap()
}

fn init_keys(file: &Path, arena: &Arena) {
    let params = Argon2Params { memory_kib: 64, passes: 1, lanes: 1, salt: [7; 16] };
    NativeProvider::init(file, &passphrase(arena), NATIVE, params, arena).unwrap();
}

/// Tries for ten seconds: a test that starts a process at the same moment has copies of our locks in the child until its
/// exec.
fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match attempt() {
            Some(value) => return value,
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            None => panic!("a lock, or the host, is not given back"),
        }
    }
}

/// The port of a host that has certificates.
fn control(dir: &Path) -> Control {
    let path = |name: &str| Some(dir.join("pki").join(name)).filter(|path| path.exists());
    let certificate = path("coffer---prod-host-h1.pem");
    let listen = certificate.is_some().then(|| "127.0.0.1:0".parse().unwrap());
    Control { listen, certificate, key: path("coffer---prod-host-h1.key"), ca: path("ca.pem") }
}

fn build(dir: &Path, store: &Path, open: bool) -> Arc<Host> {
    build_with(dir, store, open, Vec::new())
}

/// `first` are the providers before the native one.
fn build_with(dir: &Path, store: &Path, open: bool, first: Vec<Arc<dyn KeyProvider>>) -> Arc<Host> {
    let config = Config {
        control: control(dir),
        run_dir: dir.join("run"),
        state_dir: dir.join("state"),
        datastore: vec![DatastoreConfig { name: "local".into(), path: store.to_owned() }],
        ..Config::default()
    };
    files::folder(&config.vm_runs(), 0o755, None).unwrap();
    files::folder(&config.locks(), 0o700, None).unwrap();
    let run_lock = patiently(|| match files::lock(&dir.join("run/hostd.lock")).unwrap() {
        Locked::Ours(lock) => Some(lock),
        Locked::Theirs(_) => None,
    });
    let arena = Arena::new(256 * 1024).unwrap();
    let native = open.then(|| {
        let file = dir.join("native.keys");
        let clock = || 1_800_000_000;
        let opened = patiently(|| {
            match NativeProvider::open(&file, &passphrase(&arena), NATIVE, true, clock, &arena) {
                Err(KmsError::InUse { .. }) => None,
                other => Some(other.unwrap()),
            }
        });
        Arc::new(opened)
    });
    let own = native.iter().map(|n| Arc::clone(n) as Arc<dyn KeyProvider>);
    let providers: Vec<_> = first.into_iter().chain(own).collect();
    let closed = ClosedProvider { name: NATIVE.into(), reason: "no passphrase".into() };
    let closed = if open { Vec::new() } else { vec![closed] };
    let source = if config.control.is_on() { Source::ControlPlaneToo } else { Source::Providers };
    let plane = ControlPlane::open(&config, &arena).unwrap();
    let host = Host {
        spawner: Spawner::start(dir.join("no-vmd-here")).unwrap(),
        keyring: Arc::new(Keyring::new(arena, providers, closed, Duration::from_secs(300), source)),
        native,
        datastores: config.datastore.iter().map(|store| Datastore::new(store, 4)).collect(),
        inventory: Inventory::new(100),
        state: State::open(&config.state_dir).unwrap(),
        _run_lock: run_lock,
        started: Instant::now(),
        confinement: Mutex::default(),
        warnings: Mutex::default(),
        polling: Polling::new(0),
        plane,
        told: Mutex::default(),
        looking: Mutex::default(),
        holding: Mutex::default(),
        sealing: Mutex::default(),
        config,
    };
    let host = Arc::new(host);
    host.open_datastores().unwrap();
    host
}

/// The API error of an outcome that must be one.
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<T, Fault>) -> ApiError {
    let error = api_error(&outcome.unwrap_err());
    assert!(!error.remedy.is_empty(), "{error:?}");
    error
}

/// The code of an outcome that must be an error.
pub(crate) fn code<T: std::fmt::Debug>(outcome: Result<T, Fault>) -> ErrorCode {
    refused(outcome).code
}
