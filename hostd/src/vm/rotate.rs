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
use hostd_api::error::ErrorCode;
use hostd_api::types::{RotateKeys, RotateReport, RotatedVm};
use kms_client::KeyProvider;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// What a rotation is to do, for all of its VMs.
struct Plan {
    /// The key to wrap by; a new one of the default provider where none is named.
    wanted: Option<KeyId>,
    /// Nothing new is made.
    rewrap: bool,
    /// Although another host uses a VM.
    force: bool,
    /// Keys that got a new version. VMs may share one, and one version is enough.
    renewed: BTreeSet<KeyId>,
}

impl Host {
    /// `POST /v1/keys/rotate`: one VM or all. A VM that fails does not stop the others.
    ///
    /// # Errors
    /// `not-found` for a VM that is named; `invalid-argument` for a key that is none, and what its provider says against it.
    pub fn rotate_keys(&self, request: &RotateKeys) -> Result<RotateReport, Fault> {
        if request.rewrap && request.key_id.is_some() {
            return Err(Fault::refused(
                ErrorCode::InvalidArgument,
                "a key was named, but rewrapping keeps the key of each VM".to_owned(),
                "leave out one of the two",
            ));
        }
        let vms = match &request.vm {
            Some(name) => vec![self.inventory.get(name)?],
            None => self.inventory.all(),
        };
        let mut plan = Plan {
            wanted: request.key_id.as_deref().map(|id| self.key_for(Some(id))).transpose()?,
            rewrap: request.rewrap,
            force: request.force,
            renewed: BTreeSet::new(),
        };
        let rotated = vms.iter().map(|vm| self.rotate_vm(vm, &mut plan));
        Ok(RotateReport { vms: rotated.collect() })
    }

    fn rotate_vm(&self, vm: &Arc<Vm>, plan: &mut Plan) -> RotatedVm {
        let mut rewrapped = 0;
        let outcome = self.enter(vm).and_then(|mut inner| {
            let key = self.rotate_files(vm, &mut inner, plan, &mut rewrapped)?;
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
        plan: &mut Plan,
        rewrapped: &mut u32,
    ) -> Result<KeyId, Fault> {
        let opened = self.open_safe(vm, inner)?;
        self.datastore_of(vm)?.writable()?;
        let _lock = self.exclusive(vm, inner)?;
        self.unused_elsewhere(vm, inner, plan.force)?;
        super::disk::disks_folder(vm)?;
        let disks = disk_names(&vm.folder.disks());
        // Every descriptor must open before anything is written: the old key is needed for all of them.
        for disk in &disks {
            self.open_disk(vm, inner, disk)?;
        }
        if let Some(keeper) = self.keeper(&opened, plan) {
            let id = opened.lease.id().clone();
            if !plan.rewrap && plan.renewed.insert(id.clone()) {
                keeper.renew(&id)?;
            }
            *rewrapped = self.renew_wraps(vm, inner, opened, &disks)?;
            return Ok(id);
        }
        if plan.rewrap && opened.body.wraps().len() == 1 {
            return Ok(opened.lease.id().clone());
        }
        let target = self.target(vm, &opened, plan.wanted.as_ref())?;
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
    fn keeper(&self, safe: &Opened<Safe>, plan: &Plan) -> Option<Arc<dyn KeyProvider>> {
        let keeper = safe.lease.keeper()?;
        if plan.wanted.as_ref().is_some_and(|wanted| wanted != safe.lease.id()) {
            return None;
        }
        let stays = plan.rewrap || self.keyring.providers().first()?.name() == keeper.name();
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

    /// The new key: the one that is wanted, else that of an unfinished rotation, else a fresh one.
    fn target(&self, vm: &Vm, safe: &Opened<Safe>, wanted: Option<&KeyId>) -> Result<Lease, Fault> {
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
