//! Starting and stopping the vmd of a VM, with its runtime folder and lock.
//!
//! Owns the order: folder, lock, process, confinement; and the reverse when nothing is served any more.

use super::{Home, Process, Service, Vmd};
use crate::fault::Fault;
use crate::files;
use crate::host::Host;
use crate::vm::{Inner, Vm};
use hostd_api::link::{LINK_VERSION, Report, Request, Setup};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// Permissions of the runtime folder of a VM: its group may reach the sockets of disks.
const RUN_MODE: u32 = 0o750;

impl Host {
    /// The service of a VM, started if it does not run.
    ///
    /// # Errors
    /// `in-use` when another process serves the VM; faults of files, process and link.
    pub(crate) fn running<'a>(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        inner: &'a mut Inner,
    ) -> Result<&'a mut Service, Fault> {
        let service = match inner.service.take() {
            Some(service) => service,
            None => {
                let mut service = self.start(vm)?;
                self.calm(vm.name.as_str());
                self.settle_tls(vm, &mut service);
                service
            }
        };
        Ok(inner.service.insert(service))
    }

    fn start(self: &Arc<Self>, vm: &Arc<Vm>) -> Result<Service, Fault> {
        let lock = self.take_lock(vm)?.into_shared();
        let lock = lock.ok_or_else(|| Fault::Bug("a lock without a descriptor".into()))?;
        let run = self.run_folder(&vm.name);
        let group = self.config.socket.disk_group.as_ref().and_then(crate::config::Group::resolve);
        files::folder(&run, RUN_MODE, group)?;
        let process = match self.launch(vm, &run, &lock) {
            Ok(vmd) => Process::Up(vmd),
            Err(e) => {
                files::unlock(&lock);
                clear_run(&run);
                return Err(e);
            }
        };
        Ok(Service {
            run,
            lock,
            leases: Default::default(),
            disks: Default::default(),
            mark: None,
            home: None,
            tls: None,
            process,
            ends: Vec::new(),
            endings: Arc::clone(&vm.endings),
        })
    }

    /// Starts a vmd, confines it, and begins to watch it.
    ///
    /// # Errors
    /// Faults of process and link; what the vmd itself refuses.
    pub(super) fn launch(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        run: &Path,
        lock: &OwnedFd,
    ) -> Result<Vmd, Fault> {
        let folder = files::open_folder(vm.folder.path())?;
        let socket = run.join("vmd.sock");
        let (mut vmd, child) = Vmd::spawn(&self.spawner, vm.name.as_str(), &socket, folder)?;
        let pidfd = vmd.pidfd()?;
        self.watch(vm, vmd.pid(), pidfd, Some(child));
        match self.set_up(vm, &mut vmd, lock) {
            Ok(()) => Ok(vmd),
            Err(e) => {
                vmd.kill();
                Err(e)
            }
        }
    }

    fn set_up(&self, vm: &Vm, vmd: &mut Vmd, lock: &OwnedFd) -> Result<(), Fault> {
        let zone = &self.config.danger_zone;
        let request = Request::Setup(Setup {
            vm: vm.name.to_string(),
            id: vm.id,
            folder: vm.folder.path().to_owned(),
            require_confinement: !(zone.enabled && zone.allow_unconfined_vmd),
            max_connections: self.config.limits.disk_connections,
        });
        let polling = self.polling.memory()?;
        let mut fds = vec![lock.as_fd()];
        fds.extend(polling.as_ref().map(|memory| memory.as_fd()));
        let (report, _) = vmd.report(&request, &fds)?;
        self.note_report(&report)
    }

    /// Checks the version of a vmd and remembers its confinement.
    ///
    /// # Errors
    /// A refusal with code `data-plane` for another version.
    pub(super) fn note_report(&self, report: &Report) -> Result<(), Fault> {
        if report.link_version != LINK_VERSION {
            return Err(Fault::refused(
                hostd_api::error::ErrorCode::DataPlane,
                format!(
                    "vmd (process {}) speaks version {} of the link, this hostd {LINK_VERSION}",
                    report.pid, report.link_version
                ),
                "install hostd and vmd of the same release",
            ));
        }
        *self.confinement.lock().unwrap_or_else(PoisonError::into_inner) =
            report.confinement.clone();
        Ok(())
    }

    /// Ends the vmd of a VM that serves nothing any more; one without disks has no mark.
    pub(crate) fn stop_if_idle(&self, inner: &mut Inner) {
        if let Some(service) = inner.service.as_mut().filter(|service| !service.is_idle()) {
            self.unmark(service);
        }
        if inner.service.as_ref().is_some_and(Service::is_idle)
            && let Some(service) = inner.service.take()
            && let Err(e) = stop(service)
        {
            tracing::error!("{e}");
        }
    }
}

/// Ends a vmd and clears its runtime folder; the lock of the VM folder goes last. A process that is stuck in the
/// kernel may still write, so it keeps its copy of the lock until it is gone. Storage that hangs is not waited for.
///
/// # Errors
/// `data-plane` for a stuck process.
pub(crate) fn stop(service: Service) -> Result<(), Fault> {
    let Service { run, lock, process, home, mark, endings, .. } = service;
    let pid = match &process {
        Process::Up(vmd) => vmd.pid(),
        Process::Restarting | Process::Failed => 0,
    };
    let gone = match process {
        Process::Up(vmd) => vmd.stop(),
        Process::Restarting | Process::Failed => true,
    };
    clear_run(&run);
    let lease = home.filter(|_| gone).and_then(Home::into_lease);
    let mark = mark.filter(|_| gone);
    endings.run(move || {
        if let Some(lease) = lease {
            lease.release();
        }
        if let Some(mark) = mark {
            mark.remove();
        }
        if gone {
            files::unlock(&lock);
        }
        // The close of a lock file may wait for the storage, too.
        drop(lock);
    });
    if gone {
        return Ok(());
    }
    Err(Fault::refused(
        hostd_api::error::ErrorCode::DataPlane,
        format!("vmd process {pid} is stuck in the kernel and keeps the lock of the VM"),
        "look at the storage that it waits for; the VM can be used again when the process is gone",
    ))
}

/// Removes the runtime folder of a VM that does not run: sockets, mount point, folder. Never removes a plain
/// file, as none of ours is there.
pub(super) fn clear_run(run: &Path) {
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    for path in entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "sock")) {
        if let Err(e) = files::remove(&path) {
            tracing::warn!("{e}");
        }
    }
    for folder in [run.join("home"), run.to_owned()] {
        match std::fs::remove_dir(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove {}: {e}", folder.display());
            }
            _ => {}
        }
    }
}
