//! Keeping what this host has of a home: the lease is renewed while the home is served, and serving ends when another
//! host took over.
//!
//! Owns one thread a mounted home, and when it looks; the rules of leases are those of `cryptfs::lease`. Must not
//! know mounts: `home` stops what is served. Flow: `home` takes a lease and gives it to [`Host::keep_lease`]; the thread
//! writes to the storage now and then, and calls [`Host::fence`] when the lease is lost.

use crate::fault::Fault;
use crate::host::Host;
use crate::keys::now;
use crate::vm::Vm;
use crate::warnings::Topic;
use cryptfs::lease::{Claim, Holder, LeaseError, Leases, Record, Renewal, Taken, Use};
use hostd_api::error::ErrorCode;
use hostd_api::types::HomeMode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a host says that it is there, and looks whether it still may serve. A host that takes over by force waits
/// for this, and each time costs two small flushes of the datastore.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// How long a host that takes over waits for the other to stop: it has found out after one period, and then ends what
/// it serves. One that is dead never says so.
const LEAVE_WAIT: Duration = Duration::from_secs(15);

/// How often that is looked at. Each look is a read on what may be a network file system.
const LEAVE_STEP: Duration = Duration::from_millis(250);

/// Stack of the thread: it waits nearly all its life, and the process locks its memory.
const STACK: usize = 256 * 1024;

/// A lease that is being renewed until this is dropped. Dropping does not give it back.
#[derive(Debug)]
pub(crate) struct Kept {
    held: Arc<Held>,
    epoch: Option<u64>,
    /// The thread ends with this.
    _alive: Sender<()>,
}

/// What thread and service share.
#[derive(Debug)]
pub(crate) struct Held {
    leases: Leases,
    /// Nothing once it is over; the lock keeps a late renewal from undoing that.
    claim: Mutex<Option<Claim>>,
}

impl Held {
    fn claim(&self) -> MutexGuard<'_, Option<Claim>> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews; `None` when it is over.
    fn renew(&self) -> Option<Result<Renewal, LeaseError>> {
        let mut claim = self.claim();
        Some(self.leases.renew(claim.as_mut()?, now()))
    }

    /// Whether it has been given back or given up.
    pub(super) fn is_over(&self) -> bool {
        self.claim().is_none()
    }

    fn end(&self, end: impl FnOnce(&Leases, &Claim) -> Result<(), LeaseError>) {
        if let Some(claim) = self.claim().take()
            && let Err(e) = end(&self.leases, &claim)
        {
            tracing::warn!("other hosts still find the home held: {e}");
        }
    }
}

impl Kept {
    /// A lease that was lost before it could be renewed again, and is kept to be yielded.
    pub(super) fn lapsed(leases: Leases, claim: Claim) -> Self {
        let epoch = (claim.how() == Use::Exclusive).then(|| claim.epoch());
        let (alive, _) = channel();
        Self {
            held: Arc::new(Held { leases, claim: Mutex::new(Some(claim)) }),
            epoch,
            _alive: alive,
        }
    }

    /// Gives the lease back; other hosts may take it now.
    pub(super) fn release(&self) {
        self.held.end(|leases, claim| leases.release(claim, now()));
    }

    /// Tells the host that took over that nothing is served here any more.
    pub(super) fn yield_up(&self) {
        self.held.end(|leases, claim| leases.yield_to(claim, now()));
    }

    /// Whether the lease still is ours, as the storage says now.
    ///
    /// # Errors
    /// A refusal that names who took over; faults of the storage.
    pub(super) fn check(&self, vm: &Vm) -> Result<(), Fault> {
        match self.held.renew() {
            Some(Ok(Renewal::Stands)) => Ok(()),
            Some(Ok(Renewal::Lost(by))) => {
                Err(Fault::refused(ErrorCode::InUse, lost(vm, by.as_deref()), LOOK_THERE))
            }
            Some(Err(e)) => Err(fault(vm, e, Wish::Use)),
            None => Err(Fault::Bug("a lease that is over".into())),
        }
    }

    /// Whether it is this one.
    pub(super) fn is(&self, held: &Arc<Held>) -> bool {
        Arc::ptr_eq(&self.held, held)
    }

    /// Number of the lease, when it is an exclusive one.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.epoch
    }
}

impl Host {
    /// Takes the home of a VM and removes what that makes void. After a take-over by force it waits until the other
    /// host has stopped, or long enough.
    pub(super) fn claim(
        &self,
        vm: &Vm,
        leases: &Leases,
        how: Use,
        force: bool,
    ) -> Result<Claim, LeaseError> {
        let taken = leases.take(&self.holder(), how, force, now())?;
        self.await_ousted(vm, leases, &taken);
        if let Err(e) = leases.clear(&taken) {
            tracing::warn!("old leases of VM {} stay: {e}", vm.name);
        }
        Ok(taken.claim)
    }

    /// This host, as leases name it.
    pub(super) fn holder(&self) -> Holder {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Holder { id: self.state.host(), name }
    }

    /// Takes the home of a VM. After a take-over by force it waits until the other host has stopped, or long enough.
    ///
    /// # Errors
    /// `in-use` with who holds it, since when, and what to do; faults of the storage.
    pub(super) fn take_lease(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        leases: Leases,
        mode: HomeMode,
        force: bool,
    ) -> Result<Kept, Fault> {
        vm.endings.wait()?;
        let taken = self.claim(vm, &leases, how(mode), force);
        let claim = taken.map_err(|e| fault(vm, e, Wish::Use))?;
        self.keep_lease(vm, leases, claim)
    }

    fn await_ousted(&self, vm: &Vm, leases: &Leases, taken: &Taken) {
        let end = Instant::now() + LEAVE_WAIT;
        for other in &taken.ousted {
            tracing::warn!("the home of VM {} is taken from {}", vm.name, described(other));
            while !leases.has_left(other).unwrap_or(false) {
                if Instant::now() >= end {
                    self.warn(
                        Some(vm.name.as_str()),
                        format!(
                            "the home of VM {} was taken from {}, which did not say that it has stopped: make \
                             sure that it is off, or serves this home no more",
                            vm.name,
                            described(other)
                        ),
                    );
                    break;
                }
                std::thread::sleep(LEAVE_STEP);
            }
        }
    }

    /// Renews the lease of a mounted home from now on.
    ///
    /// # Errors
    /// Those of [`Host::keep`].
    pub(super) fn keep_lease(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        leases: Leases,
        claim: Claim,
    ) -> Result<Kept, Fault> {
        let (host, vm_copy) = (Arc::clone(self), Arc::clone(vm));
        let stop = move |held: &Arc<Held>, why: &str| host.fence(&vm_copy, held, why);
        self.keep(vm, leases, claim, stop)
    }

    /// Renews a lease from now on; `lost` is called with the reason when another host took it.
    ///
    /// # Errors
    /// [`Fault::Io`] when there is no thread for it; it is given back then.
    pub(super) fn keep(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        leases: Leases,
        claim: Claim,
        lost: impl FnOnce(&Arc<Held>, &str) + Send + 'static,
    ) -> Result<Kept, Fault> {
        let epoch = (claim.how() == Use::Exclusive).then(|| claim.epoch());
        let held = Arc::new(Held { leases, claim: Mutex::new(Some(claim)) });
        let (alive, ended) = channel();
        let (host, vm_copy, copy) = (Arc::clone(self), Arc::clone(vm), Arc::clone(&held));
        let name = format!("lease-{}", vm.name);
        let thread = std::thread::Builder::new().name(name).stack_size(STACK);
        let kept = Kept { held, epoch, _alive: alive };
        let renew = move || {
            if let Some(why) = host.renew(&vm_copy, &copy, &ended) {
                lost(&copy, &why);
            }
        };
        match thread.spawn(renew) {
            Ok(_) => Ok(kept),
            Err(e) => {
                kept.release();
                Err(Fault::Io { doing: "renew", path: vm.folder.leases(), source: e })
            }
        }
    }

    /// Renews until the lease is over, or lost: then it tells who has it.
    fn renew(&self, vm: &Vm, held: &Held, ended: &Receiver<()>) -> Option<String> {
        let name = Some(vm.name.as_str());
        let mut has_failed = false;
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(RENEW_EVERY) {
            match held.renew()? {
                Ok(Renewal::Stands) if has_failed => {
                    self.withdraw(Topic::Lease, name);
                    has_failed = false;
                }
                Ok(Renewal::Stands) => {}
                Ok(Renewal::Lost(by)) => return Some(lost(vm, by.as_deref())),
                // The home is served on: nobody has taken it as far as is known, and its own I/O fails as well.
                Err(e) => {
                    let text =
                        format!("the lease of the home of VM {} cannot be renewed: {e}", vm.name);
                    self.warn_while(Topic::Lease, name, text);
                    has_failed = true;
                }
            }
        }
        None
    }
}

/// What to do about a home that another host took.
const LOOK_THERE: &str = "use it there; to have it back, unmount it there first";

pub(super) fn how(mode: HomeMode) -> Use {
    match mode {
        HomeMode::Exclusive => Use::Exclusive,
        HomeMode::Shared => Use::Shared,
    }
}

/// `host node2 (6f9619ff-...), exclusively since 2026-11-25 08:30:00 UTC`.
pub(super) fn described(record: &Record) -> String {
    let how = match record.how {
        Use::Exclusive => "exclusively",
        Use::Shared => "shared",
        Use::Disks => "with disks attached",
    };
    format!("host {} ({}), {how} since {}", record.host_name, record.host, utc(record.since))
}

pub(super) fn lost(vm: &Vm, by: Option<&Record>) -> String {
    let by =
        by.map_or_else(|| "its lease is gone".to_owned(), |by| format!("by {}", described(by)));
    format!("the home of VM {} was taken over, {by}", vm.name)
}

/// What a home is wanted for, or the disks beside it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wish {
    Use,
    Deletion,
    Disks,
}

impl Wish {
    /// What to do about another host that has it.
    pub(super) fn remedy(self, vm: &Vm) -> String {
        let gone = "unmount it there; if that host is off or lost for good,";
        match self {
            Self::Use => format!(
                "{gone} `coffer vm mount --force` takes it over: what it had not written yet is lost"
            ),
            Self::Deletion => {
                format!("{gone} `coffer vm delete {} --force` deletes it all the same", vm.name)
            }
            Self::Disks => "detach its disks and unmount its home there; if that host is off or lost for good, add \
                            --force"
                .to_owned(),
        }
    }
}

pub(super) fn fault(vm: &Vm, error: LeaseError, wish: Wish) -> Fault {
    match error {
        LeaseError::Held(record) => Fault::refused(
            ErrorCode::InUse,
            format!(
                "the home of VM {} is held by {}, last renewed {}",
                vm.name,
                described(&record),
                utc(record.renewed)
            ),
            wish.remedy(vm),
        ),
        LeaseError::Record(e) => e.into(),
        LeaseError::Folder { path, action, source } => Fault::Io { doing: action, path, source },
        LeaseError::Raced => Fault::refused(ErrorCode::InUse, error.to_string(), "try again"),
        LeaseError::Crowded { .. } => Fault::refused(
            ErrorCode::Damaged,
            error.to_string(),
            "keep the files whose names begin with `exclusive.` and `shared.`",
        ),
    }
}

/// A time in seconds since 1970 as people write it, by the calendar of RFC 3339 (days to date: the civil calendar
/// counted in years that begin in March, so that the leap day is the last).
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, shifted) = (day - (153 * month + 2) / 5 + 1, month >= 10);
    let month = if shifted { month - 9 } else { month + 3 };
    let year = year + era * 400 + u64::from(shifted);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
