//! The host: what all verbs share.
//!
//! Owns [`Host`], the datastores' way into the inventory, and the status of the host; verbs on VMs live in
//! `vm`, on processes in `service`. Must not know HTTP. `daemon` builds one, `control` calls it.

use crate::config::Config;
use crate::datastore::{Datastore, Found, look};
use crate::fault::Fault;
use crate::files::FileLock;
use crate::gate::Pass;
use crate::inventory::Inventory;
use crate::keyring::Keyring;
use crate::plane::ControlPlane;
use crate::service::Spawner;
use crate::service::polling::Polling;
use crate::state::State;
use crate::vm::{Access, Inner, Vm};
use crate::warnings::{Topic, Warning};
use cryptfs::seal::Body;
use hostd_api::error::ErrorCode;
use hostd_api::types::{DatastoreState, HostStatus, RegisterVm, VmInfo};
use kms_client::native::NativeProvider;
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often it is looked whether the storage of a datastore still answers while that is opened. A large one takes longer.
const LOOK_AT_STORAGE: Duration = Duration::from_millis(500);

/// This host.
pub struct Host {
    /// The configuration.
    pub config: Config,
    /// What starts vmds.
    pub(crate) spawner: Spawner,
    /// The KEKs.
    pub keyring: Arc<Keyring>,
    /// The built-in provider, when it is open.
    pub native: Option<Arc<NativeProvider>>,
    /// The datastores.
    pub datastores: Vec<Datastore>,
    /// The VMs.
    pub inventory: Inventory,
    /// What outlives a restart.
    pub state: State,
    /// The right to be the only hostd of the runtime folder.
    pub(crate) _run_lock: FileLock,
    /// When this daemon started.
    pub started: Instant,
    /// What a vmd last reported of its confinement.
    pub(crate) confinement: Mutex<Vec<String>>,
    /// Things found at run time that an operator should know.
    pub(crate) warnings: Mutex<Vec<Warning>>,
    /// Places for threads of vmds that look for requests instead of sleeping.
    pub(crate) polling: Polling,
    /// The control plane that may push keys, when one is configured.
    pub plane: Option<ControlPlane>,
    /// Alarms of key providers that are in the log.
    pub(crate) told: Mutex<BTreeSet<String>>,
    /// Held while processes that were left alone are looked at again.
    pub(crate) looking: Mutex<()>,
    /// Held while homes without their lease are looked at again, which may wait for key servers.
    pub(crate) holding: Mutex<()>,
    /// Held while the TPM is used.
    pub(crate) sealing: Mutex<()>,
}

impl Host {
    /// `GET /v1/host`.
    pub fn status(self: &Arc<Self>) -> HostStatus {
        self.refresh_datastores();
        let vms = self.inventory.all();
        let running = vms.iter().filter(|vm| runs(vm)).count();
        let usage = self.keyring.arena().usage();
        HostStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            key_memory: self.keyring.arena().protection().as_str().into(),
            key_memory_used: u64::try_from(usage.used).unwrap_or(u64::MAX),
            key_memory_capacity: u64::try_from(usage.capacity).unwrap_or(u64::MAX),
            engine: crypto::Engine::default().as_str().into(),
            crypto_state: self.crypto_state(),
            control: self.control_info(),
            confinement: self.confinement.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            warnings: self.all_warnings(),
            datastores: self.datastores.iter().map(Datastore::info).collect(),
            vms: u32::try_from(vms.len()).unwrap_or(u32::MAX),
            running: u32::try_from(running).unwrap_or(u32::MAX),
        }
    }

    /// Looks again at datastores that could not be used, at processes that were left alone, for example because they did
    /// not answer, at homes that were unmounted lazily, and at marks that were left; one look at a time.
    pub(crate) fn look_again(self: &Arc<Self>) {
        let Ok(_looking) = self.looking.try_lock() else { return };
        self.look_for_missed();
        self.look_for_running();
        self.end_left_homes();
        self.watch_keys();
        self.tell_alarms();
        self.clear_marks();
    }

    fn look_for_running(self: &Arc<Self>) {
        match self.adopt_more() {
            Ok(()) => self.withdraw(Topic::Search, None),
            Err(e) => {
                let text = format!("running VMs could not be looked for: {e}");
                self.warn_while(Topic::Search, None, text);
            }
        }
    }

    fn all_warnings(&self) -> Vec<String> {
        let mut all = self.config.warnings();
        if self.keyring.arena().protection() == crypto::Protection::LockedMemory {
            all.push("keys are in locked memory: this kernel has no secret memory".into());
        }
        let closed = self.keyring.closed().iter();
        all.extend(closed.map(|c| format!("key provider {} is not open: {}", c.name, c.reason)));
        for provider in self.keyring.providers() {
            let status = provider.status();
            let name = provider.name();
            all.extend(status.alarms.iter().map(|alarm| format!("key provider {name}: {alarm}")));
            if status.demo {
                all.push(format!(
                    "demo mode: provider {} makes keys without a backup",
                    provider.name()
                ));
            } else if status.backed_up_at.is_none() && status.kind == "native" {
                all.push(format!(
                    "key provider {} was never backed up: run `coffer key backup FILE`",
                    provider.name()
                ));
            }
        }
        all.extend(self.noted());
        all
    }

    /// Opens the datastores and takes in their VMs. One whose storage hangs is left to its thread, which goes on when the
    /// storage is back.
    ///
    /// # Errors
    /// A refusal with code `storage` when none can be used, nor could be later.
    pub(crate) fn open_datastores(self: &Arc<Self>) -> Result<(), Fault> {
        for index in 0..self.datastores.len() {
            self.open_datastore(index)?;
        }
        let mut reasons = Vec::new();
        for store in self.datastores.iter().filter(|store| store.answers()) {
            if let DatastoreState::Unavailable(reason) = store.state() {
                tracing::warn!("datastore {} cannot be used: {reason}", store.name);
                reasons.push(format!("{} ({}): {reason}", store.name, store.path.display()));
            }
        }
        if reasons.len() < self.datastores.len() {
            return Ok(());
        }
        Err(Fault::refused(
            ErrorCode::Storage,
            format!("no datastore can be used: {}", reasons.join("; ")),
            "mount or make the folder, or stop the other hostd",
        ))
    }

    fn open_datastore(self: &Arc<Self>, index: usize) -> Result<(), Fault> {
        let Some(store) = self.datastores.get(index) else { return Ok(()) };
        let (opened, is_open) = channel::<()>();
        let host = Arc::clone(self);
        let open = move || {
            if let Some(store) = host.datastores.get(index)
                && store.refresh()
            {
                host.scan(store);
            }
            drop(host);
            // Told by the end of the channel.
            drop(opened);
        };
        let thread = std::thread::Builder::new().name(format!("open-{}", store.name)).spawn(open);
        thread.map_err(Fault::io("open datastore", &store.path))?;
        while is_open.recv_timeout(LOOK_AT_STORAGE) == Err(RecvTimeoutError::Timeout) {
            if !store.answers() {
                tracing::warn!("datastore {} does not answer; it is taken up later", store.name);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Enters a VM for a verb, which may then wait for its storage.
    ///
    /// # Errors
    /// Those of [`Datastore::admit`] and of [`Vm::enter`].
    pub(crate) fn enter<'a>(&'a self, vm: &'a Vm) -> Result<Entered<'a>, Fault> {
        let pass = self.datastore_of(vm)?.admit()?;
        Ok(Entered { inner: vm.enter()?, _pass: pass })
    }

    /// The same for a verb that ends what is served, which storage that hangs need not forbid.
    ///
    /// # Errors
    /// Those of [`Datastore::admit_to_end`] and of [`Vm::enter`].
    pub(crate) fn enter_to_end<'a>(&'a self, vm: &'a Vm) -> Result<Entered<'a>, Fault> {
        let pass = self.datastore_of(vm)?.admit_to_end()?;
        Ok(Entered { inner: vm.enter()?, _pass: pass })
    }

    /// Takes up datastores that could not be used.
    fn look_for_missed(&self) {
        let missed = self.datastores.iter().filter(|store| store.is_missed());
        for store in missed.filter(|store| store.answers() && store.refresh()) {
            tracing::info!("datastore {} can be used now", store.name);
            self.scan(store);
        }
    }

    /// Takes in the VMs of datastores that came back.
    pub(crate) fn refresh_datastores(self: &Arc<Self>) {
        let mut back = false;
        for store in self.datastores.iter().filter(|store| store.answers() && store.refresh()) {
            tracing::info!("datastore {} can be used now", store.name);
            self.scan(store);
            back = true;
        }
        // Its VMs may run since before this hostd started.
        if back {
            self.look_for_running();
        }
    }

    /// Takes every VM folder of a datastore into the inventory; those that cannot be taken are noted as
    /// problems of the datastore.
    pub fn scan(&self, store: &Datastore) {
        if !store.is_usable() {
            return;
        }
        if let Some(advice) = store.advice() {
            self.warn(None, advice);
        }
        store.clear_scratch();
        for found in store.scan(self.state.registered().iter()) {
            let known = self.inventory.by_id(found.safe.id);
            if known.is_some_and(|vm| vm.folder == found.folder) {
                continue;
            }
            if let Err(e) = self.take(store, &found) {
                store.report(e.to_string());
            }
        }
    }

    /// `POST /v1/vms/register`.
    ///
    /// # Errors
    /// Refusals: a path outside the datastores, a VM that is known already; the fault of its safe.
    pub fn register_vm(self: &Arc<Self>, request: &RegisterVm) -> Result<VmInfo, Fault> {
        self.refresh_datastores();
        let path = &request.path;
        // Before the path is followed, which may hang.
        let mut stores = self.datastores.iter();
        let store = stores.find(|store| path.starts_with(&store.path));
        let _pass = store.map(Datastore::admit).transpose()?;
        let real = path.canonicalize().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Fault::refused(
                ErrorCode::NotFound,
                format!("there is no folder {}", path.display()),
                "give the whole path of a VM folder",
            ),
            _ => Fault::io("find", path)(e),
        })?;
        let inside = |store: &&Datastore| {
            if !store.answers() {
                return false;
            }
            let root = store.path.canonicalize();
            root.is_ok_and(|root| real.starts_with(&root) && real != root)
        };
        let store = self.datastores.iter().find(inside).ok_or_else(|| {
            Fault::invalid(
                format!("{} does not lie inside a datastore of this host", path.display()),
                "move it into a datastore, see `coffer host status`",
            )
        })?;
        let found = look(&real)?;
        let vm = self.take(store, &found)?;
        let direct = real.parent() == store.path.canonicalize().ok().as_deref();
        if !direct && let Err(e) = self.state.set_registered(&real, true) {
            self.inventory.remove(&vm.name);
            return Err(e);
        }
        let mut inner = vm.enter()?;
        Ok(self.vm_info(&vm, &mut inner))
    }

    fn take(&self, store: &Datastore, found: &Found) -> Result<Arc<Vm>, Fault> {
        let locked = self.state.is_locked(found.safe.id);
        let access = if locked { Access::Locked } else { Access::Open };
        let (id, name) = (found.safe.id, found.safe.name.clone());
        let vm = Arc::new(Vm::new(id, name, &store.name, found.folder.clone(), access));
        tracing::debug!("VM {} has {} wraps", vm.name, found.safe.wraps().len());
        // A pushed key must find the VM before anybody has asked for it.
        // Those of its disks are added when it is shown or opened.
        vm.set_keys(found.safe.wraps().iter().map(|wrap| wrap.key.clone()).collect());
        if store.writable().is_ok() {
            clear_temporary(&vm);
        }
        self.inventory.insert(Arc::clone(&vm))?;
        Ok(vm)
    }

    /// The datastore that a VM lies in.
    pub(crate) fn datastore_of(&self, vm: &Vm) -> Result<&Datastore, Fault> {
        let found = self.datastores.iter().find(|d| d.name == vm.datastore);
        found.ok_or_else(|| Fault::Bug(format!("VM {} has no datastore", vm.name)))
    }
}

/// A VM that a verb has entered; deref to what is behind its lock.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    inner: MutexGuard<'a, Inner>,
    _pass: Pass<'a>,
}

impl Deref for Entered<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Entered<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

/// Removes what a crash in the middle of a replacement left. No verb reaches the VM before it is taken in, so
/// nobody is replacing a file there.
fn clear_temporary(vm: &Vm) {
    for folder in [vm.folder.path(), &vm.folder.disks()] {
        // Never through a link: it could lead to files of this host.
        if crate::files::open_folder(folder).is_err() {
            continue;
        }
        match cryptfs::seal::clean(folder) {
            Ok(0) => {}
            Ok(count) => tracing::info!("removed {count} leftovers in {}", folder.display()),
            Err(e) => tracing::warn!("leftovers in {} stay: {e}", folder.display()),
        }
    }
}

/// Whether a VM has a vmd; one that a verb works on counts as running.
fn runs(vm: &Vm) -> bool {
    vm.try_enter().is_none_or(|inner| inner.service.is_some())
}
