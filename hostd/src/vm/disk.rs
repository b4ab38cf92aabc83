//! Making, resizing and deleting disks.
//!
//! Owns the order of steps on descriptor and payload that keeps a disk openable at any crash: the payload is
//! never shorter than the descriptor says, is there before it, and goes after it. What a crash leaves is the
//! payload alone, which the same verb takes away (`remains`).

use super::create::random_id;
use super::info::{MAX_DISKS, disk_info, disk_names, payload_path};
use super::payload::open_payload;
use super::remains;
use super::{Inner, Vm};
use crate::fault::Fault;
use crate::files;
use crate::host::Host;
use crate::inventory::parse_name;
use crate::service::check_socket_path;
use cryptfs::descriptor::{Descriptor, GeometryError, State, padded_size};
use cryptfs::name::Name;
use cryptfs::seal;
use crypto::{Dek, Unit};
use hostd_api::error::ErrorCode;
use hostd_api::types::{CreateDisk, DiskInfo, Force, ResizeDisk};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Disk names that the runtime folder of a VM has its own sockets for.
const RESERVED: &[&str] = &["vmd"];

impl Host {
    /// `POST /v1/vms/{vm}/disks`: a sparse payload and a descriptor with a new key.
    ///
    /// # Errors
    /// Refusals for name, size and unit; `vm-locked`; faults of the storage. No file is left then.
    pub fn create_disk(&self, name: &str, request: &CreateDisk) -> Result<DiskInfo, Fault> {
        let vm = self.inventory.get(name)?;
        let disk = parse_name("disk", &request.name)?;
        if RESERVED.contains(&disk.as_str()) {
            return Err(Fault::invalid(
                format!("the name {disk} is reserved"),
                "choose another name",
            ));
        }
        check_socket_path(&self.disk_socket(&vm.name, &disk))?;
        let mut inner = self.enter(&vm)?;
        let safe = self.open_safe(&vm, &mut inner)?;
        self.keyring.may_wrap(safe.lease.id())?;
        self.datastore_of(&vm)?.writable()?;
        detached(&inner, &vm, &disk)?;
        let _lock = self.exclusive(&vm, &inner)?;
        let folder = disks_folder(&vm)?;
        room(&vm, &folder, &disk)?;
        let arena = self.keyring.arena();
        let key = Dek::generate(arena)?;
        let mut descriptor = plan(&vm, &disk, request)?;
        descriptor.wraps = vec![super::open::wrap(&descriptor, &key, &safe.lease, arena)?];
        let place = payload_path(&vm, &descriptor);
        let payload = Fresh::make(&place, descriptor.size)?;
        let made = seal::create(&vm.folder.descriptor(&disk), &mut descriptor, &key, arena);
        if made.as_ref().map_or_else(seal::SealError::is_in_place, |()| true) {
            // Also when the descriptor is in place but may not last: without its payload it would be damaged.
            payload.keep();
        }
        made?;
        Ok(disk_info(&vm, &disk, None, 0))
    }

    /// `POST /v1/vms/{vm}/disks/{disk}/ready`: an import has ended well.
    ///
    /// # Errors
    /// `wrong-state` while it is attached; `vm-locked`; faults of descriptor and storage.
    pub fn disk_ready(&self, name: &str, disk: &str) -> Result<DiskInfo, Fault> {
        let (vm, disk) = (self.inventory.get(name)?, parse_name("disk", disk)?);
        let inner = self.enter(&vm)?;
        detached(&inner, &vm, &disk)?;
        let mut opened = self.open_disk(&vm, &inner, &disk)?;
        let _lock = self.exclusive(&vm, &inner)?;
        disks_folder(&vm)?;
        if opened.body.state == State::Importing {
            opened.body.state = State::Ready;
            let path = vm.folder.descriptor(&disk);
            seal::replace(&path, &mut opened.body, &opened.key, self.keyring.arena())?;
        }
        Ok(disk_info(&vm, &disk, None, 0))
    }

    /// `POST /v1/vms/{vm}/disks/{disk}/resize`.
    ///
    /// # Errors
    /// `wrong-state` while it is attached, `in-use` while another host uses the VM, unless forced, `invalid-argument`
    /// for a size that cannot be or a shrink without the flag; `vm-locked`; faults of descriptor and storage.
    pub fn resize_disk(
        &self,
        name: &str,
        disk: &str,
        request: &ResizeDisk,
    ) -> Result<DiskInfo, Fault> {
        let (vm, disk) = (self.inventory.get(name)?, parse_name("disk", disk)?);
        let mut inner = self.enter(&vm)?;
        detached(&inner, &vm, &disk)?;
        let mut opened = self.open_disk(&vm, &inner, &disk)?;
        self.datastore_of(&vm)?.writable()?;
        let _lock = self.exclusive(&vm, &inner)?;
        self.unused_elsewhere(&vm, &mut inner, request.force)?;
        disks_folder(&vm)?;
        let (old, unit) = (opened.body.size, u64::from(opened.body.unit));
        let new = request.size.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
        if new < old && !request.shrink {
            return Err(Fault::invalid(
                format!("disk {disk} has {old} bytes; {new} would cut off what lies behind"),
                "shrink the file systems inside first, then add --shrink",
            ));
        }
        opened.body.size = new;
        opened.body.geometry(false).map_err(|e| bad_size(&e))?;
        let path = vm.folder.descriptor(&disk);
        let payload = payload_path(&vm, &opened.body);
        let file = open_payload(&vm, &opened.body, false)?;
        let length = |bytes| file.set_len(bytes).map_err(Fault::io("resize", &payload));
        if new > old {
            // What an interrupted shrink left behind the old end must not come back.
            length(old)?;
            length(new)?;
            file.sync_all().map_err(Fault::io("flush", &payload))?;
        }
        seal::replace(&path, &mut opened.body, &opened.key, self.keyring.arena())?;
        // With the old size and the flag, it is the shrink that was cut short before this.
        if new < old || (new == old && request.shrink) {
            length(new)?;
        }
        Ok(disk_info(&vm, &disk, None, 0))
    }

    /// `DELETE /v1/vms/{vm}/disks/{disk}`. A damaged descriptor can be deleted as well; its payload is then
    /// `NAME.data`. So can a payload that has no descriptor any more, as a deletion that was cut short leaves it.
    ///
    /// # Errors
    /// `not-found`, `wrong-state` while it is attached, `in-use` while another host uses the VM, unless forced,
    /// `vm-locked` by an operator, faults of the storage.
    pub fn delete_disk(&self, name: &str, disk: &str, how: &Force) -> Result<DiskInfo, Fault> {
        let (vm, disk) = (self.inventory.get(name)?, parse_name("disk", disk)?);
        let mut inner = self.enter(&vm)?;
        self.allowed(&vm, &inner)?;
        detached(&inner, &vm, &disk)?;
        let path = vm.folder.descriptor(&disk);
        if path.symlink_metadata().is_err() && !remains::is_orphan(&vm, &disk) {
            return Err(super::open::no_disk(&vm, &disk));
        }
        self.datastore_of(&vm)?.writable()?;
        let _lock = self.exclusive(&vm, &inner)?;
        self.unused_elsewhere(&vm, &mut inner, how.force)?;
        let folder = disks_folder(&vm)?;
        let info = disk_info(&vm, &disk, None, 0);
        // Only a verified descriptor may say which file goes with it: an edited one could name another disk's.
        let opened = self.open_disk(&vm, &inner, &disk);
        let payload =
            opened.map_or_else(|_| vm.folder.payload(&disk), |o| payload_path(&vm, &o.body));
        // The descriptor first: without its key the payload is noise.
        files::remove_in(&folder, &path)?;
        rustix::fs::fsync(&folder).map_err(Fault::io("flush", &vm.folder.disks()))?;
        files::remove_in(&folder, &payload)?;
        Ok(info)
    }
}

/// The folder of a VM's disks, opened. A link in its place could lead the files of this host, or of another VM, into
/// what a verb writes and removes.
///
/// # Errors
/// `damaged` when it is no folder.
pub(super) fn disks_folder(vm: &Vm) -> Result<OwnedFd, Fault> {
    let path = vm.folder.disks();
    files::open_folder(&path).map_err(|_| {
        Fault::refused(
            ErrorCode::Damaged,
            format!("{} is no folder", path.display()),
            "put the folder of the disks back there, from a backup of the datastore if need be",
        )
    })
}

/// Refuses while the disk is served.
fn detached(inner: &Inner, vm: &Vm, disk: &Name) -> Result<(), Fault> {
    if inner.service.as_ref().is_some_and(|s| s.disks.contains_key(disk)) {
        return Err(Fault::wrong_state(
            format!("disk {disk} of VM {} is attached", vm.name),
            format!("run `coffer disk detach {} {disk}` first", vm.name),
        ));
    }
    Ok(())
}

/// Refuses a taken name, and one disk too many.
fn room(vm: &Vm, folder: &OwnedFd, disk: &Name) -> Result<(), Fault> {
    let names = disk_names(&vm.folder.disks());
    let (descriptor, payload) = (vm.folder.descriptor(disk), vm.folder.payload(disk));
    if descriptor.symlink_metadata().is_ok() {
        return Err(Fault::refused(
            ErrorCode::AlreadyExists,
            format!("VM {} has a disk {disk} already", vm.name),
            format!("choose another name, or run `coffer disk delete {} {disk}`", vm.name),
        ));
    }
    if payload.symlink_metadata().is_ok() && !remains::clear(vm, folder, disk)? {
        return Err(Fault::refused(
            ErrorCode::AlreadyExists,
            format!("{} is there already, without a disk {disk}", payload.display()),
            format!(
                "choose another name, or move that file away; if it is left from a deletion that was cut short, run \
                 `coffer disk delete {} {disk}` once more",
                vm.name
            ),
        ));
    }
    if names.len() >= MAX_DISKS {
        return Err(Fault::refused(
            ErrorCode::HostLimit,
            format!("VM {} has {MAX_DISKS} disks, which is the limit", vm.name),
            "delete disks that are not needed",
        ));
    }
    Ok(())
}

/// The descriptor that a request asks for, without a wrap.
fn plan(vm: &Vm, disk: &Name, request: &CreateDisk) -> Result<Descriptor, Fault> {
    let unit = match request.unit {
        None => None,
        Some(unit) => Some(Unit::try_from(unit).map_err(|_| {
            Fault::invalid(
                format!("a data unit of {unit} bytes is not possible"),
                "use 4096 or 512",
            )
        })?),
    };
    let size = padded_size(request.size).map_err(|e| bad_size(&e))?;
    let mut descriptor = Descriptor::new(random_id()?, disk.clone(), vm.id, size, unit, Vec::new())
        .map_err(|e| bad_size(&e))?;
    if request.importing {
        descriptor.state = State::Importing;
    }
    Ok(descriptor)
}

fn bad_size(e: &GeometryError) -> Fault {
    Fault::invalid(format!("no disk can be so: {e}"), "choose another size or unit")
}

/// A new payload, removed again unless it is kept.
struct Fresh<'a> {
    path: &'a Path,
    kept: bool,
}

impl<'a> Fresh<'a> {
    fn make(path: &'a Path, size: u64) -> Result<Self, Fault> {
        let file = File::create_new(path).map_err(Fault::io("make", path))?;
        let fresh = Self { path, kept: false };
        file.set_len(size).and_then(|()| file.sync_all()).map_err(Fault::io("size", path))?;
        Ok(fresh)
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(e) = std::fs::remove_file(self.path)
        {
            tracing::warn!("cannot remove {}: {e}", self.path.display());
        }
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
