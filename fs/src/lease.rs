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

mod record;

pub use record::{Holder, Record, Standing, Use};

use crate::folder::VmFolder;
use crate::seal::SealError;
use crate::seal::store::Put;
use crypto::{Arena, HomeKey, MacKey};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use uuid::Uuid;

/// Beginning of the name of an exclusive lease; its epoch in 16 hex digits follows.
const EXCLUSIVE: &str = "exclusive.";

/// Beginning of the name of a shared record; the identity of the host follows.
const SHARED: &str = "shared.";

/// Most files looked at: a cluster has at most some dozens of hosts, and old leases are removed.
const MAX_FILES: usize = 1024;

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

    /// Number of the exclusive lease.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.record.epoch
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
    folder: PathBuf,
    vm: Uuid,
    key: MacKey,
}

/// What the folder holds now.
#[derive(Debug, Default)]
struct Found {
    /// The highest epoch, 0 before the first lease, and the exclusive lease with it.
    epoch: u64,
    last: Option<Record>,
    /// Epochs below it.
    old: Vec<u64>,
    shared: Vec<Record>,
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
        Ok(Self { folder, vm, key })
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
        self.make_folder()?;
        for _ in 0..MAX_RACES {
            let found = self.look()?;
            let others = others(&found, how, holder.id);
            if let (Some(other), false) = (others.first(), force) {
                return Err(LeaseError::Held(Box::new(other.clone())));
            }
            let claimed = match how {
                Use::Exclusive => self.claim(&found, holder, how, now)?,
                Use::Shared => self.join(&found, holder, !others.is_empty(), now)?,
            };
            let Some(claim) = claimed else { continue };
            // Another host may have begun between the look and the claim. Each looks after it has claimed, so that
            // at least one of the two sees the other.
            let later = self::others(&self.look()?, how, holder.id);
            if let (Some(other), false) = (later.first(), force) {
                self.release(&claim, now)?;
                return Err(LeaseError::Held(Box::new(other.clone())));
            }
            return Ok(Taken { claim, ousted: others });
        }
        Err(LeaseError::Raced)
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
        match self.put(&record, Put::New) {
            Ok(()) => {}
            Err(LeaseError::Record(SealError::Exists { .. })) => return Ok(None),
            Err(e) => return Err(e),
        }
        // An earlier run of this host may have left its shared record. That it goes is no condition.
        if found.shared.iter().any(|shared| shared.host == holder.id) {
            self.remove(&self.shared_path(holder.id))?;
        }
        Ok(Some(Claim { record }))
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
        self.put(&record, Put::Over)?;
        Ok(Some(Claim { record }))
    }

    /// The claim that an earlier run of the same host left, when it still stands.
    ///
    /// # Errors
    /// Faults of the storage.
    pub fn resume(&self, holder: &Holder, how: Use) -> Result<Option<Claim>, LeaseError> {
        let found = self.look()?;
        let candidates = match how {
            Use::Exclusive => found.last.into_iter().collect(),
            Use::Shared if found.last.as_ref().is_some_and(|r| r.is_held_by_other(holder.id)) => {
                Vec::new()
            }
            Use::Shared => found.shared,
        };
        let own = |r: &Record| r.host == holder.id && r.standing == Standing::Held;
        Ok(candidates.into_iter().find(own).map(|record| Claim { record }))
    }

    /// Says that the holder is still there, and looks whether it still may. A network file system may show an old
    /// state of the folder to a host that only reads it; writing to it first makes it ask.
    ///
    /// # Errors
    /// Faults of the storage; the claim stands as far as is known.
    pub fn renew(&self, claim: &mut Claim, now: u64) -> Result<Renewal, LeaseError> {
        claim.record.renewed = now;
        self.put(&claim.record, Put::Over)?;
        let found = self.look()?;
        let last = found.last;
        Ok(match claim.how() {
            Use::Exclusive => match last {
                Some(last) if last.epoch == claim.epoch() && last.host == claim.record.host => {
                    Renewal::Stands
                }
                other => Renewal::Lost(other.map(Box::new)),
            },
            Use::Shared => match last.filter(|last| last.is_held_by_other(claim.record.host)) {
                Some(other) => Renewal::Lost(Some(Box::new(other))),
                None => Renewal::Stands,
            },
        })
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
        if claim.how() == Use::Shared {
            return self.remove(&self.shared_path(claim.record.host));
        }
        let mut record = claim.record.clone();
        (record.standing, record.renewed) = (standing, now);
        self.put(&record, Put::Over)
    }

    /// Whether the host of a record has stopped since.
    ///
    /// # Errors
    /// Faults of the storage.
    pub fn has_left(&self, record: &Record) -> Result<bool, LeaseError> {
        let now = record::read(&self.path_of(record), self.vm, &self.key)?;
        Ok(now.is_none_or(|now| now.standing != Standing::Held || now.host != record.host))
    }

    /// Removes what a claim has made void: exclusive leases of lower epochs, and records of the hosts that it was
    /// taken from.
    ///
    /// # Errors
    /// Faults of the storage; nothing depends on it.
    pub fn clear(&self, taken: &Taken) -> Result<(), LeaseError> {
        let found = self.look()?;
        for epoch in found.old.iter().filter(|epoch| **epoch < taken.claim.epoch()) {
            self.remove(&self.exclusive_path(*epoch))?;
        }
        for record in taken.ousted.iter().filter(|record| record.how == Use::Shared) {
            self.remove(&self.path_of(record))?;
        }
        Ok(())
    }

    /// Everybody who uses the home now, as far as the records say.
    ///
    /// # Errors
    /// Faults of the storage.
    pub fn holders(&self) -> Result<Vec<Record>, LeaseError> {
        let found = self.look()?;
        let all = found.last.into_iter().chain(found.shared);
        Ok(all.filter(|record| record.standing == Standing::Held).collect())
    }

    fn look(&self) -> Result<Found, LeaseError> {
        let mut epochs = Vec::new();
        let mut found = Found::default();
        for name in self.names()? {
            if let Some(host) = name.strip_prefix(SHARED).and_then(|id| id.parse().ok()) {
                let path = self.shared_path(host);
                found.shared.extend(record::read(&path, self.vm, &self.key)?);
            } else if let Some(epoch) = name.strip_prefix(EXCLUSIVE).and_then(parse_epoch) {
                epochs.push(epoch);
            }
        }
        epochs.sort_unstable();
        if let Some(last) = epochs.pop() {
            let path = self.exclusive_path(last);
            found.epoch = last;
            found.last = record::read(&path, self.vm, &self.key)?;
            check_epoch(&path, found.last.as_ref(), last)?;
        }
        found.old = epochs;
        Ok(found)
    }

    fn names(&self) -> Result<Vec<String>, LeaseError> {
        let failed = |source| self.failed("list", source);
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(failed)?.file_name().into_string());
            if names.len() > MAX_FILES {
                return Err(LeaseError::Crowded { path: self.folder.clone() });
            }
        }
        Ok(names)
    }

    fn make_folder(&self) -> Result<(), LeaseError> {
        match std::fs::create_dir(&self.folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(self.failed("make", e)),
            _ => Ok(()),
        }
    }

    fn put(&self, record: &Record, how: Put) -> Result<(), LeaseError> {
        match record::write(&self.path_of(record), record, &self.key, how) {
            // What other hosts see is what counts; a power loss ends this host as well.
            Ok(()) | Err(SealError::NotDurable { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn remove(&self, path: &Path) -> Result<(), LeaseError> {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(LeaseError::Folder { path: path.to_owned(), action: "remove", source })
            }
            _ => Ok(()),
        }
    }

    fn path_of(&self, record: &Record) -> PathBuf {
        match record.how {
            Use::Exclusive => self.exclusive_path(record.epoch),
            Use::Shared => self.shared_path(record.host),
        }
    }

    fn exclusive_path(&self, epoch: u64) -> PathBuf {
        self.folder.join(format!("{EXCLUSIVE}{epoch:016x}"))
    }

    fn shared_path(&self, host: Uuid) -> PathBuf {
        self.folder.join(format!("{SHARED}{host}"))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> LeaseError {
        LeaseError::Folder { path: self.folder.clone(), action, source }
    }
}

/// Records of other hosts that forbid a use: an exclusive lease any, a shared record an exclusive one.
fn others(found: &Found, how: Use, own: Uuid) -> Vec<Record> {
    let shared = found.shared.iter().filter(|_| how == Use::Exclusive);
    let all = found.last.iter().chain(shared);
    all.filter(|record| record.is_held_by_other(own)).cloned().collect()
}

/// The epoch in the name of a file, which has one spelling only.
fn parse_epoch(digits: &str) -> Option<u64> {
    let epoch = u64::from_str_radix(digits, 16).ok()?;
    (format!("{epoch:016x}") == digits).then_some(epoch)
}

/// A record that stands under another number was put there by hand.
fn check_epoch(path: &Path, record: Option<&Record>, epoch: u64) -> Result<(), SealError> {
    match record {
        Some(record) if record.epoch != epoch => Err(SealError::Misplaced {
            path: path.to_owned(),
            field: "epoch",
            found: record.epoch.to_string(),
            expected: epoch.to_string(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
