//! Telling other hosts that disks of a VM are attached here, and being told by them.
//!
//! Owns when the record of disks of this host is there (`cryptfs::lease`, [`Use::Disks`]): from before the first disk
//! is served until after the last. Must not decide what is done to disks. Flow: an attach sets the mark, the end of the
//! last disk, or of the vmd, takes it away; a verb that changes or removes disks asks [`Host::unused_elsewhere`] first. A
//! crash of the host leaves the mark, which the next hostd takes away when it finds that nothing serves the VM.

use super::Service;
use super::lease::{Wish, described, fault};
use crate::datastore::Datastore;
use crate::fault::Fault;
use crate::host::Host;
use crate::keys::now;
use crate::vm::{Inner, Vm};
use crate::warnings::Topic;
use cryptfs::folder::VmFolder;
use cryptfs::lease::{self, Leases, Record, Use};
use crypto::HomeKey;
use hostd_api::error::ErrorCode;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// The record of disks of this host.
#[derive(Debug)]
pub(super) struct Mark {
    folder: VmFolder,
    host: Uuid,
}

impl Mark {
    /// Takes it away: no disk of the VM is served by this host any more.
    pub(super) fn remove(&self) {
        if let Err(e) = lease::forget_disks(&self.folder, self.host) {
            tracing::warn!("other hosts still find disks in use: {e}");
        }
    }
}

impl Host {
    /// Tells other hosts that disks of the VM are in use, unless they know. A guest is served although they cannot be
    /// told, for example because the datastore is full: that is a warning.
    pub(crate) fn mark(&self, vm: &Vm, service: &mut Service, key: &HomeKey) {
        if service.mark.is_some() || self.datastore_of(vm).and_then(Datastore::writable).is_err() {
            return;
        }
        let leases = Leases::new(&vm.folder, vm.id, key, self.keyring.arena());
        let marked = leases
            .map_err(Fault::from)
            .and_then(|leases| self.put_mark(vm, &leases).map_err(|e| fault(vm, e, Wish::Use)));
        let name = Some(vm.name.as_str());
        match marked {
            Ok(()) => {
                service.mark = Some(self.mark_of(vm));
                self.withdraw(Topic::Mark, name);
            }
            Err(e) => {
                let name_of = &vm.name;
                let text =
                    format!("other hosts are not told that disks of VM {name_of} are in use: {e}");
                self.warn_while(Topic::Mark, name, text);
            }
        }
    }

    fn put_mark(&self, vm: &Vm, leases: &Leases) -> Result<(), lease::LeaseError> {
        if self.has_mark(vm) {
            return Ok(());
        }
        leases.take(&self.holder(), Use::Disks, false, now()).map(drop)
    }

    /// Whether the mark of this host is there.
    pub(super) fn has_mark(&self, vm: &Vm) -> bool {
        lease::has_disks(&vm.folder, self.state.host())
    }

    /// The mark that an earlier hostd has set, or that was just set.
    pub(super) fn mark_of(&self, vm: &Vm) -> Mark {
        Mark { folder: vm.folder.clone(), host: self.state.host() }
    }

    /// Takes the mark of a VM that runs on without disks away.
    pub(super) fn unmark(&self, service: &mut Service) {
        if service.disks.is_empty()
            && let Some(mark) = service.mark.take()
        {
            service.endings.run(move || mark.remove());
        }
    }

    /// Refuses while another host has disks of the VM attached, or its home alone; by force it does not.
    ///
    /// # Errors
    /// `in-use` naming the host, how and since when, and what to do, also when that cannot be told for want of the key;
    /// faults of the storage.
    pub(crate) fn unused_elsewhere(
        &self,
        vm: &Vm,
        inner: &mut Inner,
        force: bool,
    ) -> Result<(), Fault> {
        let own = self.state.host();
        let failed = |e| fault(vm, e, Wish::Disks);
        let named = lease::named(&vm.folder, own).map_err(failed);
        let told = named.and_then(|named| {
            if !named.disks && !named.exclusive {
                return Ok(None);
            }
            match self.open_safe(vm, inner) {
                Ok(safe) => {
                    let leases = Leases::new(&vm.folder, vm.id, &safe.key, self.keyring.arena())?;
                    Ok(leases.users(own).map_err(failed)?.into_iter().next())
                }
                // What a host had once is no reason to believe that one has it.
                Err(_) if !named.disks => Ok(None),
                Err(e) => Err(untold(vm, &e)),
            }
        });
        let refusal = match told {
            Ok(None) => return Ok(()),
            Ok(Some(by)) => in_use(vm, &by),
            Err(e) => e,
        };
        if !force {
            return Err(refusal);
        }
        tracing::warn!("disks of VM {} are changed by force: {refusal}", vm.name);
        Ok(())
    }

    /// Takes away the marks of VMs that do not run, which the end of an earlier run of this host has left. Each VM is
    /// looked at once.
    pub(crate) fn clear_marks(&self) {
        let mut answers: BTreeMap<&str, bool> = BTreeMap::new();
        let vms = self.inventory.all();
        for vm in vms.iter().filter(|vm| !vm.is_unmarked.load(Ordering::Relaxed)) {
            let Ok(store) = self.datastore_of(vm) else { continue };
            let usable = || store.answers() && store.writable().is_ok();
            if *answers.entry(store.name.as_str()).or_insert_with(usable)
                && let Some(inner) = vm.try_enter()
                && self.clear_mark(vm, &inner)
            {
                vm.is_unmarked.store(true, Ordering::Relaxed);
            }
        }
    }

    /// `false` when a process serves the VM that this hostd has not taken up.
    fn clear_mark(&self, vm: &Vm, inner: &Inner) -> bool {
        if inner.service.is_some() || !self.has_mark(vm) {
            return true;
        }
        let Ok(_alone) = self.exclusive(vm, inner) else { return false };
        self.mark_of(vm).remove();
        true
    }
}

fn in_use(vm: &Vm, by: &Record) -> Fault {
    Fault::refused(
        ErrorCode::InUse,
        format!("VM {} is in use by {}", vm.name, described(by)),
        Wish::Disks.remedy(vm),
    )
}

fn untold(vm: &Vm, why: &Fault) -> Fault {
    Fault::refused(
        ErrorCode::InUse,
        format!("another host seems to have disks of VM {} attached: {why}", vm.name),
        "bring its key back; if no host uses the VM, add --force",
    )
}

#[cfg(test)]
#[path = "mark_tests.rs"]
mod tests;
