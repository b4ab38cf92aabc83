//! Taking up the leases of homes that an earlier hostd has mounted.
//!
//! Owns when that is tried; must not know the rules of leases (`cryptfs::lease`), nor how a home is stopped (`home`).
//! Flow: an adoption tries once, with the key of the home; what it could not take up then, because no provider gave the
//! key or the storage failed, is tried again every few seconds. Until then nobody renews the lease of such a home, and
//! nobody sees that another host took it. Key servers that hang are waited for before the VM is entered, so its verbs are not.

use super::Service;
use super::lease::{Kept, Wish, fault, how, lost};
use crate::fault::Fault;
use crate::host::Host;
use crate::keyring::Lease;
use crate::vm::{Inner, Vm};
use crate::warnings::Topic;
use cryptfs::lease::{LeaseError, Leases, Record};
use crypto::HomeKey;
use hostd_api::types::HomeMode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one look goes on to the next home: keys that a provider does not give take seconds each. The next look begins with
/// the home that has waited for longest.
const LOOK_TIME: Duration = Duration::from_secs(2);

/// What became of the lease of an adopted home.
enum Resumed {
    /// It is renewed again.
    Kept(Kept),
    /// Another host has the home, as this says; with what this one must yield when it has stopped.
    Lost(String, Option<Kept>),
}

impl Host {
    /// Takes up the lease of an adopted home that lacks it. Tells why the home must be stopped, if another host has it.
    pub(super) fn hold_again(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        service: &mut Service,
        key: &HomeKey,
    ) -> Option<String> {
        let home = service.home.as_mut().filter(|home| home.unheld().is_some())?;
        if !self.can_hold(vm) {
            return None;
        }
        let leases = Leases::new(&vm.folder, vm.id, key, self.keyring.arena());
        let resumed =
            leases.map_err(Fault::from).and_then(|l| self.resume_lease(vm, l, home.mode()));
        match resumed {
            Ok(Resumed::Kept(lease)) => {
                home.hold(lease);
                self.withdraw(Topic::Lease, Some(vm.name.as_str()));
            }
            Ok(Resumed::Lost(why, left)) => {
                if let Some(left) = left {
                    home.hold(left);
                }
                return Some(why);
            }
            // Served on, and tried again: nobody is known to have taken it.
            Err(e) => self.warn_while(
                Topic::Lease,
                Some(vm.name.as_str()),
                format!("the lease of the home of VM {} cannot be taken up: {e}", vm.name),
            ),
        }
        None
    }

    /// Tries again for every home that lacks its lease; one look at a time.
    pub(crate) fn hold_missed(self: &Arc<Self>) {
        let Ok(_holding) = self.holding.try_lock() else { return };
        let lacking = self.inventory.all().into_iter().filter_map(|vm| {
            let tried = vm.try_enter()?.service.as_ref()?.home.as_ref()?.unheld()?;
            Some((tried, vm))
        });
        let mut lacking: Vec<(Instant, Arc<Vm>)> = lacking.collect();
        lacking.sort_by_key(|(tried, _)| *tried);
        let end = Instant::now() + LOOK_TIME;
        for (_, vm) in lacking.into_iter().take_while(|_| Instant::now() < end) {
            let lease = if self.can_hold(&vm) { self.home_lease(&vm) } else { None };
            if let Some(mut inner) = vm.try_enter() {
                self.hold_missed_of(&vm, &mut inner, lease);
            }
        }
    }

    fn hold_missed_of(self: &Arc<Self>, vm: &Arc<Vm>, inner: &mut Inner, lease: Option<Lease>) {
        let Some(home) = inner.service.as_mut().and_then(|s| s.home.as_mut()) else { return };
        home.not_held(Instant::now());
        let Some(lease) = lease else { return };
        let opened = match self.open_safe_with(vm, inner, lease) {
            Ok(opened) => opened,
            Err(e) => {
                tracing::debug!("the lease of the home of VM {} waits: {e}", vm.name);
                return;
            }
        };
        let Some(service) = inner.service.as_mut() else { return };
        let lost = self.hold_again(vm, service, &opened.key);
        service.keep(opened.lease);
        let held = service.home.as_ref().is_some_and(|home| home.unheld().is_none());
        if let Some(why) = lost {
            self.stop_lost(vm, inner, &why);
        } else if held {
            tracing::info!("the lease of the home of VM {} was taken up", vm.name);
        }
    }

    /// Whether the datastore is there and can be written; leases are on no other.
    fn can_hold(&self, vm: &Vm) -> bool {
        self.datastore_of(vm).is_ok_and(|store| store.answers() && store.writable().is_ok())
    }

    fn resume_lease(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        leases: Leases,
        mode: HomeMode,
    ) -> Result<Resumed, Fault> {
        let failed = |e| fault(vm, e, Wish::Use);
        let found = leases.resume(&self.holder(), how(mode)).map_err(failed)?;
        let claim = match (found, mode) {
            (Some(claim), _) => claim,
            (None, HomeMode::Shared) => match self.claim(vm, &leases, how(mode), false) {
                Ok(claim) => claim,
                Err(LeaseError::Held(by)) => {
                    return Ok(self.lost_before(vm, leases, mode, Some(&by)));
                }
                Err(e) => return Err(failed(e)),
            },
            (None, HomeMode::Exclusive) => {
                let by = leases.last().map_err(failed)?;
                return Ok(self.lost_before(vm, leases, mode, by.as_ref()));
            }
        };
        self.keep_lease(vm, leases, claim).map(Resumed::Kept)
    }
    /// A lease that another host took before this one looked. Without the own record that one waits as for a dead host.
    fn lost_before(&self, vm: &Vm, leases: Leases, mode: HomeMode, by: Option<&Record>) -> Resumed {
        let left = leases.left(&self.holder(), how(mode)).unwrap_or_else(|e| {
            tracing::warn!(
                "nobody tells who took the home of VM {} that it has stopped: {e}",
                vm.name
            );
            None
        });
        Resumed::Lost(lost(vm, by), left.map(|claim| Kept::lapsed(leases, claim)))
    }
}
