//! Watching a vmd, and starting it again when it ends unexpectedly.
//!
//! Owns one thread a vmd, the pauses between attempts and their limit. The listening sockets of the disks stay
//! open meanwhile, so that clients connect, wait, and go on with the new process.

use super::vmd::await_end;
use super::{Process, Service, serve, start};
use crate::fault::Fault;
use crate::files;
use crate::host::Host;
use crate::vm::{Inner, Opened, Vm};
use cryptfs::descriptor::Descriptor;
use cryptfs::name::Name;
use cryptfs::safe::Safe;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A vmd that ends this often within [`WINDOW`] is not started again: the fault is not a passing one.
const MAX_ENDS: usize = 5;

/// How far back ends count.
const WINDOW: Duration = Duration::from_secs(60);

/// First pause after a failed attempt; doubled each time, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Stack of a watcher: it waits nearly all its life, and the process locks its memory.
const STACK: usize = 256 * 1024;

/// What a new vmd is to serve, opened.
#[derive(Default)]
struct Keys {
    disks: BTreeMap<Name, Result<Opened<Descriptor>, Fault>>,
    home: Option<Result<Opened<Safe>, Fault>>,
}

/// Whether a restart is over.
enum Attempt {
    Done,
    Again,
}

impl Host {
    /// Begins to watch the vmd with process id `pid`. `child` is given for a process of ours, which must be
    /// waited for.
    pub(super) fn watch(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        pid: u32,
        pidfd: OwnedFd,
        child: Option<Child>,
    ) {
        let (host, vm_copy) = (Arc::clone(self), Arc::clone(vm));
        let thread = std::thread::Builder::new().name(format!("watch-{pid}")).stack_size(STACK);
        let started = thread.spawn(move || {
            await_end(pidfd.as_fd());
            if let Some(mut child) = child {
                match child.wait() {
                    Ok(status) => tracing::debug!("vmd process {pid} ended: {status}"),
                    Err(e) => tracing::warn!("vmd process {pid} cannot be waited for: {e}"),
                }
            }
            host.ended(&vm_copy, pid);
        });
        if let Err(e) = started {
            self.warn(
                Some(vm.name.as_str()),
                format!("the vmd of VM {} is not watched: {e}", vm.name),
            );
        }
    }

    /// A vmd has ended. When that was not asked for, it is started again until it stands or the limit is reached.
    fn ended(self: &Arc<Self>, vm: &Arc<Vm>, pid: u32) {
        let mut gone = Some(pid);
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = match vm.enter() {
                Ok(mut inner) => {
                    let attempt = self.attempt(vm, &mut inner, gone);
                    // Only an attempt has noted the end; a verb that does not end must not make it forgotten.
                    gone = None;
                    attempt
                }
                // A verb that does not end, or a deleted VM: only the first is worth another try.
                Err(Fault::Refused(r)) if r.code == hostd_api::error::ErrorCode::InUse => {
                    Attempt::Again
                }
                Err(_) => Attempt::Done,
            };
            match attempt {
                Attempt::Done => return,
                Attempt::Again => {}
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// One attempt; `gone` is the process that ended, at the first one.
    fn attempt(self: &Arc<Self>, vm: &Arc<Vm>, inner: &mut Inner, gone: Option<u32>) -> Attempt {
        let Some(service) = &mut inner.service else { return Attempt::Done };
        match (&service.process, gone) {
            (Process::Up(vmd), Some(pid)) if vmd.pid() == pid => {
                tracing::error!("vmd of VM {} (process {pid}) ended unexpectedly", vm.name);
                service.process = Process::Restarting;
            }
            (Process::Restarting, None) => {}
            // It was stopped on purpose, or another process has taken its place.
            _ => return Attempt::Done,
        }
        // A provider that cannot be reached is no fault of the vmd: clients wait for both.
        let keys = match self.open_again(vm, inner) {
            Ok(keys) => keys,
            Err(e) => {
                tracing::warn!("the vmd of VM {} waits for its keys: {e}", vm.name);
                return Attempt::Again;
            }
        };
        let Some(service) = &mut inner.service else { return Attempt::Done };
        if too_many(&mut service.ends, Instant::now()) {
            service.process = Process::Failed;
            self.warn(
                Some(vm.name.as_str()),
                format!(
                    "the vmd of VM {} ended {MAX_ENDS} times within {} s and is not started again",
                    vm.name,
                    WINDOW.as_secs()
                ),
            );
            return Attempt::Done;
        }
        match self.revive(vm, inner, keys) {
            Ok(()) => {
                inner.restarts = inner.restarts.saturating_add(1);
                Attempt::Done
            }
            Err(e) => {
                tracing::error!("vmd of VM {} cannot be started again: {e}", vm.name);
                Attempt::Again
            }
        }
    }

    /// Opens what is to be served again, before there is a process for it.
    ///
    /// # Errors
    /// A key that cannot be had now, but may be later.
    fn open_again(&self, vm: &Vm, inner: &mut Inner) -> Result<Keys, Fault> {
        let Some(service) = &inner.service else { return Ok(Keys::default()) };
        let names: Vec<Name> = service.disks.keys().cloned().collect();
        let has_home = service.home.is_some();
        let mut keys = Keys::default();
        for name in names {
            let opened = self.open_disk(vm, inner, &name);
            keys.disks.insert(name, unless_it_passes(inner, opened)?);
        }
        if has_home {
            let opened = self.open_safe(vm, inner);
            keys.home = Some(unless_it_passes(inner, opened)?);
        }
        Ok(keys)
    }

    /// Starts a new vmd and gives it what the old one served.
    fn revive(self: &Arc<Self>, vm: &Arc<Vm>, inner: &mut Inner, keys: Keys) -> Result<(), Fault> {
        let Some(mut service) = inner.service.take() else { return Ok(()) };
        match self.launch(vm, &service.run, &service.lock) {
            Ok(vmd) => service.process = Process::Up(vmd),
            Err(e) => {
                inner.service = Some(service);
                return Err(e);
            }
        }
        self.serve_again(vm, &mut service, keys);
        self.settle_tls(vm, &mut service);
        tracing::info!("vmd of VM {} runs again", vm.name);
        if service.is_idle() {
            start::stop(service)?;
        } else {
            self.unmark(&mut service);
            inner.service = Some(service);
        }
        Ok(())
    }

    /// Serves disks and home again. One that cannot be is dropped with a warning; the others go on.
    fn serve_again(&self, vm: &Vm, service: &mut Service, mut keys: Keys) {
        let names: Vec<Name> = service.disks.keys().cloned().collect();
        for name in names {
            let Some(served) = service.disks.remove(&name) else { continue };
            let opened = keys.disks.remove(&name).unwrap_or_else(|| Err(unopened(vm)));
            let outcome = opened.and_then(|opened| serve::serve_disk(vm, service, opened, &served));
            match outcome {
                Ok(()) => {
                    service.disks.insert(name, served);
                }
                Err(e) => {
                    self.warn(
                        Some(vm.name.as_str()),
                        format!("disk {name} of VM {} was lost in a restart: {e}", vm.name),
                    );
                    if let Err(e) = files::remove(&served.socket) {
                        tracing::warn!("{e}");
                    }
                }
            }
        }
        if let Some(home) = service.home.take() {
            let opened = keys.home.unwrap_or_else(|| Err(unopened(vm)));
            match self.serve_home_again(vm, service, opened, home) {
                Ok(home) => service.home = home,
                Err(e) => {
                    self.warn(
                        Some(vm.name.as_str()),
                        format!("the home of VM {} was lost in a restart: {e}", vm.name),
                    );
                }
            }
        }
    }
}

/// What a fault says of the VM, while one that may pass lasts.
fn unless_it_passes<T>(
    inner: &mut Inner,
    opened: Result<T, Fault>,
) -> Result<Result<T, Fault>, Fault> {
    match opened {
        Err(fault) if fault.may_pass() => {
            if let Fault::Locked { reason, .. } = &fault {
                inner.trouble = Some(reason.clone());
            }
            Err(fault)
        }
        other => Ok(other),
    }
}

/// Nothing is served that was not opened just before, under the same lock.
fn unopened(vm: &Vm) -> Fault {
    Fault::Bug(format!("VM {} serves what was not opened", vm.name))
}

/// Counts an end at `now`; `true` when that is one too many.
fn too_many(ends: &mut Vec<Instant>, now: Instant) -> bool {
    ends.retain(|end| now.duration_since(*end) < WINDOW);
    ends.push(now);
    ends.len() > MAX_ENDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_count_within_the_window_only() {
        let start = Instant::now();
        let mut ends = Vec::new();
        for i in 0..MAX_ENDS {
            assert!(!too_many(&mut ends, start + Duration::from_secs(i as u64)));
        }
        assert!(too_many(&mut ends, start + Duration::from_secs(10)));
        assert!(!too_many(&mut ends, start + WINDOW * 2));
        assert_eq!(ends.len(), 1);
    }
}
