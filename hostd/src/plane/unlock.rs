//! VMs that waited for a key that was pushed now.
//!
//! Owns one thread at most, whatever number of pushes comes: more keys join those that it works on. It must not know how keys
//! come. Flow: each VM that names one of the keys has its safe opened, which takes its lock away or tells the next reason;
//! one that runs since before hostd started gets what a restart of its vmd needs, too. VMs that a verb works on come last.

use super::ControlPlane;
use crate::host::Host;
use crate::vm::{Access, Inner, Vm};
use crypto::KeyId;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether the thread runs, and for which keys it has yet to look.
#[derive(Debug, Default)]
pub(crate) struct Unlocker(Mutex<Work>);

#[derive(Debug, Default)]
enum Work {
    #[default]
    None,
    For(BTreeSet<KeyId>),
}

impl Unlocker {
    /// Adds keys; `true` when there is no thread yet, which the caller then starts.
    fn add(&self, keys: BTreeSet<KeyId>) -> bool {
        let mut work = self.work();
        match &mut *work {
            Work::For(others) => {
                others.extend(keys);
                false
            }
            Work::None => {
                *work = Work::For(keys);
                true
            }
        }
    }

    /// The keys to look for; nothing when there are none, and the thread ends.
    fn next(&self) -> Option<BTreeSet<KeyId>> {
        let mut work = self.work();
        match &mut *work {
            Work::For(keys) if !keys.is_empty() => Some(std::mem::take(keys)),
            _ => {
                *work = Work::None;
                None
            }
        }
    }

    /// A panic elsewhere leaves one of the two states.
    fn work(&self) -> MutexGuard<'_, Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// Has the VMs looked at that wait for these keys, by a thread of its own.
    pub(super) fn unlock_waiting(self: &Arc<Self>, plane: &ControlPlane, keys: BTreeSet<KeyId>) {
        if keys.is_empty() || !plane.unlocker.add(keys) {
            return;
        }
        let host = Arc::clone(self);
        let work = move || {
            while let Some(keys) = host.plane.as_ref().and_then(|plane| plane.unlocker.next()) {
                host.unlock_for(&keys);
            }
        };
        let started = std::thread::Builder::new().name("unlock".into()).spawn(work);
        if let Err(e) = started {
            // What is shown of a VM is right without; a verb opens it all the same.
            tracing::warn!("VMs that wait for pushed keys are not looked at: {e}");
            let _keys = plane.unlocker.next();
            let _none = plane.unlocker.next();
        }
    }

    fn unlock_for(self: &Arc<Self>, keys: &BTreeSet<KeyId>) {
        let waiting = |vm: &Arc<Vm>| keys.iter().any(|key| vm.names_key(key));
        let mut busy = Vec::new();
        for vm in self.inventory.all().into_iter().filter(waiting) {
            // A datastore that hangs is not waited for: its VMs open when somebody asks for them.
            let Ok(_pass) = self.datastore_of(&vm).and_then(crate::datastore::Datastore::admit)
            else {
                continue;
            };
            let entered = vm.try_enter().map(|mut inner| self.open_now(&vm, &mut inner));
            if entered.is_none() {
                busy.push(Arc::clone(&vm));
            }
        }
        for vm in busy {
            if let Ok(mut inner) = self.enter(&vm) {
                self.open_now(&vm, &mut inner);
            }
        }
    }

    fn open_now(self: &Arc<Self>, vm: &Arc<Vm>, inner: &mut Inner) {
        if inner.access != Access::Open {
            return;
        }
        if inner.service.is_some() {
            self.calm(vm.name.as_str());
            self.lease_anew(vm, inner);
            return;
        }
        match self.open_safe(vm, inner) {
            Ok(_opened) => tracing::info!("VM {} can be used: its key was pushed", vm.name),
            Err(e) => tracing::warn!("VM {} stays locked after a push of its key: {e}", vm.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_join_the_thread_that_works_and_it_ends_with_the_last() {
        let set =
            |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect::<BTreeSet<KeyId>>();
        let unlocker = Unlocker::default();
        assert!(unlocker.add(set(&["k/1"])));
        assert_eq!(unlocker.next(), Some(set(&["k/1"])));
        assert!(!unlocker.add(set(&["k/2"])), "the thread still runs");
        assert!(!unlocker.add(set(&["k/2", "k/3"])));
        assert_eq!(unlocker.next(), Some(set(&["k/2", "k/3"])));
        assert_eq!(unlocker.next(), None);
        assert!(unlocker.add(set(&["k/4"])), "it has ended");
    }
}
