//! What hostd asks for, carried out.
//!
//! Owns the state of this process: nothing yet, then one VM. It must not know sockets. Flow:
//! [`Vmd::handle`] takes a request with its descriptors and returns the answer with its own; each variant is
//! one line that leads to the function that does it.

use crate::check::{Check, CheckFds};
use crate::confine::confine;
use crate::confine::root::Root;
use crate::exports::{AttachFds, Exports, GRACE};
use crate::home::{HomeFds, ServedHome};
use crate::nbd::budget::Budget;
use crate::nbd::connection::Limits;
use crate::nbd::tls_settings::PemFiles;
use crate::refusal::Refusal;
use crypto::{Arena, Engine};
use hostd_api::error::ErrorCode;
use hostd_api::link::{
    Attach, CheckHome, LINK_VERSION, MAX_FDS, Report, Request, Response, ServeHome, ServeTls, Setup,
};
use hostd_api::types::CacheMode;
use rustix::fs::FileType;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use uuid::Uuid;

/// Time for all disks together when the process is told to end; systemd gives services 90 s.
const DRAIN: Duration = Duration::from_secs(40);

/// The data plane of one VM.
pub struct Vmd {
    arena: Arena,
    root: Root,
    vm: Option<Vm>,
    exports: Exports,
    home: Option<ServedHome>,
    check: Option<Check>,
}

/// Which VM this is, after Setup.
struct Vm {
    id: Uuid,
    name: String,
    limits: Limits,
    confinement: Vec<String>,
    /// Locked by hostd; the lock lasts as long as this descriptor.
    lock: OwnedFd,
    /// The places for polling that are shared with other vmds, for the next hostd.
    polling: Option<OwnedFd>,
}

/// An answer with the descriptors that go with it.
pub struct Answer<'a> {
    /// What to say.
    pub response: Response,
    /// Descriptors beside it.
    pub fds: Vec<BorrowedFd<'a>>,
    /// The process ends after this answer.
    pub last: bool,
}

impl Vmd {
    /// A data plane that has the VM folder of `root`, and knows no VM yet.
    pub fn new(arena: Arena, root: Root) -> Self {
        Self { arena, root, vm: None, exports: Exports::default(), home: None, check: None }
    }

    /// Carries out one request.
    pub fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) -> Answer<'_> {
        let last = matches!(request, Request::Stop);
        let adopt = match request {
            Request::Adopt { polling } => Some(polling),
            _ => None,
        };
        let response = self.perform(request, fds).unwrap_or_else(Response::from);
        let fds = match (adopt, &response) {
            (Some(polling), Response::Report(_)) => self.descriptors(polling),
            _ => Vec::new(),
        };
        Answer { response, fds, last }
    }

    /// Drains everything; what went wrong is logged.
    pub fn shut_down(&mut self) {
        for refusal in self.exports.drain(DRAIN) {
            tracing::error!(code = ?refusal.code, "{}", refusal.message);
        }
        if let Some(mountpoint) = self.home.as_ref().and_then(ServedHome::mountpoint) {
            tracing::warn!(
                mountpoint = %mountpoint.display(),
                "ending while the home is still mounted; its users get errors until it is unmounted"
            );
        }
    }

    fn perform(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Response, Refusal> {
        refuse_folders(&fds)?;
        match request {
            Request::Setup(setup) => self.set_up(setup, fds),
            Request::Attach(attach) => self.attach(attach, fds),
            Request::ServeHome(serve) => self.serve_home(serve, exactly(fds)?),
            Request::CheckHome(check) => self.check_home(&check, exactly(fds)?),
            Request::ServeTls(serve) => self.serve_tls(serve, exactly(fds)?),
            other => {
                let [] = exactly(fds)?;
                self.perform_plain(other)
            }
        }
    }

    /// The requests without descriptors.
    fn perform_plain(&mut self, request: Request) -> Result<Response, Refusal> {
        match request {
            Request::Detach { disk } => self.exports.detach(&disk, GRACE).map(|()| Response::Ok),
            Request::StopHome => self.stop_home(),
            Request::StopTls => self.exports.close_port(GRACE).map(|()| Response::Ok),
            Request::Adopt { .. } => self.vm().map(|_| Response::Report(self.report())),
            Request::Stop => {
                self.shut_down();
                Ok(Response::Ok)
            }
            _ => Ok(Response::Report(self.report())),
        }
    }

    fn set_up(&mut self, setup: Setup, mut fds: Vec<OwnedFd>) -> Result<Response, Refusal> {
        if let Some(vm) = &self.vm {
            return Err(Refusal::wrong_state(format!("this vmd serves VM {} already", vm.name)));
        }
        if setup.max_connections == 0 {
            return Err(Refusal::invalid("max_connections is 0: no client could ever connect"));
        }
        let polling = (fds.len() > 1).then(|| fds.pop()).flatten();
        let [lock] = exactly(fds)?;
        // Before the confinement, which allows no shared memory.
        let budget = polling.as_ref().map_or_else(|| Ok(Budget::own(0)), Budget::shared);
        let budget = budget
            .map_err(|e| Refusal::invalid(format!("the places for polling are of no use: {e}")))?;
        let confinement = confine(&self.root, setup.require_confinement).map_err(|e| {
            let remedy = "run hostd with CAP_SYS_ADMIN on a kernel with landlock and seccomp, or allow less \
                          confinement";
            Refusal::new(ErrorCode::HostLimit, e.to_string(), remedy)
        })?;
        tracing::info!(vm = setup.vm, ?confinement, folder = %setup.folder.display(), "set up");
        let limits =
            Limits { max_connections: setup.max_connections, handshake: Limits::HANDSHAKE };
        self.exports.set_budget(budget);
        self.vm = Some(Vm { id: setup.id, name: setup.vm, limits, confinement, lock, polling });
        Ok(Response::Report(self.report()))
    }

    fn attach(&mut self, attach: Attach, fds: Vec<OwnedFd>) -> Result<Response, Refusal> {
        let (payload, listener, sheet, direct) = match attach.cache {
            CacheMode::Writeback => {
                let [payload, listener, sheet] = exactly(fds)?;
                (payload, listener, sheet, None)
            }
            CacheMode::None => {
                let [payload, listener, sheet, direct] = exactly(fds)?;
                (payload, listener, sheet, Some(direct))
            }
        };
        let (name, limits) = self.vm().map(|vm| (vm.name.clone(), vm.limits))?;
        let fds = AttachFds { payload, direct, listener, sheet };
        self.exports.attach(&name, attach, fds, limits, &self.arena)?;
        Ok(Response::Ok)
    }

    fn serve_home(&mut self, serve: ServeHome, fds: [OwnedFd; 2]) -> Result<Response, Refusal> {
        let id = self.vm()?.id;
        // One that was unmounted without a word from hostd is over.
        if let Some(home) = self.home.take_if(|home| home.mountpoint().is_none()) {
            home.stop().map_err(|(_, refusal)| refusal)?;
        }
        if self.home.is_some() {
            return Err(Refusal::new(
                ErrorCode::AlreadyExists,
                "the home is served already",
                "unmount it first",
            ));
        }
        self.no_check()?;
        let [fuse, sheet] = fds;
        let fds = HomeFds { fuse, sheet };
        self.home = Some(ServedHome::start(serve, id, &self.root, fds, &self.arena)?);
        Ok(Response::Ok)
    }

    /// A check takes no locks with a mount, so there is either.
    fn check_home(&mut self, check: &CheckHome, fds: [OwnedFd; 2]) -> Result<Response, Refusal> {
        let id = self.vm()?.id;
        if self.home.as_ref().is_some_and(|home| home.mountpoint().is_some()) {
            let message = "the home is served, and would change under a check";
            return Err(Refusal::new(ErrorCode::WrongState, message, "unmount it first"));
        }
        self.no_check()?;
        let [report, sheet] = fds;
        let fds = CheckFds { report, sheet };
        self.check = Some(Check::start(id, check, &self.root, fds, &self.arena)?);
        Ok(Response::Ok)
    }

    fn no_check(&mut self) -> Result<(), Refusal> {
        self.check.take_if(|check| check.is_finished());
        match self.check {
            Some(_) => Err(Refusal::new(
                ErrorCode::InUse,
                "a check of the home still runs",
                "wait until it has ended",
            )),
            None => Ok(()),
        }
    }

    fn serve_tls(&mut self, serve: ServeTls, fds: [OwnedFd; 4]) -> Result<Response, Refusal> {
        let (name, limits) = self.vm().map(|vm| (vm.name.clone(), vm.limits))?;
        let [listener, certificate, key, authorities] = fds;
        let files = PemFiles { certificate, key, authorities };
        self.exports.open_port(&name, serve, listener, files, limits)?;
        Ok(Response::Ok)
    }

    fn stop_home(&mut self) -> Result<Response, Refusal> {
        let home = self.home.take().ok_or_else(|| Refusal::wrong_state("no home is served"))?;
        match home.stop() {
            Ok(()) => Ok(Response::Ok),
            Err((home, refusal)) => {
                self.home = Some(home);
                Err(refusal)
            }
        }
    }

    fn report(&self) -> Report {
        Report {
            link_version: LINK_VERSION,
            pid: std::process::id(),
            id: self.vm.as_ref().map(|vm| vm.id),
            vm: self.vm.as_ref().map(|vm| vm.name.clone()),
            confinement: self.vm.as_ref().map(|vm| vm.confinement.clone()).unwrap_or_default(),
            engine: Engine::default().as_str().to_owned(),
            disks: self.exports.report(),
            tls: self.exports.report_port(),
            home: self.home.as_ref().and_then(|home| home.mountpoint()).map(Into::into),
            home_mode: self
                .home
                .as_ref()
                .filter(|home| home.mountpoint().is_some())
                .map(ServedHome::mode),
        }
    }

    fn descriptors(&self, polling: bool) -> Vec<BorrowedFd<'_>> {
        let mut fds = Vec::with_capacity(MAX_FDS);
        fds.extend(self.vm.as_ref().map(|vm| vm.lock.as_fd()));
        fds.extend(self.exports.listeners());
        fds.extend(self.exports.port_listener());
        fds.extend(
            self.vm
                .as_ref()
                .filter(|_| polling)
                .and_then(|vm| vm.polling.as_ref())
                .map(AsFd::as_fd),
        );
        fds
    }

    fn vm(&self) -> Result<&Vm, Refusal> {
        self.vm.as_ref().ok_or_else(|| Refusal::wrong_state("this vmd has not been set up"))
    }
}

/// Refuses folders: `..` of a folder of the host leads out of the own root.
fn refuse_folders(fds: &[OwnedFd]) -> Result<(), Refusal> {
    for fd in fds {
        let stat = rustix::fs::fstat(fd)
            .map_err(|e| Refusal::invalid(format!("a descriptor without a status: {e}")))?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(Refusal::invalid("a folder came over the link"));
        }
    }
    Ok(())
}

/// Exactly the descriptors that a request goes with.
fn exactly<const N: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; N], Refusal> {
    let got = fds.len();
    fds.try_into().map_err(|_| Refusal::invalid(format!("{got} descriptors came, not {N}")))
}
