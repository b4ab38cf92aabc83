//! Opening safes and descriptors with the keys of the keyring, and why a VM is locked.
//!
//! Owns the mapping from key and seal faults to lock reasons; must not know what the opened key is for.
//! Each wrap is tried until one opens: the first fault is reported, because its key is the VM's main one.

use super::{Access, Inner, Vm};
use crate::fault::Fault;
use crate::host::Host;
use crate::keyring::{Held, Keyring, KeyringError, Lease};
use cryptfs::descriptor::Descriptor;
use cryptfs::name::Name;
use cryptfs::safe::Safe;
use cryptfs::seal::{Body, SealError, Sealed, Wrap};
use crypto::{Arena, KeyId, OpaqueKey};
use hostd_api::error::{ErrorCode, LockCode, LockReason};
use kms_client::KmsError;
use std::path::Path;
use std::sync::Arc;

/// An opened safe or descriptor: verified body, its key, and the lease of the KEK that opened it.
pub struct Opened<B: Body> {
    /// The body, verified by its MAC.
    pub body: B,
    /// The data key inside.
    pub key: B::Key,
    /// The KEK's lease.
    pub lease: Lease,
}

/// Why a sealed file did not open.
enum OpenFault {
    Keyring(KeyringError),
    Sealed(SealError),
}

impl Host {
    /// Opens the safe of a VM, and remembers why when that fails.
    ///
    /// # Errors
    /// [`Fault::Locked`] with the reason, or the fault of the storage.
    pub(crate) fn open_safe(&self, vm: &Vm, inner: &mut Inner) -> Result<Opened<Safe>, Fault> {
        self.allowed(vm, inner)?;
        let path = vm.folder.safe();
        let opened = open::<Safe>(&self.keyring, &path, vm.name.as_str())
            .and_then(|opened| belongs(vm, &path, opened));
        match opened {
            Ok(opened) => {
                inner.trouble = None;
                Ok(opened)
            }
            Err(fault) => {
                let Some(reason) = lock_reason(&fault, true) else { return Err(plain(fault)) };
                inner.trouble = Some(reason.clone());
                Err(Fault::Locked { vm: vm.name.to_string(), reason })
            }
        }
    }

    /// A key that opens the safe of a VM, fetched if need be; without entering the VM, as that may take long.
    pub(crate) fn home_lease(&self, vm: &Vm) -> Option<Lease> {
        let sealed = Sealed::<Safe>::read(&vm.folder.safe()).ok()?;
        sealed.key_ids().find_map(|id| match self.keyring.lease(id, vm.name.as_str()) {
            Ok(lease) => Some(lease),
            Err(e) => {
                tracing::debug!("the home of VM {} waits for its key: {e}", vm.name);
                None
            }
        })
    }

    /// Opens the safe of a VM by a key that is here, or by the provider that keeps it, and by no other.
    ///
    /// # Errors
    /// Those of [`Host::open_safe`].
    pub(crate) fn open_safe_with(
        &self,
        vm: &Vm,
        inner: &mut Inner,
        lease: Lease,
    ) -> Result<Opened<Safe>, Fault> {
        self.allowed(vm, inner)?;
        let path = vm.folder.safe();
        let sealed = Sealed::<Safe>::read(&path)?;
        let opened = open_by(&sealed, &lease, self.keyring.arena())
            .and_then(|(body, key)| belongs(vm, &path, Opened { body, key, lease }));
        match opened {
            Ok(opened) => {
                inner.trouble = None;
                Ok(opened)
            }
            Err(fault) => match lock_reason(&fault, false) {
                Some(reason) => Err(Fault::Locked { vm: vm.name.to_string(), reason }),
                None => Err(plain(fault)),
            },
        }
    }

    /// Opens the descriptor of a disk of a VM.
    ///
    /// # Errors
    /// `not-found`, [`Fault::Locked`] when a key is the reason, else the fault of the descriptor.
    pub(crate) fn open_disk(
        &self,
        vm: &Vm,
        inner: &Inner,
        disk: &Name,
    ) -> Result<Opened<Descriptor>, Fault> {
        self.allowed(vm, inner)?;
        let path = vm.folder.descriptor(disk);
        match open::<Descriptor>(&self.keyring, &path, vm.name.as_str()) {
            Ok(opened) => {
                opened.body.check_place(&path, disk, vm.id)?;
                Ok(opened)
            }
            Err(OpenFault::Sealed(SealError::Missing { .. })) => Err(no_disk(vm, disk)),
            Err(fault) => match lock_reason(&fault, false) {
                Some(reason) => Err(Fault::Locked { vm: vm.name.to_string(), reason }),
                None => Err(plain(fault)),
            },
        }
    }

    /// Refuses when an operator locked the VM.
    ///
    /// # Errors
    /// [`Fault::Locked`].
    pub(crate) fn allowed(&self, vm: &Vm, inner: &Inner) -> Result<(), Fault> {
        match inner.access {
            Access::Open => Ok(()),
            Access::Locked | Access::Deleted => {
                Err(Fault::Locked { vm: vm.name.to_string(), reason: operator_lock(vm) })
            }
        }
    }
}

/// The refusal for a disk that does not exist.
pub(super) fn no_disk(vm: &Vm, disk: &Name) -> Fault {
    Fault::refused(
        ErrorCode::NotFound,
        format!("VM {} has no disk {disk}", vm.name),
        format!("see `coffer disk list {}`", vm.name),
    )
}

/// The reason of a VM that an operator locked, with the key that its safe names first. After a start no safe has
/// been read for it yet.
pub(super) fn operator_lock(vm: &Vm) -> LockReason {
    let key = vm.keys().first().cloned().or_else(|| {
        let safe = Sealed::<Safe>::read(&vm.folder.safe()).ok()?;
        safe.key_ids().next().cloned()
    });
    locked_by_operator(key)
}

/// The reason of a VM that an operator locked, with its key where that is known.
pub(super) fn locked_by_operator(key: Option<KeyId>) -> LockReason {
    LockReason {
        code: LockCode::LockedByOperator,
        reason: None,
        key_id: key.map(|key| key.to_string()),
        detail: "an operator locked it".into(),
    }
}

fn open<B: Body>(keyring: &Arc<Keyring>, path: &Path, user: &str) -> Result<Opened<B>, OpenFault> {
    let sealed = Sealed::<B>::read(path).map_err(OpenFault::Sealed)?;
    let ids: Vec<_> = sealed.key_ids().cloned().collect();
    let mut first = None;
    for id in ids {
        let lease = match keyring.lease(&id, user) {
            Ok(lease) => lease,
            Err(e) => {
                first.get_or_insert(OpenFault::Keyring(e));
                continue;
            }
        };
        match open_by(&sealed, &lease, keyring.arena()) {
            Ok((body, key)) => return Ok(Opened { body, key, lease }),
            Err(e) => {
                first.get_or_insert(e);
            }
        }
    }
    // The reader refuses files without wraps, so there was a first fault.
    Err(first.unwrap_or_else(|| OpenFault::Sealed(SealError::Missing { path: path.to_owned() })))
}

/// Opens a file with the key of a lease, or has the one who keeps it unwrap the key inside. What the wrap is bound to is taken
/// from a body that nobody has verified yet: another one does not open it.
fn open_by<B: Body>(
    sealed: &Sealed<B>,
    lease: &Lease,
    arena: &Arena,
) -> Result<(B, B::Key), OpenFault> {
    let id = lease.id();
    match lease.held() {
        Held::Kek(kek) => sealed.open(kek, id, arena).map_err(OpenFault::Sealed),
        Held::Provider(provider) => {
            let wrapped = sealed.wrap(id).map_err(OpenFault::Sealed)?.wrapped();
            let bound = sealed.unverified().bound();
            let key = provider
                .unwrap(id, &wrapped, &bound, arena)
                .map_err(|source| OpenFault::Keyring(KeyringError::of(id, source)))?;
            sealed.open_unwrapped(key, id, arena).map_err(OpenFault::Sealed)
        }
    }
}

/// The wrap of the key of a file by the key of a lease, made here or by the one who keeps that key.
///
/// # Errors
/// Faults of the provider, and of key memory.
pub(super) fn wrap<B: Body>(
    body: &B,
    key: &B::Key,
    lease: &Lease,
    arena: &Arena,
) -> Result<Wrap, Fault> {
    let id = lease.id();
    match lease.held() {
        Held::Kek(kek) => Ok(Wrap::make(kek, id, key)?),
        Held::Provider(provider) => {
            let key = OpaqueKey::of(key, arena)?;
            let wrapped = provider.wrap(id, &key, &body.bound(), arena)?;
            Ok(Wrap::made_elsewhere(id, wrapped, &key)?)
        }
    }
}

/// A safe that was put into another VM's folder opens, but is not this VM's.
fn belongs(vm: &Vm, path: &Path, opened: Opened<Safe>) -> Result<Opened<Safe>, OpenFault> {
    if opened.body.id == vm.id {
        return Ok(opened);
    }
    Err(OpenFault::Sealed(SealError::Misplaced {
        path: path.to_owned(),
        field: "id",
        found: opened.body.id.to_string(),
        expected: vm.id.to_string(),
    }))
}

/// The reason of a lock, when the fault is one. `safe` tells a safe, whose damage locks the VM, from a
/// descriptor, whose damage concerns that disk only.
fn lock_reason(fault: &OpenFault, safe: bool) -> Option<LockReason> {
    match fault {
        OpenFault::Keyring(e) => Some(key_reason(e)),
        OpenFault::Sealed(e) => seal_reason(e, safe),
    }
}

/// The lock reason of a key that cannot be had.
pub(super) fn key_reason(fault: &KeyringError) -> LockReason {
    let (code, key) = match fault {
        KeyringError::NotConfigured(key) => (LockCode::ProviderNotConfigured, key),
        KeyringError::NotPushed(key) => (LockCode::KeyNotPushed, key),
        KeyringError::Closed { key, .. } => (LockCode::ProviderUnavailable, key),
        KeyringError::Evicted(key) => (LockCode::LockedByOperator, key),
        KeyringError::Slow(key) => (LockCode::FetchFailed, key),
        KeyringError::Provider { key, source } => match **source {
            KmsError::NotFound { .. } => (LockCode::KeyNotFound, key),
            KmsError::Unavailable { .. } => (LockCode::ProviderUnavailable, key),
            KmsError::BadKey { .. } => (LockCode::WrongKey, key),
            _ => (LockCode::FetchFailed, key),
        },
    };
    let reason = vsphere_reason(fault).map(ToOwned::to_owned);
    LockReason { code, reason, key_id: Some(key.to_string()), detail: fault.to_string() }
}

/// vSphere's word for a key that cannot be had.
fn vsphere_reason(fault: &KeyringError) -> Option<&'static str> {
    match fault {
        KeyringError::Evicted(_) | KeyringError::NotPushed(_) => Some("KeyStateMissingInCache"),
        KeyringError::Slow(_) => Some("KeyStateClusterUnreachable"),
        KeyringError::NotConfigured(_) | KeyringError::Closed { .. } => {
            Some("KeyStateClusterInvalid")
        }
        KeyringError::Provider { source, .. } => source.reason(),
    }
}

/// The lock reason of a safe (or descriptor) that does not open or parse; `None` for faults of storage,
/// memory or version, which have codes of their own.
pub(super) fn seal_reason(fault: &SealError, safe: bool) -> Option<LockReason> {
    let (code, key) = match fault {
        SealError::WrongKey { key, .. } => (LockCode::WrongKey, Some(key.to_string())),
        SealError::DamagedWrap { key, .. } if safe => {
            (LockCode::SafeDamaged, Some(key.to_string()))
        }
        SealError::Missing { .. }
        | SealError::NotOurs { .. }
        | SealError::TooLarge { .. }
        | SealError::Damaged { .. }
        | SealError::NoWrap { .. }
        | SealError::MacMismatch { .. }
        | SealError::Misplaced { .. }
            if safe =>
        {
            (LockCode::SafeDamaged, None)
        }
        _ => return None,
    };
    Some(LockReason { code, reason: None, key_id: key, detail: fault.to_string() })
}

fn plain(fault: OpenFault) -> Fault {
    match fault {
        OpenFault::Sealed(e) => e.into(),
        // Every keyring fault is a lock reason.
        OpenFault::Keyring(e) => Fault::Bug(e.to_string()),
    }
}
