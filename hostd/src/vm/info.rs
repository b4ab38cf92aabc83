//! What the API shows of VMs and disks.
//!
//! Owns the way from files and running services to [`VmInfo`] and [`DiskInfo`]; changes nothing. A damaged
//! descriptor becomes a disk in state `damaged` and never hides the others.

use super::open::{key_reason, locked_by_operator, operator_lock, seal_reason};
use super::{Access, Inner, Vm};
use crate::datastore::Datastore;
use crate::fault::Fault;
use crate::host::Host;
use crate::service::{Home, Served, Service};
use cryptfs::descriptor::{Descriptor, State};
use cryptfs::folder::disk_of;
use cryptfs::name::Name;
use cryptfs::safe::{Names, Safe};
use cryptfs::seal::{Body, Sealed};
use crypto::KeyId;
use hostd_api::error::{ErrorCode, LockCode, LockReason};
use hostd_api::types::{Attachment, DiskInfo, DiskState, HomeNames, VmInfo, VmState};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// Most disks shown of one VM; a VM has a handful, and a folder full of rubbish must not fill memory.
pub(super) const MAX_DISKS: usize = 256;

impl Host {
    /// All VMs. One that a verb works on, or whose datastore does not answer, is shown as it was last seen.
    pub fn list_vms(self: &Arc<Self>) -> Vec<VmInfo> {
        self.refresh_datastores();
        let hung: Vec<&str> = {
            let stores = self.datastores.iter().filter(|store| !store.answers());
            stores.map(|store| store.name.as_str()).collect()
        };
        let vms = self.inventory.all();
        let seen = |vm: &Arc<Vm>| {
            if hung.contains(&vm.datastore.as_str()) { vm.last() } else { self.glance(vm) }
        };
        vms.iter().filter_map(seen).collect()
    }

    /// One VM; does not wait for a verb that runs on it, if it was ever shown before, nor for its datastore.
    ///
    /// # Errors
    /// A refusal with code `not-found` or `invalid-argument`; `storage` when its datastore does not answer and it
    /// was never shown before.
    pub fn show_vm(&self, name: &str) -> Result<VmInfo, Fault> {
        let vm = self.inventory.get(name)?;
        let store = self.datastore_of(&vm)?;
        if !store.answers() {
            let message = format!("datastore {} of VM {} does not answer", store.name, vm.name);
            let remedy = "bring its storage back; VMs that run are served on";
            return vm.last().ok_or_else(|| Fault::refused(ErrorCode::Storage, message, remedy));
        }
        match self.glance(&vm) {
            Some(info) => Ok(info),
            None => Ok(self.vm_info(&vm, &mut *vm.enter()?)),
        }
    }

    /// The disks of a VM.
    ///
    /// # Errors
    /// A refusal with code `not-found` or `invalid-argument`.
    pub fn list_disks(&self, name: &str) -> Result<Vec<DiskInfo>, Fault> {
        Ok(self.show_vm(name)?.disks)
    }

    /// One disk.
    ///
    /// # Errors
    /// A refusal with code `not-found` or `invalid-argument`.
    pub fn show_disk(&self, name: &str, disk: &str) -> Result<DiskInfo, Fault> {
        let vm = self.inventory.get(name)?;
        let disk = crate::inventory::parse_name("disk", disk)?;
        let found = self.list_disks(name)?.into_iter().find(|d| d.name == disk.as_str());
        found.ok_or_else(|| super::open::no_disk(&vm, &disk))
    }

    fn glance(&self, vm: &Arc<Vm>) -> Option<VmInfo> {
        match vm.try_enter() {
            Some(inner) if inner.access == Access::Deleted => None,
            Some(mut inner) => Some(self.vm_info(vm, &mut inner)),
            None => vm.last(),
        }
    }

    /// The VM as it is now; as far as this host knows by itself while its datastore does not answer.
    pub(crate) fn vm_info_soon(&self, vm: &Vm, inner: &mut Inner) -> VmInfo {
        if self.datastore_of(vm).is_ok_and(Datastore::answers) {
            return self.vm_info(vm, inner);
        }
        let info = self.as_known(vm, inner);
        vm.set_last(&info);
        info
    }

    /// A disk of such a VM.
    pub(super) fn disk_as_known(&self, vm: &Vm, inner: &Inner, disk: &Name) -> DiskInfo {
        let disks = self.as_known(vm, inner).disks;
        disks.into_iter().find(|known| known.name == disk.as_str()).unwrap_or_else(|| {
            let served = inner.service.as_ref().and_then(|s| s.disks.get(disk));
            damaged(disk, served, 0, "its datastore does not answer".to_owned())
        })
    }

    /// What was last seen of a VM, with what this host has changed since.
    fn as_known(&self, vm: &Vm, inner: &Inner) -> VmInfo {
        let service = inner.service.as_ref();
        let home = service.and_then(|s| s.home.as_ref());
        let (last, keys) = (vm.last(), vm.keys());
        let lock = match inner.access {
            Access::Open => inner.trouble.clone(),
            Access::Locked | Access::Deleted => Some(locked_by_operator(keys.first().cloned())),
        };
        let mut disks = last.as_ref().map(|info| info.disks.clone()).unwrap_or_default();
        for disk in &mut disks {
            let is_served = |s: &Service| s.disks.keys().any(|name| name.as_str() == disk.name);
            if !service.is_some_and(is_served) {
                disk.attachment = None;
                if disk.state == DiskState::Attached {
                    disk.state = DiskState::Detached;
                }
            }
        }
        VmInfo {
            name: vm.name.to_string(),
            id: vm.id,
            datastore: vm.datastore.clone(),
            path: vm.folder.path().to_owned(),
            state: state_of(inner, lock.as_ref()),
            lock,
            key_ids: last.as_ref().map(|info| info.key_ids.clone()).unwrap_or_default(),
            names: last.and_then(|info| info.names),
            home: home.and_then(Home::target).map(Into::into),
            home_mount: home.map(Home::info),
            home_problem: inner.home_problem.clone(),
            vmd_pid: service.and_then(Service::pid),
            vmd_restarts: inner.restarts,
            tls: self.tls_info(vm, service.and_then(Service::tls_address), 0),
            disks,
        }
    }

    /// The VM as it is now.
    pub(crate) fn vm_info(&self, vm: &Vm, inner: &mut Inner) -> VmInfo {
        let safe = Sealed::<Safe>::read(&vm.folder.safe());
        let safe_keys = safe.as_ref().map(keys_of).unwrap_or_default();
        let clients = inner.service.as_mut().map(Service::clients).transpose();
        let clients = clients.unwrap_or_else(|e| {
            tracing::debug!("clients of VM {} are not known: {e}", vm.name);
            None
        });
        let clients = clients.unwrap_or_default();
        let disks = disks_of(vm, inner.service.as_ref(), &clients.disks);
        let open = inner.service.as_ref().and_then(Service::tls_address);
        let used = disks.iter().flat_map(|d| &d.key_ids).filter_map(|id| id.parse().ok());
        vm.set_keys(used.chain(safe_keys.iter().cloned()).collect());
        let broken = safe.as_ref().err().and_then(|e| seal_reason(e, true));
        let lock = self.lock_state(vm, inner, broken, &safe_keys);
        let home = inner.service.as_ref().and_then(|s| s.home.as_ref());
        let info = VmInfo {
            name: vm.name.to_string(),
            id: vm.id,
            datastore: vm.datastore.clone(),
            path: vm.folder.path().to_owned(),
            state: state_of(inner, lock.as_ref()),
            lock,
            key_ids: safe_keys.iter().map(ToString::to_string).collect(),
            names: safe.as_ref().ok().map(|safe| home_names(safe.unverified())),
            home: home.and_then(Home::target).map(Into::into),
            home_mount: home.map(Home::info),
            home_problem: inner.home_problem.clone(),
            vmd_pid: inner.service.as_ref().and_then(Service::pid),
            vmd_restarts: inner.restarts,
            tls: self.tls_info(vm, open, clients.tls),
            disks,
        };
        vm.set_last(&info);
        info
    }

    /// Why a VM is locked, told without fetching a key.
    fn lock_state(
        &self,
        vm: &Vm,
        inner: &Inner,
        broken: Option<LockReason>,
        keys: &[KeyId],
    ) -> Option<LockReason> {
        if inner.access != Access::Open {
            return Some(operator_lock(vm));
        }
        let shut = || {
            let mut faults = keys.iter().map(|key| self.keyring.unreachable(key));
            // One provider that can be asked is enough.
            faults.clone().all(|f| f.is_some()).then(|| faults.next().flatten())?
        };
        broken.or_else(|| shut().map(|e| key_reason(&e))).or_else(|| self.trouble(inner))
    }

    /// Why the safe did not open last, unless it waited for a key that was pushed since.
    fn trouble(&self, inner: &Inner) -> Option<LockReason> {
        let trouble = inner.trouble.clone()?;
        if trouble.code != LockCode::KeyNotPushed {
            return Some(trouble);
        }
        let key = trouble.key_id.as_deref().and_then(|id| id.parse().ok());
        let still = key.is_none_or(|key| self.keyring.unreachable(&key).is_some());
        still.then_some(trouble)
    }
}

/// How names in the home are stored.
pub(crate) fn home_names(safe: &Safe) -> HomeNames {
    match safe.policy.names {
        Names::Plain => HomeNames::Plain,
        Names::Encrypted => HomeNames::Encrypted,
    }
}

fn state_of(inner: &Inner, lock: Option<&LockReason>) -> VmState {
    match &inner.service {
        Some(service) if service.has_failed() => VmState::Failed,
        Some(_) => VmState::Running,
        None if lock.is_some() => VmState::Locked,
        None => VmState::Unlocked,
    }
}

fn keys_of<B: Body>(sealed: &Sealed<B>) -> Vec<KeyId> {
    sealed.key_ids().cloned().collect()
}

/// Every disk of a VM, by name, with `clients` of the running ones.
fn disks_of(vm: &Vm, service: Option<&Service>, clients: &BTreeMap<Name, u32>) -> Vec<DiskInfo> {
    let served = |name: &Name| service.and_then(|s| s.disks.get(name));
    let of =
        |name: &Name| disk_info(vm, name, served(name), clients.get(name).copied().unwrap_or(0));
    disk_names(&vm.folder.disks()).iter().map(of).collect()
}

/// Names of the disks in a folder; a folder that cannot be read has none.
pub(super) fn disk_names(folder: &Path) -> BTreeSet<Name> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().to_str().and_then(disk_of));
    names.take(MAX_DISKS).collect()
}

/// One disk as it is now.
pub(super) fn disk_info(vm: &Vm, name: &Name, served: Option<&Served>, clients: u32) -> DiskInfo {
    let path = vm.folder.descriptor(name);
    let read = Sealed::<Descriptor>::read(&path).and_then(|sealed| {
        sealed.unverified().check_place(&path, name, vm.id)?;
        Ok(sealed)
    });
    let sealed = match read {
        Ok(sealed) => sealed,
        Err(e) => return damaged(name, served, clients, e.to_string()),
    };
    let body = sealed.unverified();
    let (allocated, problem) = payload(&payload_path(vm, body), body.size);
    let state = match body.state {
        _ if problem.is_some() => DiskState::Damaged,
        State::Importing => DiskState::Importing,
        State::Ready if served.is_some() => DiskState::Attached,
        State::Ready => DiskState::Detached,
    };
    DiskInfo {
        name: name.to_string(),
        id: body.id,
        size: body.size,
        allocated,
        unit: body.unit,
        key_ids: sealed.key_ids().map(ToString::to_string).collect(),
        state,
        problem,
        attachment: served.map(|s| attachment(name, s, clients)),
    }
}

/// Where the payload of a disk is. The descriptor's reader has checked that it is a plain file name.
pub(super) fn payload_path(vm: &Vm, descriptor: &Descriptor) -> PathBuf {
    vm.folder.disks().join(&descriptor.payload)
}

fn damaged(name: &Name, served: Option<&Served>, clients: u32, problem: String) -> DiskInfo {
    DiskInfo {
        name: name.to_string(),
        id: Uuid::nil(),
        size: 0,
        allocated: 0,
        unit: 0,
        key_ids: Vec::new(),
        state: DiskState::Damaged,
        problem: Some(problem),
        attachment: served.map(|s| attachment(name, s, clients)),
    }
}

/// Bytes that a payload occupies, and what is wrong with it.
fn payload(path: &Path, size: u64) -> (u64, Option<String>) {
    match path.symlink_metadata() {
        Err(e) => (0, Some(format!("{}: {e}", path.display()))),
        Ok(m) if !m.is_file() => (0, Some(format!("{} is not a plain file", path.display()))),
        Ok(m) if m.len() < size => {
            let short = format!("{} has {} bytes, not {size}", path.display(), m.len());
            (m.blocks() * 512, Some(short))
        }
        Ok(m) => (m.blocks() * 512, None),
    }
}

fn attachment(name: &Name, served: &Served, clients: u32) -> Attachment {
    Attachment {
        socket: served.socket.clone(),
        uri: format!("nbd+unix:///{name}?socket={}", escape(&served.socket)),
        read_only: served.read_only,
        cache: served.cache,
        clients,
    }
}

/// Percent-encodes what a path may hold and a URI query may not (RFC 3986 section 3.4).
fn escape(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' => {
                text.push(char::from(*byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_quote_what_a_query_may_not_hold() {
        assert_eq!(
            escape(Path::new("/run/coffer/vm/web01/root.sock")),
            "/run/coffer/vm/web01/root.sock"
        );
        assert_eq!(escape(Path::new("/a b/&#?%")), "/a%20b/%26%23%3F%25");
    }
}
