//! One VM: who it is, its state on this host, and the verbs on it.
//!
//! Owns [`Vm`] and the lock of one VM; each verb has its file here as `impl Host`. Must not know HTTP. Every verb
//! enters the VM first ([`Vm::enter`]), so that verbs of one VM run one after the other and those of
//! different VMs never wait for each other.

mod check;
mod create;
mod delete;
mod disk;
mod info;
mod lock;
mod open;
mod payload;
mod remains;
mod rotate;
mod serve;
mod tls;

pub(crate) use check::{Collected, WhyEnd, unfinished};
pub(crate) use info::home_names;
pub use open::Opened;
pub(crate) use payload::{open_direct, open_payload};

use crate::fault::Fault;
use crate::service::Service;
use crate::service::endings::Endings;
use cryptfs::folder::VmFolder;
use cryptfs::name::Name;
use crypto::KeyId;
use hostd_api::error::{ErrorCode, LockReason};
use hostd_api::types::VmInfo;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a verb waits for another verb of the same VM. A detach may flush for a minute.
const ENTER_WAIT: Duration = Duration::from_secs(90);

/// How often the lock of a VM is tried meanwhile.
const ENTER_STEP: Duration = Duration::from_millis(5);

/// A VM of this host.
#[derive(Debug)]
pub struct Vm {
    /// Identity, from its safe.
    pub id: Uuid,
    /// Name, from its safe.
    pub name: Name,
    /// Name of its datastore.
    pub datastore: String,
    /// Its folder.
    pub folder: VmFolder,
    inner: Mutex<Inner>,
    /// What is left of its last use.
    pub(crate) endings: Arc<Endings>,
    /// Whether it was looked for a mark that an earlier run of the host has left.
    pub(crate) is_unmarked: AtomicBool,
    /// Verbs that wait to enter and that a check gives way to.
    urgent: AtomicUsize,
    /// Keys that its safe and descriptors named when last read; a lock of its own, so that others can ask
    /// without waiting for a verb.
    keys: Mutex<BTreeSet<KeyId>>,
    /// What was last shown, for lists while a verb runs.
    last: Mutex<Option<VmInfo>>,
}

/// What is behind the lock of a VM.
#[derive(Debug)]
pub struct Inner {
    /// Whether it may be used.
    pub access: Access,
    /// Why the last attempt to open its safe failed; cleared by the next that does not.
    pub trouble: Option<LockReason>,
    /// Why its home was stopped without being asked to; cleared by the next mount.
    pub home_problem: Option<String>,
    /// Its vmd and what that serves, while it runs.
    pub service: Option<Service>,
    /// How often its vmd was started again since this hostd started.
    pub restarts: u32,
}

/// Whether a VM may be used on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It may.
    Open,
    /// An operator locked it.
    Locked,
    /// It was deleted while somebody waited for it.
    Deleted,
}

impl Vm {
    /// A VM that does not run.
    #[must_use]
    pub fn new(id: Uuid, name: Name, datastore: &str, folder: VmFolder, access: Access) -> Self {
        let endings_of = name.clone();
        Self {
            id,
            name,
            datastore: datastore.to_owned(),
            folder,
            inner: Mutex::new(Inner {
                access,
                trouble: None,
                home_problem: None,
                service: None,
                restarts: 0,
            }),
            endings: Arc::new(Endings::new(endings_of)),
            is_unmarked: AtomicBool::new(false),
            urgent: AtomicUsize::new(0),
            keys: Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// Waits for verbs that run on this VM, and enters it.
    ///
    /// # Errors
    /// A refusal: `in-use` when another verb does not end, `not-found` when the VM was deleted.
    pub fn enter(&self) -> Result<MutexGuard<'_, Inner>, Fault> {
        let end = Instant::now() + ENTER_WAIT;
        loop {
            if let Some(inner) = self.try_enter() {
                return match inner.access {
                    Access::Deleted => Err(Fault::refused(
                        ErrorCode::NotFound,
                        format!("VM {} was deleted", self.name),
                        "see `coffer vm list`",
                    )),
                    Access::Open | Access::Locked => Ok(inner),
                };
            }
            if Instant::now() >= end {
                return Err(Fault::refused(
                    ErrorCode::InUse,
                    format!("another verb on VM {} does not end", self.name),
                    "try again later; slow storage is the usual reason",
                ));
            }
            std::thread::sleep(ENTER_STEP);
        }
    }

    /// The same for a verb that a check, which may run for hours, must end for.
    ///
    /// # Errors
    /// Those of [`Vm::enter`].
    pub fn enter_urgently(&self) -> Result<MutexGuard<'_, Inner>, Fault> {
        self.urgent.fetch_add(1, Ordering::Relaxed);
        let entered = self.enter();
        self.urgent.fetch_sub(1, Ordering::Relaxed);
        entered
    }

    /// Whether somebody waits to enter urgently.
    pub(crate) fn is_wanted(&self) -> bool {
        self.urgent.load(Ordering::Relaxed) > 0
    }

    /// Enters the VM unless a verb runs on it. A verb that panicked has left a consistent state: what it
    /// holds changes by single assignments.
    pub fn try_enter(&self) -> Option<MutexGuard<'_, Inner>> {
        match self.inner.try_lock() {
            Ok(inner) => Some(inner),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether its safe or a descriptor named this key when last read.
    #[must_use]
    pub fn names_key(&self, key: &KeyId) -> bool {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// The keys that its safe and descriptors named when last read.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<KeyId> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its safe and descriptors name these keys.
    pub(crate) fn set_keys(&self, keys: BTreeSet<KeyId>) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    fn last(&self) -> Option<VmInfo> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_last(&self, info: &VmInfo) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.clone());
    }
}

#[cfg(test)]
#[path = "vm_tests.rs"]
mod tests;

#[cfg(test)]
mod keeper_tests;
