//! Shallow recrypt: a new KEK for a VM, its safe and descriptors wrapped anew. Data is not touched.
//!
//! Owns the order that keeps every file openable. First each file gets the new wrap beside the old one, the safe
//! first; then each loses the old ones, the safe last. So a failure in the first half leaves all files openable
//! by the old key, one in the second half by the new key, and a safe with two wraps tells the next rotation
//! to finish this one.
//!
//! A key that its provider keeps gets a new version instead, and each file is wrapped anew by the same key. Each file is replaced as
//! a whole, and the old version opens what is not replaced yet, so that a stop anywhere leaves all files openable.

use super::create::locked_out;
use super::info::disk_names;
use super::{Inner, Opened, Vm};
use crate::fault::Fault;
use crate::host::Host;
use crate::keyring::Lease;
use cryptfs::name::Name;
use cryptfs::safe::Safe;
use cryptfs::seal::{self, Body, Wrap, WrapAlg};
use crypto::KeyId;
use hostd_api::types::{RotateKeys, RotateReport, RotatedVm};
use kms_client::KeyProvider;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

impl Host {
    /// `POST /v1/keys/rotate`: one VM or all. A VM that fails does not stop the others.
    ///
    /// # Errors
    /// `not-found` for a VM that is named.
    pub fn rotate_keys(&self, request: &RotateKeys) -> Result<RotateReport, Fault> {
        let vms = match &request.vm {
            Some(name) => vec![self.inventory.get(name)?],
            None => self.inventory.all(),
        };
        // VMs may share a key; one new version is enough.
        let mut renewed = BTreeSet::new();
        let rotated = vms.iter().map(|vm| self.rotate_vm(vm, request.rewrap, &mut renewed));
        Ok(RotateReport { vms: rotated.collect() })
    }

    fn rotate_vm(&self, vm: &Arc<Vm>, rewrap: bool, renewed: &mut BTreeSet<KeyId>) -> RotatedVm {
        let mut rewrapped = 0;
        let outcome = self.enter(vm).and_then(|mut inner| {
            let key = self.rotate_files(vm, &mut inner, rewrap, renewed, &mut rewrapped)?;
            self.vm_info(vm, &mut inner);
            Ok(key)
        });
        let (key_id, error) = match outcome {
            Ok(key) => (Some(key.to_string()), None),
            Err(e) => (None, Some(e.to_string())),
        };
        RotatedVm { vm: vm.name.to_string(), key_id, rewrapped, error }
    }

    fn rotate_files(
        &self,
        vm: &Vm,
        inner: &mut Inner,
        rewrap: bool,
        renewed: &mut BTreeSet<KeyId>,
        rewrapped: &mut u32,
    ) -> Result<KeyId, Fault> {
        let opened = self.open_safe(vm, inner)?;
        self.datastore_of(vm)?.writable()?;
        let _lock = self.exclusive(vm, inner)?;
        super::disk::disks_folder(vm)?;
        let disks = disk_names(&vm.folder.disks());
        // Every descriptor must open before anything is written: the old key is needed for all of them.
        for disk in &disks {
            self.open_disk(vm, inner, disk)?;
        }
        if let Some(keeper) = self.keeper(&opened, rewrap) {
            let id = opened.lease.id().clone();
            if !rewrap && renewed.insert(id.clone()) {
                keeper.renew(&id)?;
            }
            *rewrapped = self.renew_wraps(vm, inner, opened, &disks)?;
            return Ok(id);
        }
        if rewrap && opened.body.wraps().len() == 1 {
            return Ok(opened.lease.id().clone());
        }
        let target = self.target(vm, &opened)?;
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

    /// The provider whose key stays and is wrapped by anew: one that keeps its keys, and that new keys come from. None while a
    /// rotation to another key is unfinished.
    fn keeper(&self, safe: &Opened<Safe>, rewrap: bool) -> Option<Arc<dyn KeyProvider>> {
        let keeper = safe.lease.keeper()?;
        let stays = rewrap || self.keyring.providers().first()?.name() == keeper.name();
        (stays && safe.body.wraps().len() == 1).then(|| Arc::clone(keeper))
    }

    /// Wraps every file anew by the key of the safe, and by that alone. Returns the number of files that were replaced.
    pub(super) fn renew_wraps(
        &self,
        vm: &Vm,
        inner: &mut Inner,
        safe: Opened<Safe>,
        disks: &BTreeSet<Name>,
    ) -> Result<u32, Fault> {
        let lease = self.keyring.lease(safe.lease.id(), vm.name.as_str());
        let lease = lease.map_err(|e| locked_out(&vm.name, &e))?;
        let mut replaced = u32::from(self.renew_wrap(&vm.folder.safe(), safe, &lease)?);
        for disk in disks {
            let opened = self.open_disk(vm, inner, disk)?;
            replaced += u32::from(self.renew_wrap(&vm.folder.descriptor(disk), opened, &lease)?);
        }
        Ok(replaced)
    }

    /// Wraps one file anew; one that has the newest version already is left, and `false` said.
    fn renew_wrap<B: Body>(
        &self,
        path: &Path,
        mut opened: Opened<B>,
        target: &Lease,
    ) -> Result<bool, Fault> {
        let arena = self.keyring.arena();
        let new = super::open::wrap(&opened.body, &opened.key, target, arena)?;
        if let [old] = opened.body.wraps()
            && old.key == new.key
            && version(old).is_some_and(|old| Some(old) == version(&new))
        {
            return Ok(false);
        }
        opened.body.set_wraps(vec![new]);
        seal::replace(path, &mut opened.body, &opened.key, arena)?;
        Ok(true)
    }

    /// The new key: that of an unfinished rotation, else a fresh one.
    fn target(&self, vm: &Vm, safe: &Opened<Safe>) -> Result<Lease, Fault> {
        let key = match safe.body.wraps() {
            [_, .., last] => last.key.clone(),
            _ => self.new_key()?,
        };
        self.keyring.lease(&key, vm.name.as_str()).map_err(|e| locked_out(&vm.name, &e))
    }

    /// First half: the new wrap beside the old ones.
    fn add_wraps(
        &self,
        vm: &Vm,
        inner: &mut Inner,
        safe: Opened<Safe>,
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
        let new = super::open::wrap(&opened.body, &opened.key, target, self.keyring.arena())?;
        let kept = old.iter().filter(|wrap| !alone && wrap.key != *id).cloned();
        let wraps: Vec<Wrap> = kept.chain([new]).collect();
        opened.body.set_wraps(wraps);
        seal::replace(path, &mut opened.body, &opened.key, self.keyring.arena())?;
        Ok(())
    }
}

/// The version of the key in the blob of a transit engine, `vault:vN:...`.
fn version(wrap: &Wrap) -> Option<&[u8]> {
    let text = (wrap.alg == WrapAlg::Transit).then_some(wrap.blob.as_slice())?;
    text.split(|byte| *byte == b':').nth(1)
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
