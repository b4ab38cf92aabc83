//! Deleting VMs.
//!
//! Owns when a VM may go, and the order of steps: the home is claimed, so that no other host begins to use it, then
//! the name is taken away, and the files go last. What a crash leaves of them is removed at the next start.

use super::create::{discard, scratch_name};
use super::{Access, Inner, Vm};
use crate::fault::Fault;
use crate::files;
use crate::host::Host;
use crate::service::claim::Claimed;
use hostd_api::error::ErrorCode;
use hostd_api::types::{Force, VmInfo};
use std::io::ErrorKind;
use std::path::Path;

impl Host {
    /// `DELETE /v1/vms/{vm}`: the folder with everything in it, for good.
    ///
    /// # Errors
    /// `in-use` while it runs, and while another host has its home or its disks, unless forced; `vm-locked` while an operator keeps
    /// it locked; faults of the storage.
    pub fn delete_vm(&self, name: &str, how: &Force) -> Result<VmInfo, Fault> {
        let vm = self.inventory.get(name)?;
        let mut inner = self.enter(&vm)?;
        if inner.service.is_some() {
            return Err(Fault::refused(
                ErrorCode::InUse,
                format!("VM {} is running", vm.name),
                format!("detach its disks and run `coffer vm umount {}` first", vm.name),
            ));
        }
        self.allowed(&vm, &inner)?;
        self.datastore_of(&vm)?.writable()?;
        let info = self.vm_info(&vm, &mut inner);
        let lock = self.exclusive(&vm, &inner)?;
        let claim = self.claim_to_delete(&vm, &mut inner, how.force)?;
        self.unused_elsewhere(&vm, &mut inner, how.force)?;
        let parent = vm.folder.path().parent().unwrap_or(Path::new("/"));
        let scratch = scratch_name(&self.datastore_of(&vm)?.path)?;
        std::fs::rename(vm.folder.path(), &scratch)
            .map_err(Fault::io("rename", vm.folder.path()))?;
        if let Some(claim) = claim {
            // Its record goes with the folder.
            claim.abandon();
        }
        inner.access = Access::Deleted;
        self.inventory.remove(&vm.name);
        drop(lock);
        for forgotten in [
            files::sync_folder(parent),
            self.state.set_registered(vm.folder.path(), false),
            self.state.set_tls_port(vm.id, None),
        ] {
            if let Err(e) = forgotten {
                tracing::warn!("after the deletion of VM {}: {e}", vm.name);
            }
        }
        discard(&scratch);
        Ok(info)
    }

    /// Makes sure that no other host has the home; a VM that was never mounted needs no key for it.
    fn claim_to_delete(
        &self,
        vm: &Vm,
        inner: &mut Inner,
        force: bool,
    ) -> Result<Option<Claimed>, Fault> {
        if !was_mounted(vm)? {
            return Ok(None);
        }
        let untold = match self.open_safe(vm, inner) {
            Ok(safe) => match self.claim_for_deletion(vm, &safe, force) {
                Ok(claim) => return Ok(Some(claim)),
                Err(fault) if !force => return Err(fault),
                Err(fault) => fault,
            },
            Err(fault) => fault,
        };
        if force {
            tracing::warn!("VM {} is deleted without a look at other hosts: {untold}", vm.name);
            return Ok(None);
        }
        Err(Fault::refused(
            ErrorCode::InUse,
            format!("nobody knows whether another host has the home of VM {}: {untold}", vm.name),
            format!(
                "bring its key back; if no host uses it, `coffer vm delete {} --force`",
                vm.name
            ),
        ))
    }
}

/// Whether a host has ever had the home: a lease that was given back leaves its file.
fn was_mounted(vm: &Vm) -> Result<bool, Fault> {
    let path = vm.folder.leases();
    match std::fs::read_dir(&path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Fault::io("list", &path)(e)),
    }
}
