//! Payloads that have no descriptor: what a disk leaves when its making or deletion is cut short.
//!
//! Owns the judgement whether such a payload may go. It may be the last copy of a disk whose descriptor was lost and
//! can be had back from a backup, so without being told to, only one that never held a byte is removed. Flow: `disk`
//! asks when it finds one in its way.

use super::Vm;
use super::info::{MAX_DISKS, disk_names};
use crate::fault::Fault;
use crate::files;
use cryptfs::descriptor::Descriptor;
use cryptfs::folder::payload_name;
use cryptfs::fsck::Claims;
use cryptfs::name::Name;
use cryptfs::seal::Sealed;
use std::os::fd::OwnedFd;

/// Removes the payload of a disk whose creation was cut short from the folder of disks; `false` when it is anything else.
///
/// # Errors
/// [`Fault::Io`].
pub(super) fn clear(vm: &Vm, folder: &OwnedFd, disk: &Name) -> Result<bool, Fault> {
    if !claims(vm).is_remains(folder, &payload_name(disk)) {
        return Ok(false);
    }
    let path = vm.folder.payload(disk);
    files::remove_in(folder, &path)?;
    tracing::info!("removed {}, which a creation that was cut short has left", path.display());
    Ok(true)
}

/// Whether `NAME.data` is there as a plain file, and belongs to no disk.
pub(super) fn is_orphan(vm: &Vm, disk: &Name) -> bool {
    let payload = vm.folder.payload(disk);
    if !payload.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return false;
    }
    let claims = claims(vm);
    claims.complete && !claims.payloads.contains(&payload_name(disk))
}

/// The payloads that descriptors name, as far as they can be read without a key.
fn claims(vm: &Vm) -> Claims {
    let disks = disk_names(&vm.folder.disks());
    let mut claims = Claims { complete: disks.len() < MAX_DISKS, ..Claims::default() };
    for disk in disks {
        match Sealed::<Descriptor>::read(&vm.folder.descriptor(&disk)) {
            Ok(sealed) => {
                claims.payloads.insert(sealed.unverified().payload.clone());
            }
            Err(_) => claims.complete = false,
        }
    }
    claims
}
