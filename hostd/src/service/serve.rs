//! Handing disks to a vmd, and taking them back.
//!
//! Owns which descriptors travel with which request; must not decide whether a VM may be served. Keys leave this
//! process here only, on a sheet that the vmd wipes.

use super::{Served, Service};
use crate::config::Owner;
use crate::fault::Fault;
use crate::files;
use crate::host::Host;
use crate::vm::{Opened, Vm};
use cryptfs::descriptor::Descriptor;
use cryptfs::name::Name;
use crypto::{KeySheet, SheetKey};
use hostd_api::error::ErrorCode;
use hostd_api::link::{Attach, MAX_DISKS, Request};
use hostd_api::types::AttachDisk;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Connections to a disk that may wait while its vmd is busy or being started again: QEMU's, and some tools.
const BACKLOG: i32 = 16;

/// Permissions of the runtime folder of a VM that has a disk with an owner, who need not be in the folder's group:
/// others may pass through but not list it, and each socket and the home have permissions of their own.
const PASSABLE_MODE: u32 = 0o751;

impl Host {
    /// Makes the listening socket of a disk and has the vmd serve it. Nothing is left on a failure.
    ///
    /// # Errors
    /// Faults of payload, socket and link; what the vmd refuses.
    pub(crate) fn attach_to(
        &self,
        vm: &Vm,
        service: &mut Service,
        opened: Opened<Descriptor>,
        request: &AttachDisk,
        owner: Option<Owner>,
    ) -> Result<(), Fault> {
        let disk = opened.body.name.clone();
        let socket = self.disk_socket(&vm.name, &disk);
        super::check_socket_path(&socket)?;
        if service.disks.len() >= MAX_DISKS {
            return Err(Fault::refused(
                ErrorCode::HostLimit,
                format!("VM {} has {MAX_DISKS} disks attached, which is the limit", vm.name),
                "detach one first",
            ));
        }
        let listener = self.listen(&socket, owner)?;
        if owner.is_some()
            && let Err(e) = files::permit(&service.run, PASSABLE_MODE, None)
        {
            files::remove(&socket)?;
            return Err(e);
        }
        let AttachDisk { read_only, cache, .. } = *request;
        let served = Served { id: opened.body.id, read_only, cache, socket, listener };
        match serve_disk(vm, service, opened, &served) {
            Ok(()) => {
                service.disks.insert(disk, served);
                Ok(())
            }
            Err(e) => {
                files::remove(&served.socket)?;
                self.take_back(vm, service, &disk, &e);
                Err(e)
            }
        }
    }

    /// After an attach without an answer: the vmd may have carried it out, and must not serve a disk that this
    /// hostd takes for detached. One that does not say is ended and started again for what else it serves.
    fn take_back(&self, vm: &Vm, service: &mut Service, disk: &Name, fault: &Fault) {
        if !matches!(fault, Fault::Link { .. }) {
            return;
        }
        let request = Request::Detach { disk: disk.to_string() };
        match service.up(vm).and_then(|vmd| vmd.call(&request, &[])) {
            Ok(_) => {}
            Err(Fault::Vmd(failure)) if failure.code == ErrorCode::NotFound => {}
            Err(e) => {
                tracing::error!("disk {disk} of VM {}: {e}; the vmd is ended", vm.name);
                service.end_process();
            }
        }
    }

    /// Takes a disk back: drained, flushed, its key wiped, its socket gone. With force, a vmd that does not
    /// answer is ended for it.
    ///
    /// # Errors
    /// `storage` when the last flush failed: the disk is detached all the same. Other faults of vmd and link; the
    /// disk stays attached then, and a later detach finds out what became of it.
    pub(crate) fn detach_from(
        &self,
        vm: &Vm,
        service: &mut Service,
        disk: &Name,
        force: bool,
    ) -> Result<(), Fault> {
        let mut unflushed = None;
        if !service.has_failed() {
            let request = Request::Detach { disk: disk.to_string() };
            match service.up(vm)?.call(&request, &[]) {
                Ok(_) => {}
                Err(Fault::Vmd(failure)) => match failure.code {
                    // An earlier detach was carried out after its answer was given up.
                    ErrorCode::NotFound => {}
                    ErrorCode::Storage => unflushed = Some(Fault::Vmd(failure)),
                    _ => return Err(Fault::Vmd(failure)),
                },
                Err(e) if force => {
                    tracing::warn!("disk {disk} of VM {}: {e}; the vmd is ended", vm.name);
                    service.end_process();
                }
                Err(e) => return Err(e),
            }
        }
        if let Some(served) = service.disks.remove(disk) {
            files::remove(&served.socket)?;
        }
        unflushed.map_or(Ok(()), Err)
    }

    /// A listening NBD socket of `owner`, or with the configured permissions. The umask keeps everybody out until they are set.
    fn listen(&self, path: &Path, owner: Option<Owner>) -> Result<OwnedFd, Fault> {
        files::remove(path)?;
        let make = || {
            let fd = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            // Before Linux 6.16 there is no such option, and the vmd is served by the rest of its confinement.
            if let Err(e) = hostd_api::link::refuse_descriptors(fd.as_fd()) {
                tracing::debug!("clients of {} may pass descriptors: {e}", path.display());
            }
            rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
            rustix::net::listen(&fd, BACKLOG)?;
            Ok::<_, rustix::io::Errno>(fd)
        };
        let fd = make().map_err(Fault::io("listen on", path))?;
        let socket = &self.config.socket;
        if let Some(owner) = owner {
            files::give(path, owner)?;
            return Ok(fd);
        }
        let group = socket.disk_group.as_ref().and_then(crate::config::Group::resolve);
        files::permit(path, socket.disk_mode.0, group)?;
        Ok(fd)
    }
}

/// Has the vmd serve a disk on a socket that listens already.
pub(super) fn serve_disk(
    vm: &Vm,
    service: &mut Service,
    opened: Opened<Descriptor>,
    served: &Served,
) -> Result<(), Fault> {
    let Opened { body, key, lease } = opened;
    let payload = crate::vm::open_payload(vm, &body, served.read_only)?;
    let direct = crate::vm::open_direct(vm, &body, served.read_only, served.cache)?;
    let sheet = KeySheet::seal(&[SheetKey::Disk(&key)])?;
    let request = Request::Attach(Attach {
        disk: body.name.to_string(),
        id: body.id,
        size: body.size,
        unit: body.unit,
        read_only: served.read_only,
        cache: served.cache,
        socket: served.socket.clone(),
    });
    let mut fds = vec![payload.as_fd(), served.listener.as_fd(), sheet.as_fd()];
    fds.extend(direct.as_ref().map(AsFd::as_fd));
    service.up(vm)?.call(&request, &fds)?;
    service.keep(lease);
    Ok(())
}
