//! Leases: which hosts use the home of a VM, kept beside it on the storage (`docs/format.md`, "Leases").
//!
//! Owns the rules by which hosts that share a storage, and nothing else, agree that one of them uses a home alone;
//! must not know what using it means, nor any clock. Flow: [`Leases::take`] claims, [`Leases::renew`] says now and
//! then that the host is there and finds out when another took over, [`Leases::release`] gives back.
//!
//! Nothing here relies on locks, which not every network file system passes between hosts. An exclusive lease is a
//! file named by its number, the epoch: it is made by a rename or link that fails when there is one (atomic on local
//! file systems, NFS and cluster file systems alike, rename(2) and link(2)), the highest number counts, and only its
//! maker writes to it. So taking over is making the next number, of two hosts that try one succeeds, and a holder
//! that was gone for however long sees that it has been replaced.
//!
//! A record of disks claims nothing of the home. It tells other hosts that disks of the VM are attached, so that they
//! leave these alone ([`Leases::users`]).

mod disks;
mod files;
mod record;

pub use disks::{Named, forget_disks, has_disks, named};
pub use record::{Holder, Record, Standing, Use};

use crate::folder::VmFolder;
use crate::seal::SealError;
use crate::seal::store::Put;
use crypto::{Arena, HomeKey, MacKey};
use files::{Files, Found, MAX_FILES, Newest};
use std::io;
use std::path::PathBuf;
use thiserror::Error;
use uuid::Uuid;

/// How often a claim begins anew because another host was faster by a moment.
const MAX_RACES: usize = 8;

/// Why a lease was not taken.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// Another host uses the home; the record says which, how and since when.
    #[error("host {} ({}) uses it", .0.host_name, .0.host)]
    Held(Box<Record>),
    /// A record cannot be read or written.
    #[error(transparent)]
    Record(#[from] SealError),
    /// The folder cannot be read or made.
    #[error("cannot {action} {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What was tried, a verb.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// There are more files than hosts could have made.
    #[error("{} has more than {MAX_FILES} files: remove those that are no leases", path.display())]
    Crowded {
        /// The folder.
        path: PathBuf,
    },
    /// Other hosts take it again and again.
    #[error("other hosts keep taking the home at this moment: try again")]
    Raced,
}

/// What a host has of a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    record: Record,
}

impl Claim {
    /// How the home is used.
    #[must_use]
    pub fn how(&self) -> Use {
        self.record.how
    }

    /// Number of the exclusive lease; of a shared claim, of the last one when it was made.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.record.epoch
    }

    /// Whether the exclusive lease that counts is one that ends this claim.
    fn is_lost_to(&self, last: &Record) -> bool {
        match self.how() {
            Use::Exclusive => last.epoch > self.epoch() || last.host != self.record.host,
            Use::Shared => last.is_held_by_other(self.record.host),
            // It is no claim on the home.
            Use::Disks => false,
        }
    }
}

/// A claim that was taken, and from whom.
#[derive(Debug)]
pub struct Taken {
    /// The claim.
    pub claim: Claim,
    /// Records of other hosts that it was taken from by force. They may not know yet; see [`Leases::has_left`].
    pub ousted: Vec<Record>,
}

/// What became of a claim.
#[derive(Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It stands.
    Stands,
    /// Another host took the home: what was served must stop at once. Without a record the claim itself is gone.
    Lost(Option<Box<Record>>),
}

/// The leases of one home.
#[derive(Debug)]
pub struct Leases {
    vm: Uuid,
    files: Files,
}

impl Leases {
    /// The leases of the home of `vm`, in its folder, authenticated by a key derived from the home key.
    ///
    /// # Errors
    /// [`SealError::Key`] when the arena has no room.
    pub fn new(
        folder: &VmFolder,
        vm: Uuid,
        home: &HomeKey,
        arena: &Arena,
    ) -> Result<Self, SealError> {
        let folder = folder.leases();
        let key = MacKey::derive(home, arena, record::MAC_INFO)
            .map_err(|source| SealError::Key { path: folder.clone(), source })?;
        Ok(Self { vm, files: Files { folder, vm, key } })
    }

    /// Claims the home for `holder`. What an earlier run of the same host left is taken over without a question;
    /// what another host holds only by `force`.
    ///
    /// # Errors
    /// [`LeaseError::Held`] and nothing is changed; faults of the storage.
    pub fn take(
        &self,
        holder: &Holder,
        how: Use,
        force: bool,
        now: u64,
    ) -> Result<Taken, LeaseError> {
        self.files.make_folder()?;
        for _ in 0..MAX_RACES {
            let found = self.files.look()?;
            let others = others(&found, how, holder.id);
            if let (Some(other), false) = (others.first(), force) {
                return Err(LeaseError::Held(Box::new(other.clone())));
            }
            let claimed = match how {
                Use::Exclusive => self.claim(&found, holder, how, now)?,
                Use::Shared => self.join(&found, holder, !others.is_empty(), now)?,
                Use::Disks => Some(self.put_disks(holder, now)?),
            };
            if let Some(claim) = claimed {
                return self.confirm(claim, others, force, now);
            }
        }
        Err(LeaseError::Raced)
    }

    /// Looks once more, as another host may have begun between the look and the claim. Each host looks after it has
    /// claimed, so that at least one of two sees the other. By force, too, an exclusive lease that was taken since
    /// stands in the way: it is the newer one. Unless the claim is confirmed it is given back.
    fn confirm(
        &self,
        claim: Claim,
        mut ousted: Vec<Record>,
        force: bool,
        now: u64,
    ) -> Result<Taken, LeaseError> {
        let later = self.files.look().map(|found| others(&found, claim.how(), claim.record.host));
        let refused = match later {
            Ok(later) => match later.iter().find(|r| !force || r.how == Use::Exclusive) {
                Some(other) => LeaseError::Held(Box::new(other.clone())),
                None => {
                    let known =
                        |r: &Record| ousted.iter().any(|o| o.how == r.how && o.host == r.host);
                    let new: Vec<Record> = later.into_iter().filter(|r| !known(r)).collect();
                    ousted.extend(new);
                    return Ok(Taken { claim, ousted });
                }
            },
            Err(e) => e,
        };
        self.release(&claim, now)?;
        Err(refused)
    }

    /// Makes the next exclusive lease; `None` when another host was faster.
    fn claim(
        &self,
        found: &Found,
        holder: &Holder,
        how: Use,
        now: u64,
    ) -> Result<Option<Claim>, LeaseError> {
        let epoch = found.epoch.checked_add(1).ok_or(LeaseError::Raced)?;
        let record = Record::new(self.vm, how, epoch, holder, now);
        match self.files.put(&record, Put::New) {
            Ok(()) => {}
            Err(LeaseError::Record(SealError::Exists { .. })) => return Ok(None),
            Err(e) => return Err(e),
        }
        let claim = Claim { record };
        // An earlier run of this host may have left its shared record, which would outlive the lease.
        if found.shared.iter().any(|shared| shared.host == holder.id)
            && let Err(e) = self.files.remove(&self.files.shared_path(holder.id))
        {
            self.release(&claim, now)?;
            return Err(e);
        }
        Ok(Some(claim))
    }

    /// Makes the shared record of a host, after an end was put to an exclusive lease that stands in its way; `None`
    /// when another host was faster.
    fn join(
        &self,
        found: &Found,
        holder: &Holder,
        oust: bool,
        now: u64,
    ) -> Result<Option<Claim>, LeaseError> {
        let mut epoch = found.epoch;
        let own = |record: &Record| record.host == holder.id && record.standing == Standing::Held;
        if oust || found.last.as_ref().is_some_and(own) {
            let Some(claim) = self.claim(found, holder, Use::Exclusive, now)? else {
                return Ok(None);
            };
            epoch = claim.epoch();
            self.release(&claim, now)?;
        }
        let record = Record::new(self.vm, Use::Shared, epoch, holder, now);
        self.files.put(&record, Put::Over)?;
        Ok(Some(Claim { record }))
    }

    /// The claim that an earlier run of the same host left, when it still stands. Records of hosts that cannot matter
    /// are not read, so that a damaged one does not keep a host from what it has.
    ///
    /// # Errors
    /// Faults of the storage; a record that would tell cannot be read.
    pub fn resume(&self, holder: &Holder, how: Use) -> Result<Option<Claim>, LeaseError> {
        let own = |r: &Record| r.host == holder.id && r.standing == Standing::Held;
        let shared = match how {
            Use::Exclusive => None,
            Use::Shared | Use::Disks => {
                match self.files.read(&self.files.host_path(how, holder.id))? {
                    Some(record) if own(&record) => Some(record),
                    _ => return Ok(None),
                }
            }
        };
        if how == Use::Disks {
            return Ok(shared.map(|record| Claim { record }));
        }
        let Newest { record: last, flaw } =
            self.files.newest(shared.as_ref().map_or(0, |record| record.epoch))?;
        match (last, shared) {
            (Some(last), _) if last.is_held_by_other(holder.id) => Ok(None),
            (_, Some(shared)) => Ok(Some(Claim { record: shared })),
            (Some(last), None) if own(&last) => Ok(Some(Claim { record: last })),
            (Some(last), None) if last.host != holder.id => Ok(None),
            _ => flaw.map_or(Ok(None), |flaw| Err(flaw.into())),
        }
    }

    /// What an earlier run of the same host left as held, also where another host took the home since: for
    /// [`Leases::yield_to`].
    ///
    /// # Errors
    /// Faults of the storage.
    pub fn left(&self, holder: &Holder, how: Use) -> Result<Option<Claim>, LeaseError> {
        let found = match how {
            Use::Exclusive => self.files.newest_of(holder.id)?,
            Use::Shared | Use::Disks => self.files.read(&self.files.host_path(how, holder.id))?,
        };
        let held = found.filter(|r| r.host == holder.id && r.standing == Standing::Held);
        Ok(held.map(|record| Claim { record }))
    }

    /// The exclusive lease that counts, as far as it can be read.
    ///
    /// # Errors
    /// Faults of the storage.
    pub fn last(&self) -> Result<Option<Record>, LeaseError> {
        Ok(self.files.newest(0)?.record)
    }

    /// Says that the holder is still there, and looks whether it still may. A network file system may show an old
    /// state of the folder to a host that only reads it; writing to it first makes it ask. It looks also when it cannot
    /// write, as that does not keep others from taking over.
    ///
    /// # Errors
    /// Faults of the storage, and records above the own that cannot be read; the claim stands as far as is known.
    pub fn renew(&self, claim: &mut Claim, now: u64) -> Result<Renewal, LeaseError> {
        claim.record.renewed = now;
        let written = self.files.put(&claim.record, Put::Over);
        let Newest { record: last, flaw } = self.files.newest(claim.epoch())?;
        let last = match last {
            Some(last) if claim.is_lost_to(&last) => {
                return Ok(Renewal::Lost(Some(Box::new(last))));
            }
            last => last,
        };
        written?;
        match (flaw, last, claim.how()) {
            (Some(flaw), _, _) => Err(flaw.into()),
            (None, None, Use::Exclusive) => Ok(Renewal::Lost(None)),
            (None, Some(_), _) | (None, None, Use::Shared | Use::Disks) => Ok(Renewal::Stands),
        }
    }

    /// Gives a claim back. The file of an exclusive lease stays, so that epochs never go back.
    ///
    /// # Errors
    /// Faults of the storage; other hosts then find the home held.
    pub fn release(&self, claim: &Claim, now: u64) -> Result<(), LeaseError> {
        self.end(claim, Standing::Released, now)
    }

    /// Tells the host that took over that this one has stopped.
    ///
    /// # Errors
    /// Faults of the storage; the other host then waits as long as it does for one that is dead.
    pub fn yield_to(&self, claim: &Claim, now: u64) -> Result<(), LeaseError> {
        self.end(claim, Standing::Fenced, now)
    }

    fn end(&self, claim: &Claim, standing: Standing, now: u64) -> Result<(), LeaseError> {
        if claim.how() != Use::Exclusive {
            return self.files.remove(&self.files.host_path(claim.how(), claim.record.host));
        }
        let mut record = claim.record.clone();
        (record.standing, record.renewed) = (standing, now);
        self.files.put(&record, Put::Over)
    }

    /// Whether the host of a record has stopped since.
    ///
    /// # Errors
    /// Faults of the storage.
    pub fn has_left(&self, record: &Record) -> Result<bool, LeaseError> {
        let now = self.files.read(&self.files.path_of(record))?;
        Ok(now.is_none_or(|now| now.standing != Standing::Held || now.host != record.host))
    }

    /// Removes what a claim has made void: exclusive leases of lower epochs, records of the hosts that it was taken
    /// from, and what crashes have left of files of both. Must come before the first renewal.
    ///
    /// # Errors
    /// Faults of the storage; nothing depends on it.
    pub fn clear(&self, taken: &Taken) -> Result<(), LeaseError> {
        self.files.clear(&taken.claim.record)?;
        for record in taken.ousted.iter().filter(|record| record.how == Use::Shared) {
            self.files.remove(&self.files.path_of(record))?;
        }
        Ok(())
    }

    /// Everybody who uses the home now, as far as the records say.
    ///
    /// # Errors
    /// Faults of the storage.
    pub fn holders(&self) -> Result<Vec<Record>, LeaseError> {
        let found = self.files.look()?;
        let all = found.last.into_iter().chain(found.shared);
        Ok(all.filter(|record| record.standing == Standing::Held).collect())
    }
}

/// Whether a file in the folder of leases can have this name.
pub(crate) fn is_name(name: &str) -> bool {
    files::is_name(name)
}

/// Records of other hosts that forbid a use: an exclusive lease any of the home, a shared record an exclusive one.
/// Nothing forbids to attach disks: who serves them is the matter of whoever runs the VM.
fn others(found: &Found, how: Use, own: Uuid) -> Vec<Record> {
    if how == Use::Disks {
        return Vec::new();
    }
    let shared = found.shared.iter().filter(|_| how == Use::Exclusive);
    let all = found.last.iter().chain(shared);
    all.filter(|record| record.is_held_by_other(own)).cloned().collect()
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
