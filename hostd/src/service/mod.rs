//! Running VMs: one vmd each, what it serves, and keeping it alive.
//!
//! Owns the processes, the runtime folder of each VM, its listening sockets and its mounts. Must not decide
//! whether a VM may run; `vm` does. Flow: `start` makes folder, lock and process, `serve` hands disks to it and
//! `home` the home, `lease` keeps other hosts from the home (`hold` that of an adopted one), `mark` from the disks, `watch` starts it again when it dies, `adopt` finds those of an earlier hostd,
//! and `endings` keeps storage that hangs from holding up the end.

mod adopt;
mod check;
pub(crate) mod claim;
pub(crate) mod endings;
mod hold;
mod home;
mod lease;
mod mark;
pub(crate) mod polling;
mod serve;
mod spawner;
mod start;
mod tls;
mod vmd;
mod watch;

pub use home::Home;
pub(crate) use home::{Wanted, leaving};
pub(crate) use spawner::Spawner;
pub(crate) use start::stop;
pub use vmd::Vmd;

use crate::fault::Fault;
use crate::files::{self, FileLock, Locked};
use crate::host::Host;
use crate::keyring::{Lease, Usage};
use crate::vm::{Inner, Vm};
use cryptfs::name::Name;
use crypto::KeyId;
use endings::Endings;
use hostd_api::error::ErrorCode;
use hostd_api::types::CacheMode;
use mark::Mark;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// Longest path of a Unix socket (unix(7): `sun_path` has 108 bytes with its end).
const MAX_SOCKET_PATH: usize = 107;

/// A VM that runs.
#[derive(Debug)]
pub struct Service {
    /// Runtime folder.
    run: PathBuf,
    /// Lock of the VM folder, shared with the vmd.
    lock: OwnedFd,
    /// KEKs that are needed to start the vmd again, counted as in use.
    leases: BTreeMap<KeyId, Usage>,
    /// Disks served, by name.
    pub disks: BTreeMap<Name, Served>,
    /// What tells other hosts of them.
    mark: Option<Mark>,
    /// The home, while it is served.
    pub home: Option<Home>,
    /// Its network port, when it is open.
    tls: Option<Port>,
    /// Its vmd.
    process: Process,
    /// When its vmd ended unexpectedly, as far back as it matters.
    ends: Vec<Instant>,
    /// Where what touches the storage at its end is left to.
    endings: Arc<Endings>,
}

/// State of the vmd of a running VM.
#[derive(Debug)]
enum Process {
    /// It runs.
    Up(Vmd),
    /// It ended and is being started again; the listening sockets wait meanwhile.
    Restarting,
    /// It ended too often. The sockets stay until disks are detached and the home is unmounted.
    Failed,
}

/// An open network port.
#[derive(Debug)]
struct Port {
    address: SocketAddr,
    /// The listening socket, which outlives the vmd.
    listener: OwnedFd,
}

/// What a vmd says of its clients.
#[derive(Debug, Default)]
pub struct Clients {
    /// Of each disk, by whatever way.
    pub disks: BTreeMap<Name, u32>,
    /// Of the network port.
    pub tls: u32,
}

/// A disk that is served.
#[derive(Debug)]
pub struct Served {
    /// Identity in the descriptor.
    pub id: Uuid,
    /// No writes allowed.
    pub read_only: bool,
    /// What the page cache is used for.
    pub cache: CacheMode,
    /// Path of the NBD socket.
    pub socket: PathBuf,
    /// The listening NBD socket, which outlives the vmd.
    listener: OwnedFd,
}

impl Service {
    /// Process id of the vmd, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.process {
            Process::Up(vmd) => Some(vmd.pid()),
            Process::Restarting | Process::Failed => None,
        }
    }

    /// Whether its vmd ended too often.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(self.process, Process::Failed)
    }

    /// Whether nothing is served, so that the vmd can go.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.disks.is_empty() && !self.home.as_ref().is_some_and(Home::keeps_vmd)
    }

    /// Address of its network port, when it is open.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|port| port.address)
    }

    /// Clients now. A vmd that ended too often has none.
    ///
    /// # Errors
    /// When the vmd does not say, or is being started again: clients may be there then.
    pub fn clients(&mut self) -> Result<Clients, Fault> {
        let report = match &mut self.process {
            Process::Up(vmd) => vmd.status()?,
            Process::Failed => return Ok(Clients::default()),
            Process::Restarting => {
                return Err(Fault::refused(
                    ErrorCode::DataPlane,
                    "the vmd is being started again, and clients wait for it",
                    "try again in a moment",
                ));
            }
        };
        let counts = report.disks.into_iter();
        Ok(Clients {
            disks: counts.filter_map(|d| Some((d.disk.parse().ok()?, d.clients))).collect(),
            tls: report.tls.map_or(0, |tls| tls.clients),
        })
    }

    /// Ids of the KEKs that it keeps.
    pub(crate) fn key_ids(&self) -> std::collections::BTreeSet<KeyId> {
        self.leases.keys().cloned().collect()
    }

    /// Ends a vmd that does not answer; its watcher starts another for what is still to be served.
    pub(crate) fn end_process(&mut self) {
        if let Process::Up(vmd) = &mut self.process {
            vmd.signal_kill();
        }
    }

    /// Ends the vmd, and waits until it can write no more; its watcher starts another for what is still to be served.
    /// `false` when it is stuck in the kernel.
    fn end_and_wait(&self) -> bool {
        match &self.process {
            Process::Up(vmd) => vmd.end(),
            Process::Restarting | Process::Failed => true,
        }
    }

    /// Keeps a KEK from being dropped, unless by force, for as long as the VM runs.
    pub(crate) fn keep(&mut self, lease: Lease) {
        self.leases.insert(lease.id().clone(), lease.into_usage());
    }

    /// Drops the leases of all keys but these.
    pub(crate) fn keep_only(&mut self, keys: &std::collections::BTreeSet<KeyId>) {
        self.leases.retain(|id, _| keys.contains(id));
    }

    /// The vmd, or why there is none.
    fn up(&mut self, vm: &Vm) -> Result<&mut Vmd, Fault> {
        let (state, remedy) = match &mut self.process {
            Process::Up(vmd) => return Ok(vmd),
            Process::Restarting => ("is being started again", "try again in a moment"),
            Process::Failed => (
                "ended again and again",
                "see the log, detach its disks and unmount its home, then try again",
            ),
        };
        let message = format!("the vmd of VM {} {state}", vm.name);
        Err(Fault::refused(ErrorCode::DataPlane, message, remedy))
    }
}

impl Host {
    /// Path of the NBD socket of a disk.
    pub(crate) fn disk_socket(&self, vm: &Name, disk: &Name) -> PathBuf {
        self.run_folder(vm).join(format!("{disk}.sock"))
    }

    /// Makes sure that no other process serves the VM while its files are changed: a running VM is ours, else its
    /// lock is taken for as long as the returned guard lives.
    ///
    /// # Errors
    /// `in-use` naming the process that holds it; [`Fault::Io`].
    pub(crate) fn exclusive(&self, vm: &Vm, inner: &Inner) -> Result<Option<FileLock>, Fault> {
        match &inner.service {
            Some(_) => Ok(None),
            None => self.take_lock(vm).map(Some),
        }
    }

    /// Refuses when a vmd of this host serves the VM and was not taken up. For whoever cannot ask its lock, because
    /// the storage does not answer.
    ///
    /// # Errors
    /// `in-use`.
    pub(crate) fn not_left_alone(&self, vm: &Vm) -> Result<(), Fault> {
        if !self.run_folder(&vm.name).join("vmd.sock").exists() {
            return Ok(());
        }
        Err(Fault::refused(
            ErrorCode::InUse,
            format!(
                "a process that is not under this hostd serves VM {}, whose datastore does not answer",
                vm.name
            ),
            "bring its storage back, or end the vmd of the VM; see `coffer host status`",
        ))
    }

    /// Takes the lock of a VM: a file in its folder, or, where there is none and none can be made, one of this host.
    fn take_lock(&self, vm: &Vm) -> Result<FileLock, Fault> {
        vm.endings.wait()?;
        let beside = self.lock_beside(vm);
        // A process that began when the datastore was read-only holds that one, whatever the datastore is now.
        let held =
            beside.exists().then(|| ours(vm, files::lock_unwritable(&beside)?)).transpose()?;
        match (files::lock_if_possible(&vm.folder.lock())?, held) {
            (Some(locked), _) => ours(vm, locked),
            (None, Some(held)) => Ok(held),
            (None, None) => ours(vm, files::lock_unwritable(&beside)?),
        }
    }

    /// The lock of a VM whose folder has none, as on a read-only datastore. Nobody writes there, so it is enough that
    /// this host is told apart from itself. The file stays: to remove one that others may be opening helps nobody.
    fn lock_beside(&self, vm: &Vm) -> PathBuf {
        self.config.locks().join(vm.id.to_string())
    }

    /// Runtime folder of a VM.
    fn run_folder(&self, vm: &Name) -> PathBuf {
        self.config.vm_runs().join(vm.as_str())
    }
}

/// Refuses a path that no Unix socket can have.
///
/// # Errors
/// A refusal with code `invalid-argument`.
pub(crate) fn check_socket_path(path: &Path) -> Result<(), Fault> {
    let length = path.as_os_str().len();
    if length <= MAX_SOCKET_PATH {
        return Ok(());
    }
    Err(Fault::invalid(
        format!(
            "the socket {} would have a path of {length} bytes, Unix sockets have at most \
             {MAX_SOCKET_PATH}",
            path.display()
        ),
        "choose shorter names, or a shorter run_dir in the configuration",
    ))
}

/// The lock, if it was free.
fn ours(vm: &Vm, locked: Locked) -> Result<FileLock, Fault> {
    match locked {
        Locked::Ours(lock) => Ok(lock),
        Locked::Theirs(pid) => {
            let by = pid.map_or(String::new(), |pid| format!(" (started by hostd process {pid})"));
            Err(Fault::refused(
                ErrorCode::InUse,
                format!("a process that is not under this hostd serves VM {}{by}", vm.name),
                "a vmd that did not answer at the start is looked at again every few seconds, see \
                 `coffer host status`; else use the hostd that runs it",
            ))
        }
    }
}
