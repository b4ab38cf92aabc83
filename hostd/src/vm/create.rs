//! Making VMs.
//!
//! Owns the order of steps that leaves nothing behind on a failure: a VM is built in a scratch folder and gets
//! its name by one rename at the end. What a crash leaves in a scratch folder is removed at the next start.

use super::{Access, Vm};
use crate::datastore::{Datastore, SCRATCH_PREFIX};
use crate::fault::Fault;
use crate::files;
use crate::host::Host;
use crate::inventory::parse_name;
use crate::service::check_socket_path;
use cryptfs::folder::VmFolder;
use cryptfs::name::Name;
use cryptfs::safe::{Names, Policy, Safe};
use cryptfs::seal;
use crypto::{HomeKey, KeyId};
use hostd_api::error::ErrorCode;
use hostd_api::types::{CreateVm, HomeNames, VmInfo};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

impl Host {
    /// `POST /v1/vms`: a new key, a new home key, a new safe.
    ///
    /// # Errors
    /// Refusals for the name and the datastore; `backup-required`; faults of provider and storage. Nothing
    /// is left in the datastore then.
    pub fn create_vm(self: &Arc<Self>, request: &CreateVm) -> Result<VmInfo, Fault> {
        let name = parse_name("VM", &request.name)?;
        self.refresh_datastores();
        let store = self.choose(request.datastore.as_deref())?;
        let _pass = store.admit()?;
        check_socket_path(&self.config.vm_runs().join(name.as_str()).join("vmd.sock"))?;
        let _kept = self.inventory.reserve(&name)?;
        store.writable()?;
        let target = store.path.join(name.as_str());
        if target.symlink_metadata().is_ok() {
            return Err(folder_taken(&target));
        }
        let scratch = Scratch::make(&store.path)?;
        let id = random_id()?;
        let key = self.key_for(request.key_id.as_deref())?;
        self.seal_new(&VmFolder::new(&scratch.path), id, &name, policy_of(request), &key)?;
        scratch.rename(&target)?;
        let vm = Vm::new(id, name, &store.name, VmFolder::new(&target), Access::Open);
        let vm = Arc::new(vm);
        if let Err(e) = self.inventory.insert(Arc::clone(&vm)) {
            discard(&target);
            return Err(e);
        }
        tracing::info!("VM {} was made in {} with key {key}", vm.name, store.name);
        let mut inner = vm.enter()?;
        Ok(self.vm_info(&vm, &mut inner))
    }

    fn choose(&self, name: Option<&str>) -> Result<&Datastore, Fault> {
        let mut stores = self.datastores.iter();
        let found = match name {
            None => stores.next(),
            Some(name) => stores.find(|d| d.name == name),
        };
        found.ok_or_else(|| {
            Fault::refused(
                ErrorCode::NotFound,
                format!("there is no datastore {:?} on this host", name.unwrap_or_default()),
                "see `coffer host status`",
            )
        })
    }

    /// Fills a VM folder: `home`, `disks`, a lock file, and a safe with a new home key wrapped by this KEK.
    fn seal_new(
        &self,
        folder: &VmFolder,
        id: Uuid,
        name: &Name,
        policy: Policy,
        key: &KeyId,
    ) -> Result<(), Fault> {
        for path in [folder.home(), folder.disks()] {
            files::folder(&path, 0o700, None)?;
        }
        // On a datastore that is read-only one day, none can be made.
        let lock = folder.lock();
        std::fs::File::create_new(&lock).map_err(Fault::io("make", &lock))?;
        let lease = self.keyring.lease(key, name.as_str()).map_err(|e| locked_out(name, &e))?;
        let arena = self.keyring.arena();
        let home = HomeKey::generate(arena)?;
        let mut safe = Safe::new(id, name.clone(), policy, Vec::new());
        safe.wraps = vec![super::open::wrap(&safe, &home, &lease, arena)?];
        seal::create(&folder.safe(), &mut safe, &home, arena)?;
        Ok(())
    }

    /// The key that a request names, if it may wrap anything new; else a new one.
    ///
    /// # Errors
    /// `invalid-argument` for what is no id; what the provider says against it; those of [`Host::new_key`].
    pub(crate) fn key_for(&self, wanted: Option<&str>) -> Result<KeyId, Fault> {
        let Some(wanted) = wanted else { return self.new_key() };
        let key = crate::plane::parse_key(wanted)?;
        self.keyring.may_wrap(&key)?;
        Ok(key)
    }

    /// A new key from the default provider.
    pub(crate) fn new_key(&self) -> Result<KeyId, Fault> {
        if let Some(provider) = self.keyring.providers().first() {
            return Ok(provider.create_key()?);
        }
        let closed = self.keyring.closed().first();
        let reason = closed.map_or("none is configured".to_owned(), |c| {
            format!("{} is not open: {}", c.name, c.reason)
        });
        Err(Fault::refused(
            ErrorCode::ProviderUnavailable,
            format!("there is no key provider to make a key: {reason}"),
            "see `coffer key status`",
        ))
    }
}

fn policy_of(request: &CreateVm) -> Policy {
    let names = match request.names {
        HomeNames::Plain => Names::Plain,
        HomeNames::Encrypted => Names::Encrypted,
    };
    Policy { names, ..Policy::default() }
}

/// The fault of a key that was just made but cannot be had.
pub(super) fn locked_out(name: &Name, fault: &crate::keyring::KeyringError) -> Fault {
    Fault::Locked { vm: name.to_string(), reason: super::open::key_reason(fault) }
}

/// A random (version 4) identity from the random source of `crypto`.
pub(super) fn random_id() -> Result<Uuid, Fault> {
    Ok(uuid::Builder::from_random_bytes(crypto::random_array()?).into_uuid())
}

pub(super) fn scratch_name(store: &Path) -> Result<PathBuf, Fault> {
    Ok(store.join(format!("{SCRATCH_PREFIX}{}", random_id()?)))
}

/// A folder that goes away again unless it gets its name.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn make(store: &Path) -> Result<Self, Fault> {
        let path = scratch_name(store)?;
        std::fs::create_dir(&path).map_err(Fault::io("make folder", &path))?;
        Ok(Self { path })
    }

    /// Gives the folder its name, which must be free.
    fn rename(self, target: &Path) -> Result<(), Fault> {
        files::sync_folder(&self.path)?;
        match rustix::fs::renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(folder_taken(target)),
            // File systems without that flag (NFS): an empty folder takes the name, since making one
            // never replaces, and rename replaces an empty folder.
            Err(Errno::INVAL | Errno::NOSYS) => {
                std::fs::create_dir(target).map_err(Fault::io("make folder", target))?;
                let renamed = std::fs::rename(&self.path, target);
                if renamed.is_err() {
                    let _gone = std::fs::remove_dir(target);
                }
                renamed.map_err(Fault::io("rename", &self.path))?;
            }
            Err(e) => return Err(Fault::io("rename", &self.path)(e)),
        }
        files::sync_folder(target.parent().unwrap_or(Path::new("/")))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.path.exists() {
            discard(&self.path);
        }
    }
}

/// Removes a folder that nobody can reach by name any more; a failure is left to the next start.
pub(super) fn discard(path: &Path) {
    if let Err(e) = std::fs::remove_dir_all(path) {
        tracing::warn!("cannot remove {}: {e}; the next start tries again", path.display());
    }
}

fn folder_taken(path: &Path) -> Fault {
    let is_empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    let remedy = if is_empty {
        "it is empty, as a creation leaves it that was cut short on NFS: remove it (rmdir), or choose another name"
    } else {
        "choose another name, or run `coffer vm register` if it is a VM"
    };
    Fault::refused(ErrorCode::AlreadyExists, format!("{} is there already", path.display()), remedy)
}
