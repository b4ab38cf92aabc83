//! Locking and unlocking a VM.
//!
//! Owns the order: remembered first, so that a crash in the middle locks more, not less; then served no more;
//! then its key dropped, unless another VM that may be used needs it.

use super::{Access, Vm};
use crate::fault::Fault;
use crate::host::Host;
use crate::service::Service;
use crypto::KeyId;
use hostd_api::types::{Force, VmInfo};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Host {
    /// `POST /v1/vms/{vm}/lock`. Locking a locked VM does nothing.
    ///
    /// # Errors
    /// `in-use` while it is used, unless forced, and while a process that is not under this hostd serves it; faults
    /// of state file, kernel and vmd. A forced lock takes effect even if it cannot be remembered.
    pub fn lock_vm(&self, name: &str, how: &Force) -> Result<VmInfo, Fault> {
        let vm = self.inventory.get(name)?;
        // By force it is not refused for the sake of storage that hangs.
        let _pass = if how.force { None } else { Some(self.datastore_of(&vm)?.admit_to_end()?) };
        let mut inner = if how.force { vm.enter_urgently() } else { vm.enter() }?;
        let _alone = match &inner.service {
            None if how.force && !self.datastore_of(&vm)?.answers() => {
                self.not_left_alone(&vm)?;
                None
            }
            _ => self.exclusive(&vm, &inner)?,
        };
        let mut remembered = Ok(());
        let mut keys = inner.service.as_ref().map(Service::key_ids).unwrap_or_default();
        if inner.access == Access::Open {
            // Keys that are named now are those to drop below.
            self.vm_info_soon(&vm, &mut inner);
            if !how.force {
                self.release(&vm, &mut inner, false)?;
            }
            let noted = self.state.set_locked(vm.id, true);
            if how.force {
                remembered = noted;
            } else {
                noted?;
            }
            inner.access = Access::Locked;
        }
        let released = self.release(&vm, &mut inner, true);
        keys.extend(vm.keys());
        self.drop_keys(&vm, &keys);
        // Also after a failure, as it is what is shown while the datastore does not answer.
        let info = self.vm_info_soon(&vm, &mut inner);
        released?;
        remembered?;
        Ok(info)
    }

    /// `POST /v1/vms/{vm}/unlock`. Unlocking an unlocked VM tries its keys again.
    ///
    /// # Errors
    /// `vm-locked` with the reason when its keys cannot be had; the operator's lock is gone then all the same.
    pub fn unlock_vm(&self, name: &str) -> Result<VmInfo, Fault> {
        let vm = self.inventory.get(name)?;
        let mut inner = self.enter(&vm)?;
        self.state.set_locked(vm.id, false)?;
        inner.access = Access::Open;
        self.vm_info(&vm, &mut inner);
        for key in vm.keys() {
            self.keyring.readmit(&key);
        }
        self.open_safe(&vm, &mut inner)?;
        Ok(self.vm_info(&vm, &mut inner))
    }

    /// Evicts the keys of a locked VM that no VM in use names.
    fn drop_keys(&self, vm: &Arc<Vm>, keys: &BTreeSet<KeyId>) {
        let others = self.inventory.all();
        for key in keys {
            let needed = others.iter().any(|other| {
                let open = other.try_enter().is_none_or(|i| i.access == Access::Open);
                other.id != vm.id && open && other.names_key(key)
            });
            if needed {
                tracing::info!("key {key} stays: another VM uses it");
            } else if let Err(users) = self.keyring.evict(key, false) {
                tracing::info!("key {key} stays: it is used by {}", users.join(", "));
            }
        }
    }

    /// Stops every running VM: exports drained, homes unmounted, keys wiped.
    pub fn drain(&self) {
        for vm in self.inventory.all() {
            let entered = vm.enter_urgently();
            let outcome = entered.and_then(|mut inner| self.release(&vm, &mut inner, true));
            if let Err(e) = outcome {
                tracing::error!("VM {} could not be stopped: {e}", vm.name);
            }
        }
        self.keyring.clear();
    }

    /// Number of VMs that run.
    pub fn running_vms(&self) -> usize {
        let running = |vm: &Arc<Vm>| {
            vm.try_enter().is_some_and(|i| i.service.as_ref().and_then(Service::pid).is_some())
        };
        self.inventory.all().iter().filter(|vm| running(vm)).count()
    }
}
