//! Datastores: folders that hold VM folders, each held by one hostd at a time.
//!
//! Owns the lock of a datastore, its state, and the search for VM folders; must not know VMs beyond the
//! unverified body of a safe. `host` opens them at start, asks [`Datastore::refresh`] before it relies on
//! one, and takes what [`Datastore::scan`] finds into the inventory. Its storage may hang, and with it whoever touches
//! it, so nobody does without having asked [`Datastore::answers`], and a limited number of verbs at a time.

use crate::config::DatastoreConfig;
use crate::fault::Fault;
use crate::files::{self, FileLock, Locked};
use crate::gate::{Gate, Pass, Shut};
use crate::probe::Probe;
use cryptfs::folder::VmFolder;
use cryptfs::safe::Safe;
use cryptfs::seal::Sealed;
use hostd_api::error::ErrorCode;
use hostd_api::types::{DatastoreInfo, DatastoreState};
use rustix::fs::StatVfsMountFlags;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Name of the lock file in a datastore.
pub const LOCK_FILE: &str = ".coffer-lock";

/// Beginning of the names of folders that are being made or deleted. A crash leaves them behind; the next
/// start removes them. No VM can be named so, as names do not start with a dot.
pub const SCRATCH_PREFIX: &str = ".coffer-scratch-";

/// Most problems kept of one datastore; more of them are counted only, so that a folder full of rubbish
/// does not fill memory and answers.
const MAX_PROBLEMS: usize = 100;

/// One datastore.
#[derive(Debug)]
pub struct Datastore {
    /// Name from the configuration.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
    inner: Mutex<Inner>,
    probe: Probe,
    gate: Gate,
}

/// Why a datastore is not used whose storage hangs.
const SILENT: &str = "its storage does not answer";

#[derive(Debug)]
struct Inner {
    hold: Hold,
    problems: Vec<String>,
}

/// What this process has of the datastore.
#[derive(Debug)]
enum Hold {
    /// It is ours. `place` tells when another file system gets mounted over it.
    Held { lock: Option<FileLock>, place: Place },
    /// It is not, for this reason.
    Not(String),
    /// Nobody has looked yet.
    Unopened,
}

/// File systems that one host mounts at a time (magic numbers of include/uapi/linux/magic.h, and of the file systems
/// that are not in the kernel tree): there the kernel's own locks tell of every user. The upper layer of an
/// overlay is one of them, as it cannot be a network file system.
const LOCAL: [u32; 13] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0x0102_1994, // tmpfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x794c_7630, // overlay
    0x3153_464a, // JFS
    0x5265_4973, // ReiserFS
    0x4d44,      // FAT
    0x2011_bab0, // exFAT
    0x8584_58f6, // ramfs
];

/// Whether a folder lies on a file system that no other host can have mounted.
///
/// # Errors
/// [`Fault::Io`].
pub fn is_local(path: &Path) -> Result<bool, Fault> {
    let found = rustix::fs::statfs(path).map_err(Fault::io("look at the file system of", path))?;
    // The type has 32 bits in all of them, in a field whose width differs between architectures.
    Ok(LOCAL.iter().any(|magic| i128::from(found.f_type) & 0xffff_ffff == i128::from(*magic)))
}

/// Device and inode of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(u64, u64);

/// A VM folder that a scan found.
#[derive(Debug)]
pub struct Found {
    /// The folder.
    pub folder: VmFolder,
    /// Body of its safe, not verified.
    pub safe: Safe,
}

impl Datastore {
    /// A datastore that is not opened yet ([`Datastore::refresh`] does), for at most `verbs` verbs at a time.
    #[must_use]
    pub fn new(config: &DatastoreConfig, verbs: usize) -> Self {
        let inner = Mutex::new(Inner { hold: Hold::Unopened, problems: Vec::new() });
        let (name, path) = (config.name.clone(), config.path.clone());
        Self { name, path, inner, probe: Probe::default(), gate: Gate::new(verbs) }
    }

    /// Lets a verb in that may wait for the storage.
    ///
    /// # Errors
    /// A refusal with code `storage` when the storage does not answer, `in-use` when too many verbs are at work.
    pub(crate) fn admit(&self) -> Result<Pass<'_>, Fault> {
        if !self.answers() {
            return Err(self.silent());
        }
        self.admit_to_end()
    }

    /// Lets a verb in that ends what is served: also while the storage does not answer, as far as there is room.
    ///
    /// # Errors
    /// Those of [`Datastore::admit`].
    pub(crate) fn admit_to_end(&self) -> Result<Pass<'_>, Fault> {
        self.gate.pass(|| self.answers()).map_err(|shut| match shut {
            Shut::Silent => self.silent(),
            Shut::Full(most) => Fault::refused(
                ErrorCode::InUse,
                format!("{most} verbs are at work on datastore {}, and none ends", self.name),
                "try again later; a quarter of limits.control_connections is the limit",
            ),
        })
    }

    fn silent(&self) -> Fault {
        self.refusal("does not answer", "bring its storage back; VMs that run are served on")
    }

    /// Whether it could not be used when somebody last looked; does not wait for whoever looks now.
    pub(crate) fn is_missed(&self) -> bool {
        match self.inner.try_lock() {
            Ok(inner) => !matches!(inner.hold, Hold::Held { .. }),
            Err(TryLockError::Poisoned(poisoned)) => {
                !matches!(poisoned.into_inner().hold, Hold::Held { .. })
            }
            Err(TryLockError::WouldBlock) => false,
        }
    }

    /// Whether its storage answers at all, within seconds. While it does not, whoever touches it waits for it.
    pub fn answers(&self) -> bool {
        self.probe.answers(&self.path)
    }

    /// Looks again: a datastore that came back is opened. `true` when it has just become usable, so that
    /// it must be scanned.
    pub fn refresh(&self) -> bool {
        let mut inner = self.inner();
        if let Hold::Held { place, lock } = &inner.hold
            && Place::of(&self.path).ok() == Some(*place)
            && (lock.is_some() || read_only(&self.path))
        {
            return false;
        }
        inner.hold = hold(&self.path);
        matches!(inner.hold, Hold::Held { .. })
    }

    /// Whether it can be read at all.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self.inner().hold, Hold::Held { .. })
    }

    /// State now. One that was read-only and can be written again is locked on the way.
    #[must_use]
    pub fn state(&self) -> DatastoreState {
        let mut inner = self.inner();
        if matches!(inner.hold, Hold::Held { lock: None, .. }) && !read_only(&self.path) {
            inner.hold = hold(&self.path);
        }
        match &inner.hold {
            Hold::Not(reason) => DatastoreState::Unavailable(reason.clone()),
            Hold::Unopened => DatastoreState::Unavailable(SILENT.into()),
            Hold::Held { lock: None, .. } => DatastoreState::ReadOnly,
            Hold::Held { .. } if read_only(&self.path) => DatastoreState::ReadOnly,
            Hold::Held { .. } => DatastoreState::Ready,
        }
    }

    /// Refuses unless it can be written.
    ///
    /// # Errors
    /// A refusal with code `storage` that names the reason.
    pub fn writable(&self) -> Result<(), Fault> {
        match self.state() {
            DatastoreState::Ready => Ok(()),
            DatastoreState::ReadOnly => Err(self.refusal("is read-only", "mount it writable")),
            DatastoreState::Unavailable(reason) => Err(self.unavailable(&reason)),
        }
    }

    /// Refuses unless it can be read.
    ///
    /// # Errors
    /// A refusal with code `storage` that names the reason.
    pub fn readable(&self) -> Result<(), Fault> {
        match self.state() {
            DatastoreState::Ready | DatastoreState::ReadOnly => Ok(()),
            DatastoreState::Unavailable(reason) => Err(self.unavailable(&reason)),
        }
    }

    /// What an operator should change about how it is mounted: whoever writes to the storage could put programs with
    /// the set-user-id bit or devices there, and Coffer needs neither.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let flags = rustix::fs::statvfs(&self.path).ok()?.f_flag;
        let wanted = [(StatVfsMountFlags::NOSUID, "nosuid"), (StatVfsMountFlags::NODEV, "nodev")];
        let missing: Vec<_> = wanted
            .iter()
            .filter(|(flag, _)| !flags.contains(*flag))
            .map(|(_, name)| *name)
            .collect();
        (!missing.is_empty()).then(|| {
            format!(
                "datastore {} ({}) is not mounted {}: whoever can write to its storage could put devices or \
                 set-user-id programs there; give it a mount of its own with these options",
                self.name,
                self.path.display(),
                missing.join(",")
            )
        })
    }

    fn unavailable(&self, reason: &str) -> Fault {
        self.refusal(&format!("cannot be used: {reason}"), "see `coffer host status`")
    }

    fn refusal(&self, what: &str, remedy: &str) -> Fault {
        Fault::refused(
            ErrorCode::Storage,
            format!("datastore {} ({}) {what}", self.name, self.path.display()),
            remedy,
        )
    }

    /// As the API shows it; does not wait for storage that hangs.
    #[must_use]
    pub fn info(&self) -> DatastoreInfo {
        if !self.answers() {
            return DatastoreInfo {
                name: self.name.clone(),
                path: self.path.clone(),
                state: DatastoreState::Unavailable(SILENT.into()),
                free_bytes: None,
                problems: Vec::new(),
            };
        }
        let space = rustix::fs::statvfs(&self.path).ok();
        DatastoreInfo {
            name: self.name.clone(),
            path: self.path.clone(),
            state: self.state(),
            free_bytes: space.map(|s| s.f_bavail.saturating_mul(s.f_frsize)),
            problems: self.inner().problems.clone(),
        }
    }

    /// Every VM folder directly in the datastore and those of `registered` that lie deeper, in a stable
    /// order: folders named like their VM first, so that a copy never takes the place of the original.
    /// Folders that look like a VM but cannot be read become problems and hide nothing else.
    pub fn scan<'a>(&self, registered: impl Iterator<Item = &'a PathBuf>) -> Vec<Found> {
        self.inner().problems.clear();
        let mut folders = match self.children() {
            Ok(folders) => folders,
            Err(e) => {
                self.report(format!("cannot be listed: {e}"));
                Vec::new()
            }
        };
        folders.extend(registered.filter(|p| p.starts_with(&self.path)).cloned());
        folders.sort();
        folders.dedup();
        let mut found = Vec::new();
        for path in folders {
            match look(&path) {
                Ok(one) => found.push(one),
                Err(e) => self.report(e.to_string()),
            }
        }
        found.sort_by_key(|f| f.folder.path().file_name() != Some(f.safe.name.as_str().as_ref()));
        found
    }

    /// Notes that a folder could not be registered.
    pub fn report(&self, problem: String) {
        let mut inner = self.inner();
        match inner.problems.len() {
            n if n < MAX_PROBLEMS => inner.problems.push(problem),
            MAX_PROBLEMS => inner.problems.push("there are more problems".into()),
            _ => {}
        }
    }

    /// Removes folders that a crash left half made or half deleted.
    pub fn clear_scratch(&self) {
        if self.writable().is_err() {
            return;
        }
        let Ok(entries) = std::fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(SCRATCH_PREFIX.as_bytes()) {
                match std::fs::remove_dir_all(entry.path()) {
                    Ok(()) => tracing::info!("removed leftover {}", entry.path().display()),
                    Err(e) => self.report(format!("leftover {}: {e}", entry.path().display())),
                }
            }
        }
    }

    /// Folders of the datastore that hold a `vm.safe`.
    fn children(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let path = entry.path();
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if hidden || VmFolder::new(&path).safe().symlink_metadata().is_err() {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                self.report(format!("{} is a link, which is not followed", path.display()));
            }
        }
        Ok(folders)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the safe of a folder.
///
/// # Errors
/// The fault of the safe.
pub fn look(path: &Path) -> Result<Found, Fault> {
    let folder = VmFolder::new(path);
    let safe = Sealed::<Safe>::read(&folder.safe())?.unverified().clone();
    Ok(Found { folder, safe })
}

/// Takes the lock of a datastore.
fn hold(path: &Path) -> Hold {
    let place = match Place::of(path) {
        Ok(place) => place,
        Err(reason) => return Hold::Not(reason),
    };
    if read_only(path) {
        // Nothing is written there, by nobody; the file cannot be made, and need not be.
        return Hold::Held { lock: None, place };
    }
    match files::lock(&path.join(LOCK_FILE)) {
        Ok(Locked::Ours(lock)) => Hold::Held { lock: Some(lock), place },
        Ok(Locked::Theirs(Some(pid))) => {
            Hold::Not(format!("another hostd, process {pid}, holds it"))
        }
        Ok(Locked::Theirs(None)) => Hold::Not("another hostd holds it".into()),
        Err(e) => Hold::Not(e.to_string()),
    }
}

fn read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|s| s.f_flag.contains(StatVfsMountFlags::RDONLY))
}

impl Place {
    fn of(path: &Path) -> Result<Self, String> {
        let metadata = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
        if !metadata.is_dir() {
            return Err(format!("{} is not a folder", path.display()));
        }
        Ok(Self(metadata.dev(), metadata.ino()))
    }
}

#[cfg(test)]
#[path = "datastore_tests.rs"]
mod tests;
