//! The disks that are served now.
//!
//! Owns the table of exports: attach and detach while others run, and the drain at the end. It must not know
//! the link. Flow: [`Exports::attach`] opens a volume and starts its server, [`Exports::detach`] takes both
//! down in the reverse order.

use crate::nbd::budget::Budget;
use crate::nbd::connection::Limits;
use crate::nbd::export::Export;
use crate::nbd::server::Server;
use crate::nbd::tls_access::Access;
use crate::nbd::tls_port::{Directory, Port, Settings};
use crate::nbd::tls_settings::{PemFiles, server_config};
use crate::refusal::Refusal;
use cryptfs::backing::{Backing, DirectBacking, FileBacking};
use cryptfs::name::Name;
use cryptfs::volume::{Geometry, Volume, VolumeError};
use crypto::{Arena, KeySheet, Unit};
use hostd_api::error::ErrorCode;
use hostd_api::link::{Attach, MAX_DISKS, ServeTls, ServedDisk, ServedTls};
use hostd_api::types::CacheMode;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Time that requests in flight have at a detach; slow storage answers in less, a dead one never.
pub const GRACE: Duration = Duration::from_secs(20);

/// Descriptors of an [`Attach`].
#[derive(Debug)]
pub struct AttachFds {
    /// The payload, opened read-write or read-only.
    pub payload: OwnedFd,
    /// The payload once more, opened with `O_DIRECT`, when the page cache is to be kept out.
    pub direct: Option<OwnedFd>,
    /// The listening NBD socket.
    pub listener: OwnedFd,
    /// Key sheet with the disk key.
    pub sheet: OwnedFd,
}

/// The disks that are served now, by name.
#[derive(Default)]
pub struct Exports {
    served: BTreeMap<Name, Served>,
    /// The same disks, for the TLS port.
    directory: Directory,
    port: Option<OpenPort>,
    budget: Budget,
}

struct OpenPort {
    address: SocketAddr,
    port: Port,
}

struct Served {
    id: Uuid,
    cache: CacheMode,
    socket: PathBuf,
    server: Server,
}

impl Exports {
    /// Where threads of disks that are attached from now on ask before they look for requests instead of sleeping.
    pub fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// Starts to serve a disk.
    ///
    /// # Errors
    /// Names what hostd sent wrong, or what failed; nothing is served then.
    pub fn attach(
        &mut self,
        vm: &str,
        attach: Attach,
        fds: AttachFds,
        limits: Limits,
        arena: &Arena,
    ) -> Result<(), Refusal> {
        let name: Name = attach.disk.parse().map_err(|e| Refusal::invalid(format!("{e}")))?;
        if self.served.contains_key(&name) {
            let message = format!("disk {name} is served already");
            return Err(Refusal::new(ErrorCode::AlreadyExists, message, "detach it first"));
        }
        if self.served.len() >= MAX_DISKS {
            let message = format!("{MAX_DISKS} disks are served, which is the limit of a VM");
            return Err(Refusal::new(ErrorCode::HostLimit, message, "detach another disk first"));
        }
        let payload = backing(&name, fds.payload, fds.direct)?;
        let volume = open(&name, &attach, payload, fds.sheet, arena)?;
        let export = Export::new(name.as_str(), vm, volume).within(self.budget.clone());
        let server = Server::start(export, fds.listener, limits)
            .map_err(|e| Refusal::invalid(format!("cannot serve disk {name}: {e}")))?;
        let Attach { id, size, read_only, cache, socket, .. } = attach;
        tracing::info!(disk = %name, size, read_only, ?cache, "serving");
        self.directory.insert(&server);
        self.served.insert(name, Served { id, cache, socket, server });
        Ok(())
    }

    /// Stops serving a disk: requests that have come are answered, the volume is flushed, its keys are wiped.
    ///
    /// # Errors
    /// When no such disk is served; when its storage does not answer (it stays, and may be detached again);
    /// when the last flush fails (it is gone nevertheless).
    pub fn detach(&mut self, disk: &str, grace: Duration) -> Result<(), Refusal> {
        let found = disk.parse::<Name>().ok().and_then(|name| self.served.remove_entry(&name));
        let Some((name, served)) = found else {
            let message = format!("disk {disk} is not served");
            return Err(Refusal::new(ErrorCode::NotFound, message, "see which disks are attached"));
        };
        let Served { id, cache, socket, server } = served;
        self.directory.remove(name.as_str());
        match server.stop(grace) {
            Ok(export) => {
                let closed = close(&name, export);
                tracing::info!(disk = %name, "no longer serving");
                closed
            }
            Err(server) => {
                let message = format!("disk {name} has requests that its storage does not answer");
                self.served.insert(name, Served { id, cache, socket, server });
                let remedy = "bring the storage back, then detach again";
                Err(Refusal::new(ErrorCode::InUse, message, remedy))
            }
        }
    }

    /// Stops serving all disks within `limit`, each in turn; says what went wrong with each.
    pub fn drain(&mut self, limit: Duration) -> Vec<Refusal> {
        let deadline = Instant::now() + limit;
        let names: Vec<String> = self.served.keys().map(ToString::to_string).collect();
        // The port stays until its clients have been answered; it lets nobody in that finds no disk.
        // All are told before the first is waited for, so that no client starts anew elsewhere.
        self.served.values().for_each(|served| served.server.export().begin_stopping());
        let refusals = names
            .iter()
            .filter_map(|name| {
                let left = deadline.saturating_duration_since(Instant::now());
                self.detach(name, left).err()
            })
            .collect();
        if let Some(open) = self.port.take() {
            open.port.stop(Duration::ZERO);
        }
        refusals
    }

    /// Opens the TLS port of the VM, or gives the open one new settings.
    ///
    /// # Errors
    /// Names the file that is of no use, or what failed; nothing is changed then.
    pub fn open_port(
        &mut self,
        vm: &str,
        serve: ServeTls,
        listener: OwnedFd,
        files: PemFiles,
        limits: Limits,
    ) -> Result<(), Refusal> {
        let tls = server_config(files).map_err(|e| {
            let remedy = "see [tls] in the configuration of hostd";
            Refusal::new(ErrorCode::InvalidArgument, format!("no TLS for VM {vm}: {e}"), remedy)
        })?;
        let settings = Settings { tls, access: Access::new(serve.clients) };
        if let Some(open) = &mut self.port {
            open.port.replace(settings);
            return Ok(());
        }
        let limits = Limits { max_connections: serve.max_connections, ..limits };
        let port = Port::start(vm, listener, settings, self.directory.clone(), limits)
            .map_err(|e| Refusal::invalid(format!("cannot serve the TLS port: {e}")))?;
        tracing::info!(address = %serve.address, "serving all disks under TLS");
        self.port = Some(OpenPort { address: serve.address, port });
        Ok(())
    }

    /// Closes the TLS port; its clients are gone afterwards.
    ///
    /// # Errors
    /// When there is none.
    pub fn close_port(&mut self, grace: Duration) -> Result<(), Refusal> {
        let open = self.port.take().ok_or_else(|| Refusal::wrong_state("no TLS port is open"))?;
        open.port.stop(grace);
        Ok(())
    }

    /// The TLS port, when it is open.
    pub fn report_port(&self) -> Option<ServedTls> {
        self.port.as_ref().map(|open| ServedTls {
            address: open.address,
            clients: u32::try_from(open.port.clients()).unwrap_or(u32::MAX),
        })
    }

    /// The listening socket of the TLS port.
    pub fn port_listener(&self) -> Option<BorrowedFd<'_>> {
        self.port.as_ref().map(|open| open.port.listener())
    }

    /// What is served, in the order of names.
    pub fn report(&self) -> Vec<ServedDisk> {
        self.served.iter().map(|(name, served)| served.report(name)).collect()
    }

    /// The listening sockets, in the same order.
    pub fn listeners(&self) -> Vec<BorrowedFd<'_>> {
        self.served.values().map(|served| served.server.listener()).collect()
    }
}

impl Served {
    fn report(&self, name: &Name) -> ServedDisk {
        let export = self.server.export();
        ServedDisk {
            disk: name.to_string(),
            id: self.id,
            read_only: export.shape().read_only,
            cache: self.cache,
            socket: self.socket.clone(),
            clients: export.counters.clients.load(Ordering::Relaxed),
            bytes_read: export.counters.bytes_read.load(Ordering::Relaxed),
            bytes_written: export.counters.bytes_written.load(Ordering::Relaxed),
        }
    }
}

/// The storage of a disk, through the page cache or past it.
fn backing(
    name: &Name,
    payload: OwnedFd,
    direct: Option<OwnedFd>,
) -> Result<Box<dyn Backing>, Refusal> {
    let Some(direct) = direct else { return Ok(Box::new(FileBacking::new(payload))) };
    match DirectBacking::new(payload, direct) {
        Ok(backing) => Ok(Box::new(backing)),
        Err(e) => {
            let (code, remedy) = match e.kind() {
                io::ErrorKind::Unsupported => {
                    (ErrorCode::HostLimit, "attach it with the cache mode writeback")
                }
                io::ErrorKind::InvalidInput => {
                    (ErrorCode::InvalidArgument, "this is a fault of hostd")
                }
                _ => (ErrorCode::Storage, "check the datastore"),
            };
            let message = format!("cannot serve disk {name} past the page cache: {e}");
            Err(Refusal::new(code, message, remedy))
        }
    }
}

fn open(
    name: &Name,
    attach: &Attach,
    payload: Box<dyn Backing>,
    sheet: OwnedFd,
    arena: &Arena,
) -> Result<Volume, Refusal> {
    let unit = Unit::try_from(attach.unit).map_err(|e| Refusal::invalid(format!("{e}")))?;
    let geometry = Geometry { size: attach.size, unit, read_only: attach.read_only };
    let key = KeySheet::open(sheet, arena)
        .and_then(|mut sheet| sheet.take_disk())
        .map_err(|e| Refusal::invalid(format!("the key of disk {name}: {e}")))?;
    Volume::open(payload, key, geometry).map_err(|e| {
        let (code, remedy) = match &e {
            VolumeError::PayloadShort { .. } => {
                (ErrorCode::Damaged, "restore the payload from a backup")
            }
            VolumeError::Geometry(_) => (ErrorCode::Damaged, "restore the descriptor"),
            VolumeError::Cipher(_) => (ErrorCode::Internal, "see the log of vmd"),
            _ => (ErrorCode::Storage, "check the datastore"),
        };
        Refusal::new(code, format!("cannot open disk {name}: {e}"), remedy)
    })
}

fn close(name: &Name, export: Export) -> Result<(), Refusal> {
    export.close().map_err(|e| {
        let message = format!("disk {name} is detached, but its last flush failed: {e}");
        let remedy =
            "what the guest wrote since its own last flush may be lost; check the datastore";
        Refusal::new(ErrorCode::Storage, message, remedy)
    })
}
