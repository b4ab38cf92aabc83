//! The served home.
//!
//! Owns one FUSE server. hostd mounts and unmounts, this process only answers on the descriptor. Flow:
//! [`ServedHome::start`] once the mount is there, [`ServedHome::stop`] once it is gone.

use crate::confine::root::Root;
use crate::refusal::Refusal;
use cryptfs::door::{self, Caching, HomeServer, Settings};
use cryptfs::home::Home;
use cryptfs::safe::Names;
use crypto::{Arena, HomeKey, KeySheet};
use hostd_api::error::ErrorCode;
use hostd_api::link::ServeHome;
use hostd_api::types::{HomeMode, HomeNames};
use rustix::fs::{Mode, OFlags};
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Fewest and most threads that answer the kernel. They wait for storage most of the time, so there are two for
/// each processor; four keep slow requests from holding up others on a small host, and more than sixteen wait
/// for each other in the kernel.
const THREADS: RangeInclusive<usize> = 4..=16;

/// How long the server may take to notice that it has been unmounted.
const AFTER_UNMOUNT: Duration = Duration::from_secs(5);

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Descriptors of a home.
#[derive(Debug)]
pub struct HomeFds {
    /// /dev/fuse, mounted.
    pub fuse: OwnedFd,
    /// Key sheet with the home key.
    pub sheet: OwnedFd,
}

/// Two threads for each processor that this process may use.
fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    processors.saturating_mul(2).clamp(*THREADS.start(), *THREADS.end())
}

/// What the kernel may cache.
fn caching(mode: HomeMode) -> Caching {
    match mode {
        HomeMode::Exclusive => Caching::Exclusive,
        HomeMode::Shared => Caching::Shared,
    }
}

/// How names are stored.
pub(crate) fn naming(names: HomeNames) -> Names {
    match names {
        HomeNames::Plain => Names::Plain,
        HomeNames::Encrypted => Names::Encrypted,
    }
}

/// The folder with the ciphertext: a folder of the VM folder itself, not a link to one.
pub(crate) fn open_folder(root: &Root) -> Result<OwnedFd, Refusal> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(root.folder(), "home", flags, Mode::empty()).map_err(|e| {
        let message = format!("cannot open the folder `home` of the VM: {e}");
        let remedy = "check that the VM has a real folder of this name on its datastore";
        Refusal::new(ErrorCode::Storage, message, remedy)
    })
}

/// The home key on a sheet, which is wiped.
pub(crate) fn take_key(sheet: OwnedFd, arena: &Arena) -> Result<HomeKey, Refusal> {
    KeySheet::open(sheet, arena)
        .and_then(|mut sheet| sheet.take_home())
        .map_err(|e| Refusal::invalid(format!("the key of the home: {e}")))
}

/// A home that is being served.
pub struct ServedHome {
    mountpoint: PathBuf,
    mode: HomeMode,
    server: HomeServer,
}

impl ServedHome {
    /// Starts to serve.
    ///
    /// # Errors
    /// When the folder, the key or the descriptor is no good.
    pub fn start(
        serve: ServeHome,
        vm: Uuid,
        root: &Root,
        fds: HomeFds,
        arena: &Arena,
    ) -> Result<Self, Refusal> {
        let ServeHome { mountpoint, mode, names } = serve;
        let folder = open_folder(root)?;
        let key = take_key(fds.sheet, arena)?;
        let home = Home::open(folder, key, vm, naming(names), arena.clone()).map_err(|e| {
            let message = format!("cannot open the home: {e}");
            Refusal::new(ErrorCode::Storage, message, "check the home folder on the datastore")
        })?;
        let settings = Settings { threads: threads(), caching: caching(mode) };
        let server = door::serve(home, fds.fuse, settings).map_err(|e| {
            let message = format!("cannot serve the home at {}: {e}", mountpoint.display());
            Refusal::new(ErrorCode::HostLimit, message, "check that the host has FUSE")
        })?;
        tracing::info!(mountpoint = %mountpoint.display(), ?mode, ?names, "serving the home");
        Ok(Self { mountpoint, mode, server })
    }

    /// Where it is mounted; nothing once it has been unmounted.
    pub fn mountpoint(&self) -> Option<&Path> {
        (!self.server.is_finished()).then_some(&self.mountpoint)
    }

    /// How it is served.
    pub fn mode(&self) -> HomeMode {
        self.mode
    }

    /// Waits for the end of the server after the unmount; its keys are wiped then.
    ///
    /// # Errors
    /// The home itself when it is still mounted.
    pub fn stop(self) -> Result<(), (Self, Refusal)> {
        let deadline = Instant::now() + AFTER_UNMOUNT;
        while !self.server.is_finished() {
            if Instant::now() >= deadline {
                let message = format!("{} is still mounted", self.mountpoint.display());
                let remedy = "unmount it first";
                return Err((self, Refusal::new(ErrorCode::InUse, message, remedy)));
            }
            std::thread::sleep(LOOK);
        }
        let mountpoint = self.mountpoint.display();
        match self.server.join() {
            Ok(()) => tracing::info!(%mountpoint, "no longer serving the home"),
            Err(error) => tracing::error!(%mountpoint, %error, "serving the home had failed"),
        }
        Ok(())
    }
}
