//! The home of a running VM: mounted, served, unmounted, and stopped when another host took it.
//!
//! Owns the states of a mount ([`Stage`]) and the order of lease, mount and server; must not decide whether a home may
//! be mounted (`vm` does), nor know the rules of leases (`lease`). The key leaves this process here only, on a sheet
//! that the vmd wipes. Flow: lease, mount, serve; the reverse at the end, where the lease goes last, when nobody can
//! write to the storage any more.

use super::endings::Endings;
use super::lease::{Held, Kept};
use super::{Process, Service};
use crate::fault::Fault;
use crate::files;
use crate::host::Host;
use crate::mounts;
use crate::vm::{Inner, Opened, Vm, home_names};
use crate::warnings::Topic;
use cryptfs::lease::Leases;
use cryptfs::safe::Safe;
use crypto::{KeySheet, SheetKey};
use hostd_api::error::ErrorCode;
use hostd_api::link::{Request, ServeHome};
use hostd_api::types::{HomeMode, HomeMount, HomeState, UmountVm};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Permissions of the mount point; the mounted home shows those of the VM's own folder.
const MOUNT_POINT_MODE: u32 = 0o700;

/// The home of a running VM.
#[derive(Debug)]
pub struct Home {
    /// Where it is, or was, mounted.
    target: PathBuf,
    mode: HomeMode,
    stage: Stage,
    /// Nothing on a datastore that cannot be written, and as long as that of an adopted home cannot be taken up.
    lease: Option<Kept>,
    /// When that was last tried.
    unheld: Option<Instant>,
}

/// Where a home is between its mount and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is in the file tree.
    Mounted,
    /// It was taken out of it, and its users may go on.
    Leaving,
    /// It was taken out of it, and its users are to end: it does not keep the vmd.
    Cut,
}

/// How a home is to be mounted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Who else may use it.
    pub(crate) mode: HomeMode,
    /// Take it from other hosts.
    pub(crate) force: bool,
    /// The datastore can be written, so that there are leases.
    pub(crate) leased: bool,
}

impl Home {
    /// A home that an earlier hostd mounted.
    pub(super) fn adopted(target: PathBuf, mode: HomeMode) -> Self {
        let device = mounts::device(&target).ok().flatten();
        let stage = if device.is_some() { Stage::Mounted } else { Stage::Leaving };
        Self { target, mode, stage, lease: None, unheld: Some(Instant::now()) }
    }

    /// Who else may use it.
    pub(super) fn mode(&self) -> HomeMode {
        self.mode
    }

    /// Since when nobody has tried to take its lease up, which it lacks.
    pub(super) fn unheld(&self) -> Option<Instant> {
        self.unheld
    }

    /// Notes that its lease could not be taken up at `when`.
    pub(super) fn not_held(&mut self, when: Instant) {
        self.unheld = Some(when);
    }

    /// Has it keep the lease that was taken up.
    pub(super) fn hold(&mut self, lease: Kept) {
        (self.lease, self.unheld) = (Some(lease), None);
    }

    /// Where it is mounted, while it is in the file tree.
    #[must_use]
    pub fn target(&self) -> Option<&Path> {
        (self.stage == Stage::Mounted).then_some(&self.target)
    }

    /// As the API shows it.
    #[must_use]
    pub fn info(&self) -> HomeMount {
        let state = match self.stage {
            Stage::Mounted => HomeState::Mounted,
            Stage::Leaving | Stage::Cut => HomeState::Leaving,
        };
        HomeMount { mode: self.mode, state, epoch: self.lease.as_ref().and_then(Kept::epoch) }
    }

    /// Whether a vmd that serves nothing else must stay for it.
    pub(super) fn keeps_vmd(&self) -> bool {
        self.stage != Stage::Cut
    }

    /// Gives the lease back: nobody of this host can write to the home any more. Storage that hangs is not waited for.
    fn give_back(self, endings: &Arc<Endings>) {
        if let Some(lease) = self.lease {
            endings.run(move || lease.release());
        }
    }

    /// The lease, for whoever gives it back.
    pub(super) fn into_lease(self) -> Option<Kept> {
        self.lease
    }
}

impl Host {
    /// Takes the lease of the home, mounts it and has the vmd serve it. Nothing is left on a failure.
    ///
    /// # Errors
    /// `in-use` when another host has it; `host-limit` without FUSE; faults of mount and link; what the vmd refuses.
    pub(crate) fn mount_to(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        service: &mut Service,
        opened: Opened<Safe>,
        wanted: Wanted,
    ) -> Result<(), Fault> {
        let target = service.run.join("home");
        files::folder(&target, MOUNT_POINT_MODE, None)?;
        let lease = if wanted.leased {
            let leases = Leases::new(&vm.folder, vm.id, &opened.key, self.keyring.arena())?;
            Some(self.take_lease(vm, leases, wanted.mode, wanted.force)?)
        } else {
            None
        };
        let home = Home { target, mode: wanted.mode, stage: Stage::Mounted, lease, unheld: None };
        match self.serve_home(vm, service, opened, &home) {
            Ok(()) => {
                service.home = Some(home);
                Ok(())
            }
            Err(e) => {
                give_back_after(&e, home, service);
                Err(e)
            }
        }
    }

    /// Mounts a home and has the vmd serve it; unmounts it again when the vmd does not.
    pub(super) fn serve_home(
        &self,
        vm: &Vm,
        service: &mut Service,
        opened: Opened<Safe>,
        home: &Home,
    ) -> Result<(), Fault> {
        let Opened { body, key, lease } = opened;
        let names = home_names(&body);
        let sheet = KeySheet::seal(&[SheetKey::Home(&key)])?;
        let vmd = service.up(vm)?;
        let fuse = mounts::mount_home(vm.name.as_str(), &home.target)?;
        let request = Request::ServeHome(ServeHome {
            mountpoint: home.target.clone(),
            mode: home.mode,
            names,
        });
        if let Err(e) = vmd.call(&request, &[fuse.as_fd(), sheet.as_fd()]) {
            // The first fault tells what the vmd may have done.
            if let Err(e) = mounts::detach(&home.target) {
                tracing::warn!("{e}");
            }
            return Err(e);
        }
        service.keep(lease);
        let device = mounts::device(&home.target).ok().flatten();
        for reason in device.map(|device| mounts::tune(device, home.mode)).unwrap_or_default() {
            tracing::warn!("the home of VM {} is slower than it could be: {reason}", vm.name);
        }
        Ok(())
    }

    /// Mounts the home again for a new vmd, unless it had been unmounted and its users have died with the old one. The
    /// lease is given back when that fails.
    ///
    /// # Errors
    /// Those of [`Host::mount_to`].
    pub(super) fn serve_home_again(
        &self,
        vm: &Vm,
        service: &mut Service,
        opened: Result<Opened<Safe>, Fault>,
        home: Home,
    ) -> Result<Option<Home>, Fault> {
        let outcome = match home.stage {
            Stage::Mounted => opened.and_then(|opened| {
                home.lease.as_ref().map_or(Ok(()), |lease| lease.check(vm))?;
                // The dead mount stays until the last moment: an error is better than a folder that takes writes.
                mounts::detach(&home.target)?;
                self.serve_home(vm, service, opened, &home).map(|()| true)
            }),
            Stage::Leaving | Stage::Cut => Ok(false),
        };
        match outcome {
            Ok(true) => return Ok(Some(home)),
            Ok(false) => home.give_back(&service.endings),
            Err(e) => {
                let detached = mounts::detach(&home.target);
                give_back_after(&e, home, service);
                detached?;
                return Err(e);
            }
        }
        Ok(None)
    }

    /// Unmounts the home. With force its users are cut off; lazily, it stays for them until they end.
    ///
    /// # Errors
    /// `in-use` naming the processes; faults of the kernel.
    pub(crate) fn unmount_from(
        &self,
        vm: &Vm,
        service: &mut Service,
        how: &UmountVm,
    ) -> Result<(), Fault> {
        let failed = service.has_failed();
        let Some(home) = service.home.as_mut() else { return Ok(()) };
        home.stage = match home.stage {
            Stage::Mounted => take_out(vm, home, how, failed)?,
            Stage::Leaving if how.lazy && !how.force => return Ok(()),
            Stage::Leaving if !how.force => return Err(leaving(vm)),
            Stage::Leaving | Stage::Cut => Stage::Cut,
        };
        if home.stage == Stage::Cut {
            forget(vm, service);
            self.withdraw(Topic::Lease, Some(vm.name.as_str()));
        }
        Ok(())
    }

    /// Ends homes that were unmounted lazily and whose users have ended since.
    pub(crate) fn end_left_homes(&self) {
        for vm in self.inventory.all() {
            let Some(mut inner) = vm.try_enter() else { continue };
            self.end_left_home(&vm, &mut inner);
        }
    }

    /// Ends the home of a VM if it was unmounted lazily and its users have ended since.
    pub(crate) fn end_left_home(&self, vm: &Vm, inner: &mut Inner) {
        let Some(service) = inner.service.as_mut() else { return };
        if !service.home.as_ref().is_some_and(|home| home.stage != Stage::Mounted) {
            return;
        }
        let served = match &mut service.process {
            Process::Up(vmd) => vmd.status().map_or(true, |report| report.home.is_some()),
            Process::Restarting => true,
            Process::Failed => false,
        };
        if !served {
            tracing::info!("the last user of the home of VM {} has ended", vm.name);
            forget(vm, service);
            self.withdraw(Topic::Lease, Some(vm.name.as_str()));
            self.stop_if_idle(inner);
        }
    }

    /// Stops serving a home at once, because another host has it: what is not written yet must not be written any
    /// more. `held` is the lease that was lost; a home that has another one by now is left alone.
    pub(super) fn fence(&self, vm: &Arc<Vm>, held: &Arc<Held>, why: &str) {
        if !held.is_over() {
            // First of all, as a verb that runs on the VM may take its time.
            let _else_below = mounts::abort(&self.run_folder(&vm.name).join("home"));
        }
        // Whatever verb does not end: it ends sometime, or has given the home back itself.
        while !held.is_over() {
            match vm.enter() {
                Ok(mut inner) => {
                    let home = inner.service.as_ref().and_then(|s| s.home.as_ref());
                    if home.and_then(|h| h.lease.as_ref()).is_some_and(|lease| lease.is(held)) {
                        self.stop_lost(vm, &mut inner, why);
                    }
                    return;
                }
                Err(Fault::Refused(r)) if r.code == ErrorCode::InUse => {
                    tracing::error!(
                        "the home of VM {} cannot be stopped yet: {}",
                        vm.name,
                        r.message
                    );
                }
                Err(_) => return,
            }
        }
    }

    /// Stops a home that another host has.
    pub(super) fn stop_lost(&self, vm: &Vm, inner: &mut Inner, why: &str) {
        let Some(service) = inner.service.as_mut() else { return };
        let Some(home) = service.home.take() else { return };
        let aborted = mounts::abort(&home.target);
        if let Err(e) = mounts::detach(&home.target) {
            tracing::warn!("{e}");
        }
        let told = aborted && service.up(vm).is_ok_and(|v| v.call(&Request::StopHome, &[]).is_ok());
        // A vmd that has not ended the home by now is ended; its disks come back with the next one.
        let stopped = told || service.end_and_wait();
        if let (true, Some(lease)) = (stopped, home.lease) {
            vm.endings.run(move || lease.yield_up());
        }
        self.withdraw(Topic::Lease, Some(vm.name.as_str()));
        inner.home_problem = Some(why.to_owned());
        self.warn(Some(vm.name.as_str()), format!("{why}; it is served here no more"));
        self.stop_if_idle(inner);
    }
}

/// The refusal while an earlier mount has users.
pub(crate) fn leaving(vm: &Vm) -> Fault {
    Fault::refused(
        ErrorCode::InUse,
        format!("the home of VM {} was unmounted lazily, and programs still use it", vm.name),
        format!("end them, or cut them off by `coffer vm umount {} --force`", vm.name),
    )
}

/// Takes a mounted home out of the file tree, and tells what it is then.
fn take_out(vm: &Vm, home: &Home, how: &UmountVm, failed: bool) -> Result<Stage, Fault> {
    if failed {
        mounts::detach(&home.target)?;
        return Ok(Stage::Cut);
    }
    if how.force {
        mounts::flush(&home.target);
        // Without the switch users end with the vmd, or when they close their files.
        let _cut = mounts::abort(&home.target);
        mounts::detach(&home.target)?;
        return Ok(Stage::Cut);
    }
    match mounts::unmount(vm.name.as_str(), &home.target) {
        Ok(()) => Ok(Stage::Cut),
        Err(Fault::Refused(refusal)) if refusal.code == ErrorCode::InUse && how.lazy => {
            mounts::detach(&home.target)?;
            Ok(Stage::Leaving)
        }
        Err(e) => Err(e),
    }
}

/// Gives the lease back of a home that could not be served, because of `fault`. A vmd that did not answer may serve it
/// after all, so it is ended first.
fn give_back_after(fault: &Fault, home: Home, service: &Service) {
    if !matches!(fault, Fault::Link { .. }) || service.end_and_wait() {
        home.give_back(&service.endings);
    }
}

/// Has the vmd forget a home that is out of the file tree, and gives the lease back when it has. Else the home goes
/// with the last of its users, or with the vmd.
fn forget(vm: &Vm, service: &mut Service) {
    let stopped = match service.up(vm).map(|vmd| vmd.call(&Request::StopHome, &[])) {
        Ok(Ok(_)) => true,
        // An earlier request was carried out after its answer was given up.
        Ok(Err(Fault::Vmd(failure))) if failure.code == ErrorCode::WrongState => true,
        Ok(Err(e)) => {
            tracing::warn!("after the unmount of VM {}: {e}", vm.name);
            false
        }
        // Nothing is served by a process that is no more.
        Err(_) => service.has_failed(),
    };
    if stopped && let Some(home) = service.home.take() {
        home.give_back(&service.endings);
    }
}

#[cfg(test)]
#[path = "home_tests.rs"]
mod tests;
