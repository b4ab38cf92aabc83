//! The right to check, repair or delete a home, kept from other hosts by a lease as long as it takes.
//!
//! Owns [`Claimed`]; must not know what is done under it. Flow: a verb claims, asks [`Claimed::why_end`] while it works
//! when that takes long, and drops the claim when nothing of it writes any more.

use super::lease::{Kept, Wish, fault};
use crate::fault::Fault;
use crate::host::Host;
use crate::keys::now;
use crate::vm::{Opened, Vm};
use cryptfs::lease::{Claim, LeaseError, Leases, Use};
use cryptfs::safe::Safe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The right to check or delete a home; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Claimed {
    right: Right,
}

#[derive(Debug)]
enum Right {
    /// Nobody had the home when it began, which is all that a look needs.
    Looked,
    /// A lease for a moment.
    Taken { leases: Leases, claim: Claim },
    /// A lease that is renewed, and whether it was lost.
    Kept { lease: Kept, lost: Arc<AtomicBool> },
}

impl Claimed {
    /// Nothing is given back: the records are to go with the home.
    pub(crate) fn abandon(mut self) {
        self.right = Right::Looked;
    }

    /// Why what is done to the home must end at once, when it must.
    pub(crate) fn why_end(&self) -> Option<&'static str> {
        match &self.right {
            Right::Kept { lost, .. } if lost.load(Ordering::Acquire) => {
                Some("another host took the home by force")
            }
            _ => None,
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        match &self.right {
            Right::Looked => {}
            Right::Taken { leases, claim } => {
                if let Err(e) = leases.release(claim, now()) {
                    tracing::warn!("other hosts still find the home held: {e}");
                }
            }
            Right::Kept { lease, .. } if self.why_end().is_some() => lease.yield_up(),
            Right::Kept { lease, .. } => lease.release(),
        }
    }
}

impl Host {
    /// Makes sure that no other host changes the home during a check. For a repair none can begin to, either, and one
    /// that takes the home by force ends it: see [`Claimed::why_end`].
    ///
    /// # Errors
    /// `in-use` with who holds it, since when, and what to do; faults of the storage.
    pub(crate) fn claim_for_check(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        safe: &Opened<Safe>,
        repair: bool,
    ) -> Result<Claimed, Fault> {
        let leases = Leases::new(&vm.folder, vm.id, &safe.key, self.keyring.arena())?;
        let failed = |e| fault(vm, e, Wish::Use);
        if repair {
            let claim = self.claim(vm, &leases, Use::Exclusive, false).map_err(failed)?;
            let lost = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&lost);
            let lease = self.keep(vm, leases, claim, move |_, why| {
                tracing::warn!("{why}: its repair ends");
                flag.store(true, Ordering::Release);
            })?;
            return Ok(Claimed { right: Right::Kept { lease, lost } });
        }
        let own = self.holder().id;
        let holders = leases.holders().map_err(failed)?;
        match holders.into_iter().find(|record| record.host != own) {
            Some(other) => Err(failed(LeaseError::Held(Box::new(other)))),
            None => Ok(Claimed { right: Right::Looked }),
        }
    }

    /// Makes sure that no other host uses the home, or begins to, before it is deleted. By force it is taken from
    /// another host, which is given time to stop.
    ///
    /// # Errors
    /// `in-use` with who holds it, since when, and what to do; faults of the storage.
    pub(crate) fn claim_for_deletion(
        &self,
        vm: &Vm,
        safe: &Opened<Safe>,
        force: bool,
    ) -> Result<Claimed, Fault> {
        let leases = Leases::new(&vm.folder, vm.id, &safe.key, self.keyring.arena())?;
        let taken = self.claim(vm, &leases, Use::Exclusive, force);
        let claim = taken.map_err(|e| fault(vm, e, Wish::Deletion))?;
        Ok(Claimed { right: Right::Taken { leases, claim } })
    }
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
