//! Which hosts have disks of a VM attached, and what else tells a host to leave the disks alone.
//!
//! Owns the record of disks, which a host writes before it serves the first disk and removes after the last: it claims
//! nothing of the home. Must not decide what a host does about another one. Flow: [`Leases::take`] with [`Use::Disks`]
//! makes the record, [`forget_disks`] removes it, [`Leases::users`] and (without the key) [`named`] tell of others.

use super::files::{self, Newest};
use super::record::{Holder, Record, Use};
use super::{Claim, LeaseError, Leases};
use crate::folder::VmFolder;
use crate::seal::store::Put;
use uuid::Uuid;

impl Leases {
    pub(super) fn put_disks(&self, holder: &Holder, now: u64) -> Result<Claim, LeaseError> {
        let record = Record::new(self.vm, Use::Disks, 0, holder, now);
        self.files.put(&record, Put::Over)?;
        Ok(Claim { record })
    }

    /// Other hosts than `own` that have disks of the VM attached, or its home alone.
    ///
    /// # Errors
    /// Faults of the storage; a record that would tell cannot be read.
    pub fn users(&self, own: Uuid) -> Result<Vec<Record>, LeaseError> {
        let Newest { record: last, flaw } = self.files.newest(0)?;
        if let Some(flaw) = flaw {
            return Err(flaw.into());
        }
        let mut users: Vec<Record> = last.into_iter().collect();
        for host in self.files.names()?.iter().filter_map(|name| files::host_of_disks(name)) {
            users.extend(self.files.read(&self.files.host_path(Use::Disks, host))?);
        }
        users.retain(|record| record.is_held_by_other(own));
        Ok(users)
    }
}

/// What the names of files tell of the use of a VM; whether they are true tells their content alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Another host says that it has disks attached.
    pub disks: bool,
    /// Some host had the home exclusively, or has it.
    pub exclusive: bool,
}

/// What can be told without the key, of hosts other than `own`.
///
/// # Errors
/// Faults of the storage.
pub fn named(folder: &VmFolder, own: Uuid) -> Result<Named, LeaseError> {
    let names = files::names(&folder.leases())?;
    let other = |name: &String| files::host_of_disks(name).is_some_and(|host| host != own);
    Ok(Named {
        disks: names.iter().any(other),
        exclusive: names.iter().any(|name| files::is_exclusive(name)),
    })
}

/// Whether `host` has a record of disks.
#[must_use]
pub fn has_disks(folder: &VmFolder, host: Uuid) -> bool {
    files::disks_path(&folder.leases(), host).symlink_metadata().is_ok()
}

/// Removes the record of disks of `host`, for which no key is needed.
///
/// # Errors
/// Faults of the storage; other hosts then find the disks in use.
pub fn forget_disks(folder: &VmFolder, host: Uuid) -> Result<(), LeaseError> {
    files::remove_disks(&folder.leases(), host)
}
