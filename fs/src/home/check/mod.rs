//! The check of a home: every stored object looked at, and what a crash left cleared away if that is asked for.
//!
//! Owns the walk over the tree; `file` and `attributes` know what can be wrong with one object. Must not know who
//! reads the report. Flow: [`check`] goes through the folders, deepest first, holding one descriptor for each level,
//! so memory does not grow with the number of files. It is for a home that nobody serves: what it mends it mends
//! through the same code that serves files, but it does not share locks with a mount.

mod attributes;
mod file;

use super::error::HomeError;
use super::keys::HomeKeys;
use super::names::{self, Room};
use super::naming::Naming;
use crate::fsck::{Finding, Grade, Mend, Report, shown_path};
use crate::safe::Names;
use crypto::{Arena, HomeKey};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Most folders inside each other that are gone into: each holds a descriptor, and a process has a thousand or more.
/// What lies deeper is reported as not looked at.
pub const MAX_DEPTH: usize = 512;

/// Bytes read from a folder at a time: a few hundred names.
const BATCH: usize = 32 * 1024;

/// How often a check without findings says that it goes on.
const BEAT: Duration = Duration::from_secs(5);

/// What paths in a report start with.
const HOME: &[u8] = b"home";

/// Why a check ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// Nobody reads the report any more.
    #[error("the report cannot be passed on: {0}")]
    Report(#[from] io::Error),
    /// This process cannot go on: no key can be derived, for example.
    #[error(transparent)]
    Home(HomeError),
}

/// Looks at everything in the home in `dir`, whose key is `key`, of the VM `vm`, with the policy `names`. With
/// `repair`, what is marked so in the report is mended on the way, each by one step that a crash leaves done or not
/// done. What has a name that is not of this home is reported and left alone.
///
/// # Errors
/// [`CheckError`]; what is wrong with the home is no error but a finding.
pub fn check(
    dir: OwnedFd,
    key: HomeKey,
    vm: Uuid,
    names: Names,
    arena: Arena,
    repair: bool,
    report: &mut Report<'_>,
) -> Result<(), CheckError> {
    let no_key =
        |source| CheckError::Home(HomeError::Key { file: "(the home itself)".into(), source });
    let naming = Naming::new(&key, &arena, names).map_err(no_key)?;
    let keys = HomeKeys::new(key, vm, names, arena).map_err(no_key)?;
    Walk {
        keys: Arc::new(keys),
        names: naming,
        repair,
        report,
        path: HOME.to_vec(),
        plain: Vec::new(),
        beat: Instant::now(),
        buffers: attributes::Buffers::new(),
    }
    .run(dir)
}

/// A folder that the walk is in.
struct Level {
    fd: OwnedFd,
    /// Where its listing goes on, an offset of the storage.
    next: u64,
    /// Length of its path.
    path: usize,
    /// Length of its plain path.
    plain: usize,
}

struct Walk<'a, 'b> {
    keys: Arc<HomeKeys>,
    names: Naming,
    repair: bool,
    report: &'a mut Report<'b>,
    /// Of the object that is looked at, below the VM folder.
    path: Vec<u8>,
    /// The same in the mounted home, a name after each slash.
    plain: Vec<u8>,
    /// When the reader last heard of us.
    beat: Instant,
    buffers: attributes::Buffers,
}

impl Walk<'_, '_> {
    fn run(mut self, dir: OwnedFd) -> Result<(), CheckError> {
        let mut levels = Vec::new();
        self.enter(dir, &mut levels)?;
        while let Some(level) = levels.last_mut() {
            self.back_to(level);
            match self.scan(level)? {
                Some(folder) => self.enter(folder, &mut levels)?,
                None => drop(levels.pop()),
            }
        }
        Ok(())
    }

    /// Goes into the folder that [`Walk::path`] names.
    fn enter(&mut self, fd: OwnedFd, levels: &mut Vec<Level>) -> Result<(), CheckError> {
        self.report.looked_at();
        self.check_attributes(fd.as_fd())?;
        if levels.len() < MAX_DEPTH {
            levels.push(Level { fd, next: 0, path: self.path.len(), plain: self.plain.len() });
            return Ok(());
        }
        let what = format!("it lies {MAX_DEPTH} folders deep, and what is in it was not looked at");
        self.found(Grade::Leftover, what, Mend::not("look at it through the mounted home"))
    }

    fn back_to(&mut self, level: &Level) {
        self.path.truncate(level.path);
        self.plain.truncate(level.plain);
    }

    /// Looks at the objects of a folder from where the listing stopped; returns the next folder in it.
    fn scan(&mut self, level: &mut Level) -> Result<Option<OwnedFd>, CheckError> {
        if let Err(error) = rustix::fs::seek(&level.fd, SeekFrom::Start(level.next)) {
            return self.unreadable(error).map(|()| None);
        }
        let mut space = [MaybeUninit::<u8>::uninit(); BATCH];
        let (mut entries, mut room) = (RawDir::new(&level.fd, &mut space), Room::new());
        while let Some(entry) = entries.next() {
            self.back_to(level);
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.unreadable(error).map(|()| None),
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            let Some(plain) = self.names.plain(name.to_bytes(), &mut room) else {
                self.stray(name.to_bytes())?;
                continue;
            };
            self.plain.push(b'/');
            self.plain.extend_from_slice(plain.as_bytes());
            if let Some(folder) = self.object(level.fd.as_fd(), name)? {
                level.next = entry.next_entry_cookie();
                return Ok(Some(folder));
            }
        }
        Ok(None)
    }

    /// Looks at one object; a folder is returned instead.
    fn object(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<Option<OwnedFd>, CheckError> {
        self.keep_alive()?;
        let kind = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(error) => return self.unreadable(error).map(|()| None),
        };
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return match rustix::fs::openat(parent, name, flags, Mode::empty()) {
                Ok(folder) => Ok(Some(folder)),
                Err(error) => self.unreadable(error).map(|()| None),
            };
        }
        self.report.looked_at();
        match kind {
            FileType::RegularFile => self.check_file(parent, name)?,
            FileType::Symlink => self.check_link(parent, name)?,
            // Fifos, sockets and devices have a name and a mode, and nothing that could be wrong.
            _ => {}
        }
        Ok(None)
    }

    fn check_link(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), CheckError> {
        match rustix::fs::readlinkat(parent, name, Vec::new()) {
            Ok(stored) => match self.keys.open_link(stored.as_bytes(), String::new).map(drop) {
                Ok(()) => Ok(()),
                Err(error) => self.refused(error),
            },
            Err(error) => self.unreadable(error),
        }
    }

    /// Reports an object whose name is not of this home. Nothing is known of it, and no mount shows it, nor what is in
    /// it: only its owner can say what becomes of it.
    fn stray(&mut self, name: &[u8]) -> Result<(), CheckError> {
        self.keep_alive()?;
        self.report.looked_at();
        let (grade, what, remedy) = match names::looks_encoded(name) {
            true => (
                Grade::Damaged,
                "its name was not encrypted with the key of this home, or was changed; the mounted home does not show \
                 it",
                "give it the name back that it has in a backup of the datastore, or move it away",
            ),
            false => (
                Grade::Leftover,
                "its name is not one of the home, and the mounted home does not show it",
                "look at it, and move it away if nobody needs it here",
            ),
        };
        self.report_at(grade, what.to_owned(), Mend::not(remedy), None)
    }

    /// Reports an object that home code refuses.
    fn refused(&mut self, error: HomeError) -> Result<(), CheckError> {
        let (what, remedy) = match error {
            HomeError::Damaged { what, .. } => (what.to_owned(), "restore it from a backup"),
            HomeError::Foreign { owner, .. } => {
                (format!("it was encrypted for VM {owner}"), "copy it through the mounted homes")
            }
            HomeError::Unsupported { version, features, .. } => {
                let what = format!("it has format version {version} and features {features:#x}");
                (what, "upgrade Coffer to read it")
            }
            HomeError::Io { doing, source } => {
                (format!("{doing}: {source}"), "check the datastore, then check again")
            }
            fault => return Err(CheckError::Home(fault)),
        };
        self.found(Grade::Damaged, what, Mend::not(remedy))
    }

    /// Reports an object that the storage does not give out. One that has just been removed is none.
    fn unreadable(&mut self, error: Errno) -> Result<(), CheckError> {
        if error == Errno::NOENT {
            return Ok(());
        }
        let remedy = Mend::not("check the datastore, then check again");
        self.found(Grade::Damaged, format!("it cannot be read: {error}"), remedy)
    }

    fn found(&mut self, grade: Grade, what: String, mend: Mend) -> Result<(), CheckError> {
        let plain = self.names.is_encrypted().then(|| match &self.plain[..] {
            b"" => "/".to_owned(),
            plain => shown_path(plain),
        });
        self.report_at(grade, what, mend, plain)
    }

    fn report_at(
        &mut self,
        grade: Grade,
        what: String,
        mend: Mend,
        plain: Option<String>,
    ) -> Result<(), CheckError> {
        let path = shown_path(&self.path);
        self.beat = Instant::now();
        Ok(self.report.found(Finding { path, plain, grade, what, mend })?)
    }

    fn keep_alive(&mut self) -> Result<(), CheckError> {
        if !self.report.is_heard() {
            return Err(CheckError::Report(io::ErrorKind::BrokenPipe.into()));
        }
        if self.beat.elapsed() >= BEAT {
            self.beat = Instant::now();
            self.report.alive()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod names_tests;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
