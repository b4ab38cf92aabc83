//! Shallow recrypt: a new KEK for a VM, its safe and descriptors wrapped anew. Data is not touched.
//!
//! Owns the order that keeps every file openable. First each file gets the new wrap beside the old one, the safe
//! first; then each loses the old ones, the safe last. So a failure in the first half leaves all files openable
//! by the old key, one in the second half by the new key, and a safe with two wraps tells the next rotation
//! to finish this one.

use super::create::locked_out;
use super::info::disk_names;
use super::{Inner, Opened, Vm};
use crate::fault::Fault;
use crate::host::Host;
use crate::keyring::Lease;
use cryptfs::name::Name;
use cryptfs::seal::{self, Body, Wrap};
use crypto::KeyId;
use hostd_api::types::{RotateKeys, RotateReport, RotatedVm};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

impl Host {
    /// `POST /v1/keys/rotate`: one VM or all. A VM that fails does not stop the others.
    ///
    /// # Errors
    /// `not-found` for a VM that is named; `invalid-argument` for a key that is none, and what its provider says against it.
    pub fn rotate_keys(&self, request: &RotateKeys) -> Result<RotateReport, Fault> {
        let vms = match &request.vm {
            Some(name) => vec![self.inventory.get(name)?],
            None => self.inventory.all(),
        };
        let wanted = request.key_id.as_deref().map(|id| self.key_for(Some(id))).transpose()?;
        let rotated = vms.iter().map(|vm| self.rotate_vm(vm, wanted.as_ref(), request.force));
        Ok(RotateReport { vms: rotated.collect() })
    }

    fn rotate_vm(&self, vm: &Arc<Vm>, wanted: Option<&KeyId>, force: bool) -> RotatedVm {
        let mut rewrapped = 0;
        let outcome = self.enter(vm).and_then(|mut inner| {
            let key = self.rotate_files(vm, &mut inner, wanted, &mut rewrapped, force)?;
            self.vm_info(vm, &mut inner);
            Ok(key)
        });
        let (key_id, error) = match outcome {
            Ok(key) => (Some(key.to_string()), None),
            Err(Fault::Refused(refusal)) => {
                (None, Some(format!("{}; {}", refusal.message, refusal.remedy)))
            }
            Err(e) => (None, Some(e.to_string())),
        };
        RotatedVm { vm: vm.name.to_string(), key_id, rewrapped, error }
    }

    fn rotate_files(
        &self,
        vm: &Vm,
        inner: &mut Inner,
        wanted: Option<&KeyId>,
        rewrapped: &mut u32,
        force: bool,
    ) -> Result<KeyId, Fault> {
        let opened = self.open_safe(vm, inner)?;
        self.datastore_of(vm)?.writable()?;
        let _lock = self.exclusive(vm, inner)?;
        self.unused_elsewhere(vm, inner, force)?;
        super::disk::disks_folder(vm)?;
        let disks = disk_names(&vm.folder.disks());
        // Every descriptor must open before anything is written: the old key is needed for all of them.
        for disk in &disks {
            self.open_disk(vm, inner, disk)?;
        }
        let target = self.target(vm, &opened, wanted)?;
        self.add_wraps(vm, inner, opened, &disks, &target)?;
        *rewrapped = self.drop_wraps(vm, inner, &disks, &target)?;
        if let Some(service) = &mut inner.service {
            let id = target.id().clone();
            service.keep(target);
            service.keep_only(&BTreeSet::from([id.clone()]));
            return Ok(id);
        }
        Ok(target.id().clone())
    }

    /// The new key: the one that is wanted, else that of an unfinished rotation, else a fresh one.
    fn target(
        &self,
        vm: &Vm,
        safe: &Opened<cryptfs::safe::Safe>,
        wanted: Option<&KeyId>,
    ) -> Result<Lease, Fault> {
        let key = match (wanted, safe.body.wraps()) {
            (Some(wanted), _) => wanted.clone(),
            (None, [_, .., last]) => last.key.clone(),
            (None, _) => self.new_key()?,
        };
        self.keyring.lease(&key, vm.name.as_str()).map_err(|e| locked_out(&vm.name, &e))
    }

    /// First half: the new wrap beside the old ones.
    fn add_wraps(
        &self,
        vm: &Vm,
        inner: &mut Inner,
        safe: Opened<cryptfs::safe::Safe>,
        disks: &BTreeSet<Name>,
        target: &Lease,
    ) -> Result<(), Fault> {
        self.rewrap(&vm.folder.safe(), safe, target, false)?;
        for disk in disks {
            let opened = self.open_disk(vm, inner, disk)?;
            self.rewrap(&vm.folder.descriptor(disk), opened, target, false)?;
        }
        Ok(())
    }

    /// Second half: the old wraps go. Returns the number of files that have the new one alone.
    fn drop_wraps(
        &self,
        vm: &Vm,
        inner: &mut Inner,
        disks: &BTreeSet<Name>,
        target: &Lease,
    ) -> Result<u32, Fault> {
        let mut rewrapped = 0;
        for disk in disks {
            let opened = self.open_disk(vm, inner, disk)?;
            self.rewrap(&vm.folder.descriptor(disk), opened, target, true)?;
            rewrapped += 1;
        }
        let opened = self.open_safe(vm, inner)?;
        self.rewrap(&vm.folder.safe(), opened, target, true)?;
        Ok(rewrapped + 1)
    }

    /// Writes one file with the new wrap, alone or beside the others; a file that is so already is left.
    fn rewrap<B: Body>(
        &self,
        path: &Path,
        mut opened: Opened<B>,
        target: &Lease,
        alone: bool,
    ) -> Result<(), Fault> {
        let id = target.id();
        let old = opened.body.wraps();
        let has = old.iter().any(|wrap| wrap.key == *id);
        if has && (!alone || old.len() == 1) {
            return Ok(());
        }
        let new = Wrap::make(target.kek(), id, &opened.key)?;
        let kept = old.iter().filter(|wrap| !alone && wrap.key != *id).cloned();
        let wraps: Vec<Wrap> = kept.chain([new]).collect();
        opened.body.set_wraps(wraps);
        seal::replace(path, &mut opened.body, &opened.key, self.keyring.arena())?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
