//! Attaching and detaching disks, mounting and unmounting the home.
//!
//! Owns when these are allowed; `service` does them. A verb that fails leaves the VM as it was, and stops a vmd
//! that it started for nothing.

use super::info::disk_info;
use super::payload::{open_direct, open_payload};
use super::{Inner, Vm};
use crate::config::Owner;
use crate::datastore::{self, Datastore};
use crate::fault::Fault;
use crate::host::Host;
use crate::inventory::parse_name;
use crate::service::{Home, Service, Wanted, leaving};
use cryptfs::descriptor::{Descriptor, State};
use cryptfs::name::Name;
use hostd_api::error::ErrorCode;
use hostd_api::types::{
    AttachDisk, DatastoreState, DiskInfo, Force, HomeMode, MountVm, UmountVm, VmInfo,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Host {
    /// `POST /v1/vms/{vm}/disks/{disk}/attach`.
    ///
    /// # Errors
    /// `invalid-argument` for an owner that this host does not know; `wrong-state` when it is attached, or being
    /// imported without saying so; `vm-locked`; faults of descriptor, payload and vmd.
    pub fn attach_disk(
        self: &Arc<Self>,
        name: &str,
        disk: &str,
        request: &AttachDisk,
    ) -> Result<DiskInfo, Fault> {
        let (vm, disk) = (self.inventory.get(name)?, parse_name("disk", disk)?);
        let owner = owner(request)?;
        let mut inner = self.enter(&vm)?;
        if inner.service.as_ref().is_some_and(|s| s.disks.contains_key(&disk)) {
            return Err(Fault::wrong_state(
                format!("disk {disk} of VM {} is attached already", vm.name),
                format!("see `coffer disk list {}`", vm.name),
            ));
        }
        let safe = self.open_safe(&vm, &mut inner)?;
        let opened = self.open_disk(&vm, &inner, &disk)?;
        import_rule(&vm, &opened.body, request.importing)?;
        if !request.read_only {
            self.datastore_of(&vm)?.writable()?;
        }
        // Looked at here, so that no process is started for a disk that cannot be served.
        open_payload(&vm, &opened.body, request.read_only)?;
        open_direct(&vm, &opened.body, request.read_only, request.cache)?;
        let service = self.running(&vm, &mut inner)?;
        self.mark(&vm, service, &safe.key);
        let outcome = self.attach_to(&vm, service, opened, request, owner);
        self.stop_if_idle(&mut inner);
        outcome?;
        Ok(self.shown(&vm, &inner, &disk, 0))
    }

    /// `POST /v1/vms/{vm}/disks/{disk}/detach`.
    ///
    /// # Errors
    /// `wrong-state` when it is not attached, `in-use` while clients are connected, unless forced; faults of
    /// the vmd.
    pub fn detach_disk(&self, name: &str, disk: &str, how: &Force) -> Result<DiskInfo, Fault> {
        let (vm, disk) = (self.inventory.get(name)?, parse_name("disk", disk)?);
        let mut inner = self.enter_to_end(&vm)?;
        let service = inner.service.as_mut().filter(|s| s.disks.contains_key(&disk));
        let service = service.ok_or_else(|| {
            Fault::wrong_state(
                format!("disk {disk} of VM {} is not attached", vm.name),
                format!("see `coffer disk list {}`", vm.name),
            )
        })?;
        if how.force {
            end_if_hung(&vm, service);
        } else {
            no_clients(&vm, service, Some(&disk))?;
        }
        let detached = self.detach_from(&vm, service, &disk, how.force);
        self.stop_if_idle(&mut inner);
        detached?;
        Ok(self.shown(&vm, &inner, &disk, 0))
    }

    /// `POST /v1/vms/{vm}/mount`.
    ///
    /// # Errors
    /// `wrong-state` when it is mounted, `in-use` while another host or users of an earlier mount have it, `host-limit`
    /// without FUSE, `vm-locked`; faults of the vmd.
    pub fn mount_vm(self: &Arc<Self>, name: &str, how: &MountVm) -> Result<VmInfo, Fault> {
        let vm = self.inventory.get(name)?;
        let mut inner = self.enter(&vm)?;
        self.end_left_home(&vm, &mut inner);
        if let Some(home) = inner.service.as_ref().and_then(|s| s.home.as_ref()) {
            return Err(mounted(&vm, home));
        }
        let opened = self.open_safe(&vm, &mut inner)?;
        let wanted = self.wanted(&vm, how)?;
        let service = self.running(&vm, &mut inner)?;
        let outcome = self.mount_to(&vm, service, opened, wanted);
        self.stop_if_idle(&mut inner);
        outcome?;
        inner.home_problem = None;
        Ok(self.vm_info(&vm, &mut inner))
    }

    /// How to mount a home: as asked for, else exclusively where no other host can be, and shared where one may.
    fn wanted(&self, vm: &Vm, how: &MountVm) -> Result<Wanted, Fault> {
        let store = self.datastore_of(vm)?;
        store.readable()?;
        if store.state() == DatastoreState::ReadOnly {
            if how.mode == Some(HomeMode::Exclusive) {
                return Err(Fault::wrong_state(
                    format!(
                        "datastore {} is read-only, so nobody can have a home alone",
                        store.name
                    ),
                    "mount the home with --shared, or the datastore writable",
                ));
            }
            return Ok(Wanted { mode: HomeMode::Shared, force: false, leased: false });
        }
        let mode = match how.mode {
            Some(mode) => mode,
            None if datastore::is_local(vm.folder.path())? => HomeMode::Exclusive,
            None => HomeMode::Shared,
        };
        Ok(Wanted { mode, force: how.force, leased: true })
    }

    /// `POST /v1/vms/{vm}/umount`.
    ///
    /// # Errors
    /// `wrong-state` when it is not mounted, `in-use` naming the processes that hold it, unless forced or lazy.
    pub fn umount_vm(&self, name: &str, how: &UmountVm) -> Result<VmInfo, Fault> {
        let vm = self.inventory.get(name)?;
        let mut inner = self.enter_to_end(&vm)?;
        let service = inner.service.as_mut().filter(|s| s.home.is_some());
        let service = service.ok_or_else(|| {
            Fault::wrong_state(
                format!("the home of VM {} is not mounted", vm.name),
                format!("run `coffer vm mount {}` to mount it", vm.name),
            )
        })?;
        if how.force {
            end_if_hung(&vm, service);
        }
        self.unmount_from(&vm, service, how)?;
        self.stop_if_idle(&mut inner);
        Ok(self.vm_info_soon(&vm, &mut inner))
    }

    /// Takes back everything that is served, and ends the vmd. Without force it is refused, with nothing changed,
    /// while a disk has clients or the home is busy.
    ///
    /// # Errors
    /// `in-use`; faults of kernel and vmd.
    pub(crate) fn release(&self, vm: &Vm, inner: &mut Inner, force: bool) -> Result<(), Fault> {
        let Some(service) = inner.service.as_mut() else { return Ok(()) };
        if force {
            end_if_hung(vm, service);
        } else {
            no_clients(vm, service, None)?;
        }
        self.unmount_from(vm, service, &UmountVm { force, lazy: false })?;
        let names: Vec<Name> = service.disks.keys().cloned().collect();
        let mut undrained = None;
        for disk in names {
            match self.detach_from(vm, service, &disk, force) {
                Ok(()) => {}
                Err(e) if service.disks.contains_key(&disk) && !force => return Err(e),
                Err(e) => {
                    tracing::warn!("disk {disk} of VM {} could not be drained: {e}", vm.name);
                    undrained.get_or_insert(e);
                }
            }
        }
        if let Some(service) = inner.service.take() {
            crate::service::stop(service)?;
        }
        // What clients wrote since their last flush may be lost; that must be told, the end is reached all the same.
        match undrained {
            Some(e) if !force => Err(e),
            _ => Ok(()),
        }
    }

    fn shown(&self, vm: &Vm, inner: &Inner, disk: &Name, clients: u32) -> DiskInfo {
        if !self.datastore_of(vm).is_ok_and(Datastore::answers) {
            return self.disk_as_known(vm, inner, disk);
        }
        let served = inner.service.as_ref().and_then(|s| s.disks.get(disk));
        disk_info(vm, disk, served, clients)
    }
}

/// The refusal to mount a home that is there.
fn mounted(vm: &Vm, home: &Home) -> Fault {
    match home.target() {
        Some(target) => Fault::wrong_state(
            format!("the home of VM {} is mounted already, at {}", vm.name, target.display()),
            format!("run `coffer vm umount {}` to unmount it", vm.name),
        ),
        None => leaving(vm),
    }
}

/// How long a client that has just closed its socket may take to be counted out; scripts detach right after a copy.
const GRACE: Duration = Duration::from_secs(1);

/// How often the clients are counted meanwhile.
const GRACE_STEP: Duration = Duration::from_millis(10);

/// Refuses while a disk (or the given one) has clients that do not go within [`GRACE`].
fn no_clients(vm: &Vm, service: &mut Service, only: Option<&Name>) -> Result<(), Fault> {
    let end = Instant::now() + GRACE;
    loop {
        let counts = service.clients().map_err(|e| uncounted(vm, &e))?;
        let mut counts = counts.disks.into_iter();
        let busy = counts.find(|(name, count)| *count > 0 && only.is_none_or(|only| only == name));
        let Some((disk, count)) = busy else { return Ok(()) };
        if Instant::now() >= end {
            return Err(Fault::refused(
                ErrorCode::InUse,
                format!("disk {disk} of VM {} has {count} connected clients", vm.name),
                "stop the guest first, or add --force",
            ));
        }
        std::thread::sleep(GRACE_STEP);
    }
}

/// Ends a vmd that does not say what it serves, so that a forced verb does not wait for its answers.
fn end_if_hung(vm: &Vm, service: &mut Service) {
    if let Err(e) = service.clients() {
        tracing::warn!("VM {}: {e}; its vmd is ended", vm.name);
        service.end_process();
    }
}

/// The refusal while nobody knows whether clients are connected.
fn uncounted(vm: &Vm, fault: &Fault) -> Fault {
    Fault::refused(
        ErrorCode::InUse,
        format!("it is not known whether VM {} has connected clients: {fault}", vm.name),
        "try again in a moment; with --force they are cut off",
    )
}

/// A disk that is being imported is served to the import only, and a ready one never as an import.
fn import_rule(vm: &Vm, descriptor: &Descriptor, importing: bool) -> Result<(), Fault> {
    let disk = &descriptor.name;
    match (descriptor.state, importing) {
        (State::Ready, false) | (State::Importing, true) => Ok(()),
        (State::Importing, false) => Err(Fault::wrong_state(
            format!("the import of disk {disk} of VM {} has not ended well", vm.name),
            "delete the disk and import it again",
        )),
        (State::Ready, true) => Err(Fault::wrong_state(
            format!("disk {disk} of VM {} is not being imported", vm.name),
            "attach it without the import flag",
        )),
    }
}

/// The owner that a request names.
fn owner(request: &AttachDisk) -> Result<Option<Owner>, Fault> {
    let resolve = |text: &String| {
        Owner::resolve(text).map_err(|e| {
            Fault::invalid(format!("no owner {text:?}: {e}"), "name another, or give its number")
        })
    };
    request.owner.as_ref().map(resolve).transpose()
}
