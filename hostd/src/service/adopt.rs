//! Finding the vmds of an earlier hostd, and clearing what dead ones left.
//!
//! Owns the decision for each runtime folder: adopt it, leave it alone (another version, an unknown VM, no
//! answer), or clear it because nobody listens. Runs at start, before the control socket answers, and again when a
//! datastore comes back.

use super::{Home, Port, Process, Served, Service, Vmd, start};
use crate::fault::Fault;
use crate::files::{self, Locked};
use crate::host::Host;
use crate::keyring::Lease;
use crate::mounts;
use crate::vm::{Access, Inner, Vm};
use cryptfs::descriptor::Descriptor;
use cryptfs::name::Name;
use cryptfs::seal::Sealed;
use crypto::KeyId;
use hostd_api::link::{Link, LinkError, Report, Request, Response};
use hostd_api::types::HomeMode;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a vmd may take to say who it is. One that is busy with a drain answers later; it is then left alone.
const HELLO_WAIT: Duration = Duration::from_secs(5);

/// How long the keys of adopted VMs are asked for, all of them together: while key servers hang, hostd must start all the same. What
/// is left is asked for later (`hold`).
const KEYS_TIME: Duration = Duration::from_secs(10);

/// What became of a runtime folder.
enum Outcome {
    /// Its vmd is ours now.
    Settled,
    /// Nobody listens.
    Stale,
    /// Somebody runs there; its mounts must stay.
    LeftAlone(String),
}

impl Host {
    /// Adopts or clears every runtime folder, then takes away the dead mounts that remain.
    ///
    /// # Errors
    /// [`Fault::Io`] when the runtime folder or the mount table cannot be read.
    pub fn adopt_all(self: &Arc<Self>) -> Result<(), Fault> {
        let root = self.config.vm_runs();
        let mut kept: Vec<PathBuf> = Vec::new();
        let keys_until = Instant::now() + KEYS_TIME;
        for run in self.run_folders()? {
            match self.settle(&run, keys_until) {
                Outcome::Settled => {}
                Outcome::Stale => clear_stale(&run),
                Outcome::LeftAlone(reason) => {
                    self.warn(run_name(&run), format!("{} is left alone: {reason}", run.display()));
                    kept.push(run);
                }
            }
        }
        for target in mounts::below(&root)? {
            if !kept.iter().any(|run| target.starts_with(run)) && !self.is_served(&target) {
                tracing::info!("taking away the dead mount {}", target.display());
                mounts::detach(&target)?;
            }
        }
        Ok(())
    }

    /// Adopts what runs for VMs that have just become known. Clears nothing: verbs run meanwhile, and what looks
    /// stale may be in the making.
    ///
    /// # Errors
    /// [`Fault::Io`] when the runtime folder cannot be read.
    pub(crate) fn adopt_more(self: &Arc<Self>) -> Result<(), Fault> {
        let keys_until = Instant::now() + KEYS_TIME;
        for run in self.run_folders()? {
            if let Outcome::LeftAlone(reason) = self.settle(&run, keys_until) {
                self.warn(run_name(&run), format!("{} is left alone: {reason}", run.display()));
            }
        }
        Ok(())
    }

    fn run_folders(&self) -> Result<Vec<PathBuf>, Fault> {
        let root = self.config.vm_runs();
        let entries = std::fs::read_dir(&root).map_err(Fault::io("list", &root))?;
        Ok(entries.flatten().map(|e| e.path()).collect())
    }

    fn settle(self: &Arc<Self>, run: &Path, keys_until: Instant) -> Outcome {
        if self.is_ours(run) {
            return Outcome::Settled;
        }
        let known = self.vm_of(run);
        let store = known.as_ref().and_then(|vm| self.datastore_of(vm).ok());
        if let Some(store) = store.filter(|store| !store.answers()) {
            return Outcome::LeftAlone(format!("datastore {} does not answer", store.name));
        }
        let socket = run.join("vmd.sock");
        let link = match Link::connect(&socket) {
            Ok(link) => link,
            Err(LinkError::Connect { source: Errno::CONNREFUSED | Errno::NOENT, .. }) => {
                return Outcome::Stale;
            }
            Err(e) => return Outcome::LeftAlone(e.to_string()),
        };
        let adopted = hello(&link).and_then(|(report, pid)| {
            // One connection at a time: the adoption makes its own.
            drop(link);
            self.adopt(run, &socket, (&report, pid), keys_until)
        });
        adopted.unwrap_or_else(Outcome::LeftAlone)
    }

    /// Whether a mount belongs to a VM of this hostd; one that a verb works on has all of its mounts.
    fn is_served(&self, target: &Path) -> bool {
        self.vm_of(target.parent().unwrap_or(target)).is_some_and(|vm| {
            vm.try_enter().is_none_or(|inner| {
                let home = inner.service.as_ref().and_then(|s| s.home.as_ref());
                home.and_then(Home::target) == Some(target)
            })
        })
    }

    /// The VM that has this runtime folder.
    fn vm_of(&self, run: &Path) -> Option<Arc<Vm>> {
        self.inventory.get(run_name(run)?).ok()
    }

    /// Whether a VM of this hostd runs there already.
    fn is_ours(&self, run: &Path) -> bool {
        self.vm_of(run).is_some_and(|vm| vm.try_enter().is_none_or(|inner| inner.service.is_some()))
    }

    /// Adopts the vmd of a runtime folder. A vmd is what a guest can take over, so nothing that it says is believed
    /// where it can be known otherwise: the VM is that of the folder, the process is named by the kernel (`pid`),
    /// and paths come from the configuration.
    fn adopt(
        self: &Arc<Self>,
        run: &Path,
        socket: &Path,
        (hello, pid): (&Report, u32),
        keys_until: Instant,
    ) -> Result<Outcome, String> {
        let text = |e: Fault| e.to_string();
        self.note_report(hello).map_err(text)?;
        let Some(id) = hello.id else {
            // hostd ended between its start and its set-up: it has no VM, no key and no lock.
            Vmd::found("unknown", socket, pid).map_err(text)?.kill();
            return Ok(Outcome::Stale);
        };
        let vm = self.vm_of(run).ok_or_else(|| {
            format!("process {pid} serves VM {id}, which no datastore of this host has")
        })?;
        if vm.id != id {
            return Err(format!("process {pid} claims to serve VM {id}, which is not {}", vm.name));
        }
        let mut inner = vm.enter().map_err(text)?;
        let mut vmd = Vmd::found(vm.name.as_str(), socket, pid).map_err(text)?;
        let (report, fds) = vmd.report(&Request::Adopt { polling: true }, &[]).map_err(text)?;
        self.calm(vm.name.as_str());
        let mut service = self.rebuild(&vm, vmd, report, fds)?;
        let lost = self.lease_again(&vm, &mut inner, &mut service, keys_until);
        self.settle_tls(&vm, &mut service);
        tracing::info!("VM {} was adopted: vmd process {pid}", vm.name);
        inner.service = Some(service);
        if let Some(why) = lost {
            self.stop_lost(&vm, &mut inner, &why);
        }
        if inner.access == Access::Locked {
            // hostd ended between the lock and the stop of the vmd.
            self.release(&vm, &mut inner, true).map_err(text)?;
        }
        self.stop_if_idle(&mut inner);
        Ok(Outcome::Settled)
    }

    /// The service of an adopted vmd from its report and the descriptors it gave.
    fn rebuild(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        vmd: Vmd,
        report: Report,
        fds: Vec<OwnedFd>,
    ) -> Result<Service, String> {
        let tls = usize::from(report.tls.is_some());
        let (expected, got) = (report.disks.len() + 1 + tls, fds.len());
        let mut fds = fds.into_iter();
        let (Some(lock), true) = (fds.next(), got == expected || got == expected + 1) else {
            return Err(format!("it gave {got} descriptors, not {expected}"));
        };
        self.check_lock(vm, &lock)?;
        let mut disks = BTreeMap::new();
        for (disk, listener) in report.disks.into_iter().zip(fds.by_ref()) {
            let name: Name = disk.disk.parse().map_err(|e| format!("its disk: {e}"))?;
            let socket = self.disk_socket(&vm.name, &name);
            check_listener(&socket, &listener)?;
            let (id, read_only, cache) = (disk.id, disk.read_only, disk.cache);
            let served = Served { id, read_only, cache, socket, listener };
            disks.insert(name, served);
        }
        let tls = report.tls.and_then(|_| fds.next()).map(port_of).transpose()?;
        if fds.next().is_some_and(|memory| !self.polling.take_up(memory)) {
            tracing::info!("the vmd of VM {} keeps its own places for polling", vm.name);
        }
        let pidfd = vmd.pidfd().map_err(|e| e.to_string())?;
        self.watch(vm, vmd.pid(), pidfd, None);
        let run = self.run_folder(&vm.name);
        let home = report
            .home
            .map(|_| Home::adopted(run.join("home"), report.home_mode.unwrap_or(HomeMode::Shared)));
        Ok(Service {
            run,
            lock,
            leases: BTreeMap::new(),
            mark: (!disks.is_empty() && self.has_mark(vm)).then(|| self.mark_of(vm)),
            disks,
            home,
            tls,
            process: Process::Up(vmd),
            ends: Vec::new(),
            endings: Arc::clone(&vm.endings),
        })
    }

    /// The descriptor must be the lock of the VM, and the lock must be held.
    fn check_lock(&self, vm: &Vm, lock: &OwnedFd) -> Result<(), String> {
        let given = rustix::fs::fstat(lock).map_err(|e| format!("its lock: {e}"))?;
        let is_given = |path: &Path| {
            let there = rustix::fs::lstat(path);
            there.is_ok_and(|there| (given.st_dev, given.st_ino) == (there.st_dev, there.st_ino))
        };
        let (inside, beside) = (vm.folder.lock(), self.lock_beside(vm));
        let locked = if is_given(&inside) {
            files::lock(&inside)
        } else if is_given(&beside) {
            files::lock_unwritable(&beside)
        } else {
            return Err("what it gave is not the lock of the VM".into());
        };
        match locked {
            Ok(Locked::Theirs(_)) => Ok(()),
            Ok(Locked::Ours(_)) => Err("it does not hold the lock of the VM".into()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Tries that again for a running VM, now that a key has come.
    pub(crate) fn lease_anew(self: &Arc<Self>, vm: &Arc<Vm>, inner: &mut Inner) {
        let Some(mut service) = inner.service.take() else { return };
        let lost = self.lease_again(vm, inner, &mut service, Instant::now() + KEYS_TIME);
        inner.service = Some(service);
        if let Some(why) = lost {
            self.stop_lost(vm, inner, &why);
        }
    }

    /// Takes the KEKs that a restart of the vmd needs, and takes up the lease of the home. Without them the VM runs on,
    /// but cannot be started again; it is not waited for longer than `until`. Tells why the home must be stopped, if another host has it.
    fn lease_again(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        inner: &mut Inner,
        service: &mut Service,
        until: Instant,
    ) -> Option<String> {
        let name = vm.name.as_str();
        let late = || Instant::now() >= until;
        let slow = format!("VM {name} runs; its keys wait for slow key servers");
        if late() {
            self.warn(Some(name), slow);
            return None;
        }
        let mut leases = Vec::new();
        let mut faults = Vec::new();
        let mut lost = None;
        match self.open_safe(vm, inner) {
            Ok(opened) => {
                lost = self.hold_again(vm, service, &opened.key);
                if !service.disks.is_empty() {
                    self.mark(vm, service, &opened.key);
                }
                leases.push(opened.lease);
            }
            Err(e) => faults.push(e),
        }
        for disk in service.disks.keys() {
            if let Some(lease) = self.lease_of_keeper(vm, disk) {
                leases.push(lease);
                continue;
            }
            if late() {
                self.warn(Some(name), slow);
                break;
            }
            match self.open_disk(vm, inner, disk) {
                Ok(opened) => leases.push(opened.lease),
                Err(e) => faults.push(e),
            }
        }
        leases.into_iter().for_each(|lease| service.keep(lease));
        for fault in faults {
            self.warn(
                Some(vm.name.as_str()),
                format!("VM {} runs, but its vmd could not be restarted: {fault}", vm.name),
            );
        }
        lost
    }
}

impl Host {
    /// The lease for a disk whose key is kept by its provider. A restart asks that one anyway, so nothing is asked now.
    fn lease_of_keeper(&self, vm: &Vm, disk: &Name) -> Option<Lease> {
        let sealed = Sealed::<Descriptor>::read(&vm.folder.descriptor(disk)).ok()?;
        let kept = |id: &&KeyId| self.keyring.is_kept_elsewhere(id);
        let id = sealed.key_ids().find(kept)?;
        self.keyring.lease(id, vm.name.as_str()).ok()
    }
}

/// Name of the VM that a runtime folder is of.
fn run_name(run: &Path) -> Option<&str> {
    run.file_name()?.to_str()
}

/// What the vmd says of itself, and which process the kernel says it is.
fn hello(link: &Link) -> Result<(Report, u32), String> {
    link.set_timeout(Some(HELLO_WAIT)).map_err(|e| e.to_string())?;
    let report = match link.call(&Request::Hello, &[]) {
        Ok((Response::Report(report), _)) => report,
        Ok((Response::Failed(failure), _)) => return Err(failure.message),
        Ok((Response::Ok, _)) => return Err("it answered without a report".into()),
        Err(e) => return Err(e.to_string()),
    };
    let sender = link.sender().ok_or("the kernel does not say which process answered")?;
    let own = rustix::process::geteuid().as_raw();
    if sender.uid != own {
        return Err(format!("the process that answered belongs to user {}", sender.uid));
    }
    let pid = u32::try_from(sender.pid).map_err(|_| format!("{} is no process", sender.pid))?;
    Ok((report, pid))
}

/// The descriptor must be the socket that listens at this place.
fn check_listener(path: &Path, listener: &OwnedFd) -> Result<(), String> {
    let refused = |what: &str| Err(format!("its socket for {}: {what}", path.display()));
    let Ok(address) = rustix::net::getsockname(listener) else { return refused("it is none") };
    let Ok(address) = rustix::net::SocketAddrUnix::try_from(address) else {
        return refused("it is no Unix socket");
    };
    let bound = address.path_bytes().unwrap_or_default();
    if bound != path.as_os_str().as_encoded_bytes() {
        return refused("it is bound to another place");
    }
    match rustix::net::sockopt::socket_acceptconn(listener) {
        Ok(true) => Ok(()),
        _ => refused("it does not listen"),
    }
}

/// The network port that a descriptor listens at, by its own word.
fn port_of(listener: OwnedFd) -> Result<Port, String> {
    let refused = || "its network socket does not listen at an internet address".to_owned();
    let address = rustix::net::getsockname(&listener).map_err(|_| refused())?;
    let address = std::net::SocketAddr::try_from(address).map_err(|_| refused())?;
    match rustix::net::sockopt::socket_acceptconn(&listener) {
        Ok(true) => Ok(Port { address, listener }),
        _ => Err(refused()),
    }
}

/// Clears the runtime folder of a vmd that is gone.
fn clear_stale(run: &Path) {
    tracing::info!("clearing {}, whose vmd is gone", run.display());
    let home = run.join("home");
    if mounts::below(run).is_ok_and(|mounts| mounts.contains(&home))
        && let Err(e) = mounts::detach(&home)
    {
        tracing::warn!("{e}");
    }
    start::clear_run(run);
}
