//! One record of a lease: who uses a home, how, and since when.
//!
//! Owns the fields and the reading, checking and writing of one file (two lines, as [`crate::seal`] has them, with a
//! MAC under a key derived from the home key); must not know when a record may be written. Flow: a record is built
//! by [`super::Leases`], [`write()`] puts it in place whole, [`read`] gives back one whose MAC fits.

use crate::seal::store::{self, Put};
use crate::seal::{Flaw, MAX_SEALED, SealError, VERSION, join, split};
use crypto::MacKey;
use serde::{Deserialize, Serialize};
use std::path::Path;
use uuid::Uuid;

/// Value of the field `format`.
pub(super) const FORMAT: &str = "coffer-lease";

/// Context of the MAC key.
pub(super) const MAC_INFO: &str = "coffer v1 lease mac";

/// How a host uses a home, or the disks beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Alone: no other host may use it meanwhile.
    Exclusive,
    /// Beside other hosts that do so too.
    Shared,
    /// Not the home: disks of the VM are attached.
    Disks,
}

/// Whether what a record says is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The host uses the home, or ended without a word.
    Held,
    /// It gave the home back.
    Released,
    /// It found that another host took the home, and has stopped.
    Fenced,
}

/// A host, as records name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Random identity, made once for each host.
    pub id: Uuid,
    /// Its name, for people.
    pub name: String,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: String,
    version: u32,
    features: Vec<String>,
    /// The VM whose home it is.
    pub vm: Uuid,
    /// How the host uses it.
    #[serde(rename = "use")]
    pub how: Use,
    /// Number of the exclusive lease; of a shared record, of the last one when it was made; 0 of one of disks.
    pub epoch: u64,
    /// Identity of the host.
    pub host: Uuid,
    /// Name of the host.
    pub host_name: String,
    /// When it began, seconds since 1970 by the clock of that host.
    pub since: u64,
    /// When the host last said that it is there, likewise.
    pub renewed: u64,
    /// Whether it still is so.
    pub standing: Standing,
}

impl Record {
    /// A record that begins now.
    pub(super) fn new(vm: Uuid, how: Use, epoch: u64, holder: &Holder, now: u64) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            features: Vec::new(),
            vm,
            how,
            epoch,
            host: holder.id,
            host_name: holder.name.clone(),
            since: now,
            renewed: now,
            standing: Standing::Held,
        }
    }

    /// Whether a host other than `own` uses the home by this record.
    #[must_use]
    pub fn is_held_by_other(&self, own: Uuid) -> bool {
        self.standing == Standing::Held && self.host != own
    }
}

/// Reads a record; `None` when there is no such file.
///
/// # Errors
/// [`SealError`] when it cannot be read, is not such a file, its MAC does not fit, or it is of another VM.
pub(super) fn read(path: &Path, vm: Uuid, key: &MacKey) -> Result<Option<Record>, SealError> {
    let bytes = match store::read(path, MAX_SEALED) {
        Ok(bytes) => bytes,
        Err(SealError::Missing { .. }) => return Ok(None),
        Err(e) => return Err(e),
    };
    let (line, mac) = split(path, &bytes, FORMAT, &[])?;
    if !key.verify(&[line], &mac) {
        return Err(SealError::MacMismatch { path: path.to_owned() });
    }
    let record: Record = serde_json::from_slice(line).map_err(|e| SealError::Damaged {
        path: path.to_owned(),
        what: Flaw::Body(e.to_string()),
    })?;
    if record.vm != vm {
        return Err(SealError::Misplaced {
            path: path.to_owned(),
            field: "vm",
            found: record.vm.to_string(),
            expected: vm.to_string(),
        });
    }
    Ok(Some(record))
}

/// Writes a record whole: a new file that must not be there yet, or over what is there.
///
/// # Errors
/// [`SealError::Exists`] for a new file that is there; faults of the storage.
pub(super) fn write(path: &Path, record: &Record, key: &MacKey, how: Put) -> Result<(), SealError> {
    store::put(path, &join(path, record, key)?, how)
}
