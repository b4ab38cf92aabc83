//! The key file and what lies beside it on disk: exclusive, private, and replaced as a whole or not at all.
//!
//! Owns the lock, the permission checks and the atomic replacement. It must not know what the text
//! means. Flow: [`Place::claim`] locks, [`Place::read`] checks and reads, [`Place::create`] and
//! [`Place::replace`] write a temporary file, make it durable, and put it in place.

use crate::KmsError;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest key file that is read or written: 65,536 key records of 90 bytes, and room for the rest.
pub(super) const MAX_FILE_BYTES: u64 = 8 << 20;

/// Owner may read and write, nobody else anything.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A key file that this process, and no other, may use for as long as the value lives.
pub(super) struct Place {
    path: PathBuf,
    /// Holds the flock. It is a file of its own because the key file is replaced by rename, and a
    /// lock on a replaced file guards nothing. It is never removed: a removed lock file can be held
    /// by one process while the next one locks a new file of that name.
    _lock: Arc<File>,
    /// How the folder is made durable; another one in tests of its failure.
    pub(super) sync: fn(&Path) -> io::Result<()>,
}

impl Place {
    /// Takes the exclusive lock, `PATH.lock` beside the key file.
    ///
    /// # Errors
    /// `InUse` when another process has it, else `Io`.
    pub(super) fn claim(path: &Path) -> Result<Self, KmsError> {
        let lock_path = with_suffix(path, ".lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::open(&lock_path, flags, PRIVATE)
            .map(File::from)
            .map_err(|e| io_error("open", &lock_path, e.into()))?;
        match lock.try_lock() {
            Ok(()) => {
                Ok(Self { path: path.to_path_buf(), _lock: Arc::new(lock), sync: sync_folder })
            }
            Err(TryLockError::WouldBlock) => Err(KmsError::InUse { origin: origin(path) }),
            Err(TryLockError::Error(e)) => Err(io_error("lock", &lock_path, e)),
        }
    }

    /// A file beside the key file, which the same lock guards.
    pub(super) fn beside(&self, suffix: &str) -> Self {
        let path = with_suffix(&self.path, suffix);
        Self { path, _lock: Arc::clone(&self._lock), sync: self.sync }
    }

    /// Name of the file for messages.
    pub(super) fn origin(&self) -> String {
        origin(&self.path)
    }

    /// Reads the file, see [`read`].
    ///
    /// # Errors
    /// Those of [`read`].
    pub(super) fn read(&self) -> Result<String, KmsError> {
        read(&self.path)
    }

    /// Puts the first key file in place; never replaces one.
    ///
    /// # Errors
    /// `Exists` when there is one, else `Io`; then nothing is left behind. `NotDurable` when it is in place,
    /// but only for as long as the power stays.
    pub(super) fn create(&self, text: &str) -> Result<(), KmsError> {
        let temp = self.write_temp(text)?;
        let placed =
            match rustix::fs::renameat_with(CWD, &temp, CWD, &self.path, RenameFlags::NOREPLACE) {
                // NFS has no such flag, but a link never replaces either.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    fs::hard_link(&temp, &self.path)
                }
                renamed => renamed.map_err(io::Error::from),
            };
        // The temporary name is left after a link and after a failure.
        remove_quietly(&temp);
        match placed {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(KmsError::Exists { origin: self.origin() })
            }
            Err(e) => Err(io_error("create", &self.path, e)),
            Ok(()) => self.make_durable(),
        }
    }

    /// Replaces the key file. After an error the old one is still there, whole.
    ///
    /// # Errors
    /// `Io`; `NotDurable` when the new file is the one in place, but only for as long as the power stays.
    pub(super) fn replace(&self, text: &str) -> Result<(), KmsError> {
        let temp = self.write_temp(text)?;
        fs::rename(&temp, &self.path).map_err(|e| {
            remove_quietly(&temp);
            io_error("replace", &self.path, e)
        })?;
        self.make_durable()
    }

    /// Writes `PATH.tmp` and makes its content durable. The lock makes the fixed name safe; one that
    /// a crash left over is dropped.
    fn write_temp(&self, text: &str) -> Result<PathBuf, KmsError> {
        let temp = with_suffix(&self.path, ".tmp");
        remove_quietly(&temp);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = rustix::fs::open(&temp, flags, PRIVATE)
            .map(File::from)
            .map_err(|e| io_error("create", &temp, e.into()))?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|e| {
            remove_quietly(&temp);
            io_error("write", &temp, e)
        })?;
        Ok(temp)
    }

    fn make_durable(&self) -> Result<(), KmsError> {
        (self.sync)(&self.path)
            .map_err(|source| KmsError::NotDurable { path: self.path.clone(), source })
    }

    /// Removes the file.
    ///
    /// # Errors
    /// `Io`; `NotDurable` when it is gone, but only for as long as the power stays.
    pub(super) fn remove(&self) -> Result<(), KmsError> {
        fs::remove_file(&self.path).map_err(|e| io_error("remove", &self.path, e))?;
        self.make_durable()
    }
}

/// Reads a file, after checking that nobody else can.
///
/// # Errors
/// `Config` for a file that is not private or not a plain file, `Damaged` for one that is too
/// large or not text, else `Io`.
pub(super) fn read(path: &Path) -> Result<String, KmsError> {
    // NONBLOCK: opening a pipe must not hang before the check finds that it is one.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::LOOP) => return Err(not_plain(path, "is a symbolic link")),
        opened => opened.map_err(|e| io_error("open", path, e.into()))?,
    };
    let file = File::from(file);
    let meta = file.metadata().map_err(|e| io_error("read", path, e))?;
    check_private(path, &meta)?;
    let mut text = String::new();
    match file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            Err(damaged(path, "it is not UTF-8 text"))
        }
        Err(e) => Err(io_error("read", path, e)),
        Ok(n) if n as u64 > MAX_FILE_BYTES => Err(damaged(path, "it is larger than 8 MiB")),
        Ok(_) => Ok(text),
    }
}

fn check_private(path: &Path, meta: &fs::Metadata) -> Result<(), KmsError> {
    if !meta.is_file() {
        return Err(not_plain(path, "is not a regular file"));
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KmsError::Config {
            origin: origin(path),
            problem: format!("can be used by group or others (mode {mode:04o})"),
            remedy: format!("run `chmod 600 {}`", path.display()),
        });
    }
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me && meta.uid() != 0 {
        return Err(KmsError::Config {
            origin: origin(path),
            problem: format!("belongs to user {}, who is neither root nor us", meta.uid()),
            remedy: format!("run `chown {me} {}`", path.display()),
        });
    }
    Ok(())
}

fn damaged(path: &Path, what: &str) -> KmsError {
    KmsError::Damaged { origin: origin(path), what: what.to_owned() }
}

fn not_plain(path: &Path, problem: &str) -> KmsError {
    KmsError::Config {
        origin: origin(path),
        problem: problem.to_owned(),
        remedy: "put the file itself there".to_owned(),
    }
}

/// Makes the name of a file durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match File::open(folder)?.sync_all() {
        // Some network file systems make names durable by themselves and answer EINVAL.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// A left-over temporary file holds nothing but sealed text and is dropped at the next write, so a
/// failure here must not hide the error that led to it.
fn remove_quietly(path: &Path) {
    let _ = fs::remove_file(path);
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn origin(path: &Path) -> String {
    path.display().to_string()
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> KmsError {
    KmsError::Io { action, path: path.to_path_buf(), source }
}
