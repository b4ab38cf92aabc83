//! The folder of leases: names of files, what is there, and single changes.
//!
//! Owns the layout of the folder and nothing of the rules. Must not decide who may change what: [`super::Leases`] does.
//! Flow: [`Files::look`] reads everything that counts, [`Files::put`] and [`Files::remove`] change one file.

use super::LeaseError;
use super::record::{self, Record, Use};
use crate::seal::store::{self, Put};
use crate::seal::{SealError, is_temporary};
use crypto::MacKey;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Beginning of the name of an exclusive lease; its epoch in 16 hex digits follows.
const EXCLUSIVE: &str = "exclusive.";

/// Beginning of the name of a shared record; the identity of the host follows.
const SHARED: &str = "shared.";

/// Beginning of the name of a record of disks; the identity of the host follows.
const DISKS: &str = "disks.";

/// Most files looked at: a cluster has at most some dozens of hosts, and old leases are removed.
pub(super) const MAX_FILES: usize = 1024;

/// The folder of one home.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) folder: PathBuf,
    pub(super) vm: Uuid,
    pub(super) key: MacKey,
}

/// What the folder holds now.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The highest epoch, 0 before the first lease, and the exclusive lease with it.
    pub(super) epoch: u64,
    pub(super) last: Option<Record>,
    /// Epochs below it.
    old: Vec<u64>,
    pub(super) shared: Vec<Record>,
}

/// The exclusive lease that counts, as far as it can be read.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) record: Option<Record>,
    /// Of the files with a higher epoch none can be read; this is why not the highest.
    pub(super) flaw: Option<SealError>,
}

impl Files {
    pub(super) fn look(&self) -> Result<Found, LeaseError> {
        let names = self.names()?;
        let mut found = Found::default();
        for host in names.iter().filter_map(|name| name.strip_prefix(SHARED)?.parse().ok()) {
            found.shared.extend(self.read(&self.shared_path(host))?);
        }
        found.old = epochs(&names);
        if let Some(last) = found.old.pop() {
            (found.epoch, found.last) = (last, self.read_exclusive(last)?);
        }
        Ok(found)
    }

    /// The exclusive lease that counts for a host whose claim has the epoch `least`: of those from it on the highest that
    /// can be read. A file that no host of the VM wrote must not hide the lease that another host took.
    pub(super) fn newest(&self, least: u64) -> Result<Newest, LeaseError> {
        let mut flaw = None;
        let epochs = epochs(&self.names()?);
        for epoch in epochs.into_iter().rev().take_while(|epoch| *epoch >= least) {
            match self.read_exclusive(epoch) {
                Ok(None) => {}
                Ok(record) => return Ok(Newest { record, flaw }),
                Err(e) => flaw = flaw.or(Some(e)),
            }
        }
        Ok(Newest { record: None, flaw })
    }

    /// The newest exclusive lease of a host, of those that can be read.
    pub(super) fn newest_of(&self, host: Uuid) -> Result<Option<Record>, LeaseError> {
        let epochs = epochs(&self.names()?).into_iter().rev();
        let mut records = epochs.filter_map(|epoch| self.read_exclusive(epoch).ok().flatten());
        Ok(records.find(|record| record.host == host))
    }

    fn read_exclusive(&self, epoch: u64) -> Result<Option<Record>, SealError> {
        let path = self.exclusive_path(epoch);
        let record = self.read(&path)?;
        check_epoch(&path, record.as_ref(), epoch)?;
        Ok(record)
    }

    pub(super) fn names(&self) -> Result<Vec<String>, LeaseError> {
        names(&self.folder)
    }

    pub(super) fn make_folder(&self) -> Result<(), LeaseError> {
        match std::fs::create_dir(&self.folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(self.failed("make", e)),
            _ => Ok(()),
        }
    }

    pub(super) fn put(&self, record: &Record, how: Put) -> Result<(), LeaseError> {
        match record::write(&self.path_of(record), record, &self.key, how) {
            // What other hosts see is what counts; a power loss ends this host as well.
            Ok(()) | Err(SealError::NotDurable { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), LeaseError> {
        let failed =
            |source| LeaseError::Folder { path: path.to_owned(), action: "remove", source };
        store::remove(path).map_err(failed)
    }

    pub(super) fn path_of(&self, record: &Record) -> PathBuf {
        match record.how {
            Use::Exclusive => self.exclusive_path(record.epoch),
            Use::Shared => self.shared_path(record.host),
            Use::Disks => self.host_path(record.how, record.host),
        }
    }

    pub(super) fn exclusive_path(&self, epoch: u64) -> PathBuf {
        self.folder.join(format!("{EXCLUSIVE}{epoch:016x}"))
    }

    pub(super) fn shared_path(&self, host: Uuid) -> PathBuf {
        self.folder.join(format!("{SHARED}{host}"))
    }

    /// Where the record of a host is that is not one of an exclusive lease.
    pub(super) fn host_path(&self, how: Use, host: Uuid) -> PathBuf {
        match how {
            Use::Disks => disks_path(&self.folder, host),
            Use::Exclusive | Use::Shared => self.shared_path(host),
        }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> LeaseError {
        LeaseError::Folder { path: self.folder.clone(), action, source }
    }

    /// Removes exclusive leases below the epoch of `claim`, and what crashes have left of files of these and of its host.
    pub(super) fn clear(&self, claim: &Record) -> Result<(), LeaseError> {
        for epoch in epochs(&self.names()?).into_iter().filter(|epoch| *epoch < claim.epoch) {
            self.remove(&self.exclusive_path(epoch))?;
        }
        for name in self.names()?.into_iter().filter(|name| left_behind(name, claim)) {
            self.remove(&self.folder.join(name))?;
        }
        Ok(())
    }

    /// Reads one record; `None` when there is no such file.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Record>, SealError> {
        record::read(path, self.vm, &self.key)
    }
}

/// All names in a folder of leases; none when it does not exist.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, LeaseError> {
    let names = store::list(folder, MAX_FILES + 1).map_err(|source| LeaseError::Folder {
        path: folder.to_owned(),
        action: "list",
        source,
    })?;
    if names.len() > MAX_FILES {
        return Err(LeaseError::Crowded { path: folder.to_owned() });
    }
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

/// The host of a record of disks, by its name.
pub(super) fn host_of_disks(name: &str) -> Option<Uuid> {
    name.strip_prefix(DISKS)?.parse().ok()
}

/// Whether this is the name of an exclusive lease.
pub(super) fn is_exclusive(name: &str) -> bool {
    name.strip_prefix(EXCLUSIVE).and_then(parse_epoch).is_some()
}

/// Removes the record of disks of a host, if there is one.
pub(super) fn remove_disks(folder: &Path, host: Uuid) -> Result<(), LeaseError> {
    let path = disks_path(folder, host);
    store::remove(&path).map_err(|source| LeaseError::Folder { path, action: "remove", source })
}

/// Where the record of disks of a host is.
pub(super) fn disks_path(folder: &Path, host: Uuid) -> PathBuf {
    folder.join(format!("{DISKS}{host}"))
}

/// Whether a file is one that its writer did not get to put in place, and whose writer is gone: an earlier run of the
/// host of `claim`, or a host that held an exclusive lease before it.
fn left_behind(name: &str, claim: &Record) -> bool {
    let Some(target) = store::target(name) else { return false };
    match target.strip_prefix(EXCLUSIVE).and_then(parse_epoch) {
        Some(epoch) => epoch < claim.epoch,
        None => [SHARED, DISKS]
            .iter()
            .any(|kind| target.strip_prefix(kind) == Some(&claim.host.to_string())),
    }
}

/// Whether a file of the folder can have this name: that of a record, or of one that was being replaced.
pub(super) fn is_name(name: &str) -> bool {
    [SHARED, DISKS]
        .iter()
        .any(|kind| name.strip_prefix(kind).is_some_and(|id| id.parse::<Uuid>().is_ok()))
        || name.strip_prefix(EXCLUSIVE).and_then(parse_epoch).is_some()
        || is_temporary(name.as_ref())
}

/// The epochs that files have, ascending.
fn epochs(names: &[String]) -> Vec<u64> {
    let epochs = names.iter().filter_map(|name| parse_epoch(name.strip_prefix(EXCLUSIVE)?));
    let mut epochs: Vec<u64> = epochs.collect();
    epochs.sort_unstable();
    epochs
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
