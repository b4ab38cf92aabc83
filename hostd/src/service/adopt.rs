//! Finding the vmds of an earlier hostd, and clearing what dead ones left.
//!
//! Owns the decision for each runtime folder: adopt it, leave it alone (another version, an unknown VM, no
//! answer), or clear it because nobody listens. Runs at start, before the control socket answers, and again when a
//! datastore comes back.

use super::{Port, Process, Served, Service, Vmd, start};
use crate::fault::Fault;
use crate::host::Host;
use crate::mounts;
use crate::vm::{Access, Inner, Vm};
use cryptfs::name::Name;
use hostd_api::link::{Link, LinkError, Report, Request, Response};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a vmd may take to say who it is. One that is busy with a drain answers later; it is then left alone.
const HELLO_WAIT: Duration = Duration::from_secs(5);

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
        for run in self.run_folders()? {
            match self.settle(&run) {
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
        for run in self.run_folders()? {
            if let Outcome::LeftAlone(reason) = self.settle(&run) {
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

    fn settle(self: &Arc<Self>, run: &Path) -> Outcome {
        if self.is_ours(run) {
            return Outcome::Settled;
        }
        let socket = run.join("vmd.sock");
        let link = match Link::connect(&socket) {
            Ok(link) => link,
            Err(LinkError::Connect { source: Errno::CONNREFUSED | Errno::NOENT, .. }) => {
                return Outcome::Stale;
            }
            Err(e) => return Outcome::LeftAlone(e.to_string()),
        };
        let adopted = hello(&link).and_then(|report| {
            // One connection at a time: the adoption makes its own.
            drop(link);
            self.adopt(&socket, &report)
        });
        adopted.unwrap_or_else(Outcome::LeftAlone)
    }

    /// Whether a mount belongs to a VM of this hostd; one that a verb works on has all of its mounts.
    fn is_served(&self, target: &Path) -> bool {
        self.vm_of(target.parent().unwrap_or(target)).is_some_and(|vm| {
            vm.try_enter().is_none_or(|inner| {
                inner.service.as_ref().is_some_and(|s| s.home.as_deref() == Some(target))
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

    fn adopt(self: &Arc<Self>, socket: &Path, hello: &Report) -> Result<Outcome, String> {
        let text = |e: Fault| e.to_string();
        self.note_report(hello).map_err(text)?;
        let Some(id) = hello.id else {
            // hostd ended between its start and its set-up: it has no VM, no key and no lock.
            Vmd::found("unknown", socket, hello.pid).map_err(text)?.kill();
            return Ok(Outcome::Stale);
        };
        let vm = self.inventory.by_id(id).ok_or_else(|| {
            format!("process {} serves VM {id}, which no datastore of this host has", hello.pid)
        })?;
        let mut inner = vm.enter().map_err(text)?;
        let mut vmd = Vmd::found(vm.name.as_str(), socket, hello.pid).map_err(text)?;
        let (report, fds) = vmd.report(&Request::Adopt, &[]).map_err(text)?;
        self.calm(vm.name.as_str());
        let service = self.rebuild(&vm, &mut inner, vmd, report, fds)?;
        tracing::info!("VM {} was adopted: vmd process {}", vm.name, hello.pid);
        inner.service = Some(service);
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
        inner: &mut Inner,
        vmd: Vmd,
        report: Report,
        fds: Vec<OwnedFd>,
    ) -> Result<Service, String> {
        let tls = usize::from(report.tls.is_some());
        let (expected, got) = (report.disks.len() + 1 + tls, fds.len());
        let mut fds = fds.into_iter();
        let (Some(lock), true) = (fds.next(), expected == got) else {
            return Err(format!("it gave {got} descriptors, not {expected}"));
        };
        let mut disks = BTreeMap::new();
        for (disk, listener) in report.disks.into_iter().zip(fds.by_ref()) {
            let name: Name = disk.disk.parse().map_err(|e| format!("its disk: {e}"))?;
            let served =
                Served { id: disk.id, read_only: disk.read_only, socket: disk.socket, listener };
            disks.insert(name, served);
        }
        let pidfd = vmd.pidfd().map_err(|e| e.to_string())?;
        self.watch(vm, vmd.pid(), pidfd, None);
        let run = self.run_folder(&vm.name);
        let mut service = Service {
            run,
            lock,
            leases: BTreeMap::new(),
            disks,
            home: report.home,
            tls: report
                .tls
                .and_then(|tls| Some(Port { address: tls.address, listener: fds.next()? })),
            process: Process::Up(vmd),
            ends: Vec::new(),
        };
        self.lease_again(vm, inner, &mut service);
        self.settle_tls(vm, &mut service);
        Ok(service)
    }

    /// Takes the KEKs that a restart of the vmd needs. Without them the VM runs on, but cannot be started again.
    fn lease_again(&self, vm: &Vm, inner: &mut Inner, service: &mut Service) {
        let mut leases = Vec::new();
        let mut faults = Vec::new();
        match self.open_safe(vm, inner) {
            Ok(opened) => leases.push(opened.lease),
            Err(e) => faults.push(e),
        }
        for disk in service.disks.keys() {
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
    }
}

/// Name of the VM that a runtime folder is of.
fn run_name(run: &Path) -> Option<&str> {
    run.file_name()?.to_str()
}

fn hello(link: &Link) -> Result<Report, String> {
    link.set_timeout(Some(HELLO_WAIT)).map_err(|e| e.to_string())?;
    match link.call(&Request::Hello, &[]) {
        Ok((Response::Report(report), _)) => Ok(report),
        Ok((Response::Failed(failure), _)) => Err(failure.message),
        Ok((Response::Ok, _)) => Err("it answered without a report".into()),
        Err(e) => Err(e.to_string()),
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
