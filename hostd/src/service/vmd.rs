//! One vmd process: its start, the link to it, its end.
//!
//! Owns process id, pidfd and link; must not know what is served. A link that failed is closed and made again
//! with the next call, as an answer that comes late would be taken for that of a later request.

use super::spawner::Spawner;
use crate::fault::Fault;
use command_fds::{CommandFdExt, FdMapping};
use hostd_api::link::{self, FOLDER_FD, LINK_FD, Link, LinkError, Report, Request, Response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a vmd may take to say what it serves. It answers from memory; a list of VMs must not hang with it.
const STATUS_WAIT: Duration = Duration::from_secs(2);

/// How long any other answer may take: a detach waits for requests in flight and flushes a whole disk.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// How long a vmd may take to end after it was told to.
const END_WAIT: Duration = Duration::from_secs(20);

/// How long the kernel may take to end a killed vmd (its I/O may be stuck in storage).
const KILL_WAIT: Duration = Duration::from_secs(5);

/// The one variable that a vmd is given: what it logs.
const LOG_FILTER: &str = "COFFER_LOG";

/// A vmd process.
#[derive(Debug)]
pub struct Vmd {
    vm: String,
    socket: PathBuf,
    link: Option<Link>,
    pid: u32,
    pidfd: OwnedFd,
}

impl Vmd {
    /// Starts a vmd for a VM, with its link socket at `socket`.
    ///
    /// # Errors
    /// [`Fault::Io`] when it cannot be started, [`Fault::Link`].
    pub(super) fn spawn(
        spawner: &Spawner,
        vm: &str,
        socket: &Path,
        folder: OwnedFd,
    ) -> Result<(Self, Child), Fault> {
        crate::files::remove(socket)?;
        let listener = link::listen(socket).map_err(failed(vm))?;
        let child = spawner.spawn(vm, [listener.as_fd(), folder.as_fd()])?;
        // No copy of the listener stays, so that a dead vmd refuses connections.
        drop((listener, folder));
        let vmd = Self::found(vm, socket, child.id())?;
        Ok((vmd, child))
    }

    /// A vmd that runs already with this process id.
    ///
    /// # Errors
    /// [`Fault::Io`] when the process is gone.
    pub fn found(vm: &str, socket: &Path, pid: u32) -> Result<Self, Fault> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| Fault::Bug(format!("{pid} is no process id")))?;
        let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty())
            .map_err(Fault::io("watch process of", socket))?;
        Ok(Self { vm: vm.to_owned(), socket: socket.to_owned(), link: None, pid, pidfd })
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A copy of the pidfd, for a watcher.
    ///
    /// # Errors
    /// [`Fault::Io`] when this process has no descriptor left.
    pub fn pidfd(&self) -> Result<OwnedFd, Fault> {
        self.pidfd.try_clone().map_err(Fault::io("watch process of", &self.socket))
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`Fault::Link`]; [`Fault::Vmd`] when the vmd refuses.
    pub fn call(
        &mut self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Response, Vec<OwnedFd>), Fault> {
        let link = match self.link.take() {
            Some(link) => link,
            None => Link::connect(&self.socket).map_err(failed(&self.vm))?,
        };
        let answer = link.call(request, fds).map_err(failed(&self.vm))?;
        self.link = Some(link);
        match answer {
            (Response::Failed(failure), _) => Err(Fault::Vmd(failure)),
            other => Ok(other),
        }
    }

    /// What it serves now, for a list: it does not wait long for a vmd that hangs.
    ///
    /// # Errors
    /// Those of [`Vmd::report`].
    pub fn status(&mut self) -> Result<Report, Fault> {
        self.limit(Some(STATUS_WAIT))?;
        let report = self.report(&Request::Status, &[])?.0;
        self.limit(Some(ANSWER_WAIT))?;
        Ok(report)
    }

    /// Sets the time limit of the link, which is made if there is none.
    fn limit(&mut self, limit: Option<Duration>) -> Result<(), Fault> {
        let link = match self.link.take() {
            Some(link) => link,
            None => Link::connect(&self.socket).map_err(failed(&self.vm))?,
        };
        link.set_timeout(limit).map_err(failed(&self.vm))?;
        self.link = Some(link);
        Ok(())
    }

    /// Asks for a report.
    ///
    /// # Errors
    /// Those of [`Vmd::call`]; [`Fault::Link`] for another answer.
    pub fn report(
        &mut self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Report, Vec<OwnedFd>), Fault> {
        match self.call(request, fds)? {
            (Response::Report(report), fds) => Ok((report, fds)),
            _ => Err(failed(&self.vm)(LinkError::Peer("an answer without a report".into()))),
        }
    }

    /// Drains and ends it; one that does not end is killed. `false` when even then it is there still, stuck in
    /// the kernel: what it was writing may yet be written.
    #[must_use]
    pub fn stop(mut self) -> bool {
        if let Err(e) = self.call(&Request::Stop, &[]) {
            tracing::warn!(
                "vmd of VM {} (process {}) did not take the stop: {e}",
                self.vm,
                self.pid
            );
        }
        if ended(self.pidfd.as_fd(), END_WAIT) {
            return true;
        }
        tracing::warn!("vmd of VM {} (process {}) does not end and is killed", self.vm, self.pid);
        self.kill()
    }

    /// Ends it at once; `false` when it is there still, stuck in the kernel.
    pub fn kill(self) -> bool {
        self.end()
    }

    /// [`Vmd::kill`], for whoever does not own it.
    pub(super) fn end(&self) -> bool {
        self.signal_kill();
        let gone = ended(self.pidfd.as_fd(), KILL_WAIT);
        if !gone {
            tracing::error!("vmd of VM {} (process {}) is stuck in the kernel", self.vm, self.pid);
        }
        gone
    }

    /// Kills it without waiting for the end.
    pub fn signal_kill(&self) {
        if let Err(e) = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            tracing::debug!("process {} cannot be killed: {e}", self.pid);
        }
    }
}

/// Starts `program` for a VM, with the first of `fds`, its link socket, as descriptor 3, the second, the VM folder, as
/// descriptor 4, and nothing else of this process: no environment but the filter of the log, no other descriptor, a
/// process group of its own.
pub(super) fn start(program: &Path, vm: &str, fds: Vec<OwnedFd>) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command.arg("--vm").arg(vm).env_clear().process_group(0);
    if let Some(filter) = std::env::var_os(LOG_FILTER) {
        command.env(LOG_FILTER, filter);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mappings = fds.into_iter().zip([LINK_FD, FOLDER_FD]);
    let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.collect()).map_err(std::io::Error::other)?;
    // The descriptors of this process go with the command.
    command.spawn()
}

/// Waits until the process behind a pidfd has ended, at most `limit`.
pub(super) fn ended(pidfd: BorrowedFd<'_>, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).ok();
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    matches!(rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref())), Ok(n) if n > 0)
}

/// Waits for ever until the process behind a pidfd has ended.
pub(super) fn await_end(pidfd: BorrowedFd<'_>) {
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    while !matches!(rustix::io::retry_on_intr(|| poll(&mut fds, None)), Ok(n) if n > 0) {
        // Only a lack of kernel memory gets here; waiting is all that can be done.
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn failed(vm: &str) -> impl FnOnce(LinkError) -> Fault {
    let vm = vm.to_owned();
    move |source| Fault::Link { vm, source }
}
