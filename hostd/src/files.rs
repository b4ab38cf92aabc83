//! Small file-system steps that several modules need: durable folders, whole-file locks, owners.
//!
//! Owns how they are done; must not know what the files mean.

use crate::config::Owner;
use crate::fault::Fault;
use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Most bytes read of a lock file; it holds a process id.
const MAX_HOLDER: u64 = 32;

/// Outcome of asking for a lock.
#[derive(Debug)]
pub enum Locked {
    /// It is ours until it is dropped.
    Ours(FileLock),
    /// Another process holds it; the process id it wrote, where readable.
    Theirs(Option<u32>),
}

/// A held lock. It is given back by an explicit unlock, not by closing: a child that is being started at that
/// moment has a copy of every descriptor until its exec, and a copy would keep the lock.
#[derive(Debug)]
pub struct FileLock {
    fd: Option<OwnedFd>,
}

impl FileLock {
    /// The descriptor, for sharing with another process. The lock then lasts until [`unlock`], or until every
    /// copy is closed.
    #[must_use]
    pub fn into_shared(mut self) -> Option<OwnedFd> {
        self.fd.take()
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if let Some(fd) = &self.fd {
            unlock(fd);
        }
    }
}

/// Gives a lock back for all copies of its descriptor.
pub fn unlock(fd: &OwnedFd) {
    if let Err(e) = rustix::fs::flock(fd, FlockOperation::Unlock) {
        tracing::debug!("a lock goes with its last descriptor only: {e}");
    }
}

/// Takes an exclusive `flock` on `path` (made when absent) without waiting, and writes our process id there.
///
/// # Errors
/// [`Fault::Io`] when the file cannot be opened or locked.
pub fn lock(path: &Path) -> Result<Locked, Fault> {
    lock_if_possible(path)?.ok_or_else(|| Fault::io("make", path)(Errno::ROFS))
}

/// The same; `None` when there is no such file, and none can be made because the file system is read-only.
///
/// # Errors
/// [`Fault::Io`] when the file cannot be opened or locked.
pub fn lock_if_possible(path: &Path) -> Result<Option<Locked>, Fault> {
    open_lock(path)?.map(|(fd, writable)| lock_open(path, fd, writable)).transpose()
}

/// The same on a descriptor that cannot write, for a lock that is shared with a process that must not fill the file
/// system.
///
/// # Errors
/// [`Fault::Io`] when the file cannot be opened, made or locked.
pub fn lock_unwritable(path: &Path) -> Result<Locked, Fault> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CREATE;
    let fd = rustix::fs::open(path, flags, Mode::RUSR).map_err(Fault::io("open", path))?;
    lock_open(path, fd, false)
}

fn lock_open(path: &Path, fd: OwnedFd, writable: bool) -> Result<Locked, Fault> {
    match take(&fd, writable) {
        Ok(()) if !writable => Ok(Locked::Ours(FileLock { fd: Some(fd) })),
        Ok(()) => {
            let mut file = File::from(fd);
            let noted = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            // The note only serves a message; a full disk must not forbid to lock.
            if let Err(e) = noted {
                tracing::debug!("no holder noted in {}: {e}", path.display());
            }
            Ok(Locked::Ours(FileLock { fd: Some(file.into()) }))
        }
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = File::from(fd).take(MAX_HOLDER).read_to_string(&mut text);
            Ok(Locked::Theirs(read.ok().and_then(|_| text.trim().parse().ok())))
        }
        Err(e) => Err(Fault::io("lock", path)(e)),
    }
}

/// Opens a lock file, and tells whether it can be written. On a file system that is mounted read-only the lock is
/// taken on the file that is there, if any.
fn open_lock(path: &Path) -> Result<Option<(OwnedFd, bool)>, Fault> {
    let common = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let flags = common | OFlags::RDWR | OFlags::CREATE;
    match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => return Ok(Some((fd, true))),
        Err(Errno::ROFS) => {}
        Err(e) => return Err(Fault::io("open", path)(e)),
    }
    match rustix::fs::open(path, common | OFlags::RDONLY, Mode::empty()) {
        Ok(fd) => Ok(Some((fd, false))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(Fault::io("open", path)(e)),
    }
}

/// Takes the lock. NFS wants a descriptor that can write for an exclusive one (flock(2)); readers then share, which
/// still keeps writers away.
fn take(fd: &OwnedFd, writable: bool) -> Result<(), Errno> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::BADF) if !writable => {
            rustix::fs::flock(fd, FlockOperation::NonBlockingLockShared)
        }
        outcome => outcome,
    }
}

/// Flushes a folder, so that names made or removed in it survive a power cut.
///
/// # Errors
/// [`Fault::Io`].
pub fn sync_folder(path: &Path) -> Result<(), Fault> {
    File::open(path).and_then(|f| f.sync_all()).map_err(Fault::io("flush", path))
}

/// Opens a folder for passing on; a link is not followed.
///
/// # Errors
/// [`Fault::Io`].
pub fn open_folder(path: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Fault::io("open", path))
}

/// Makes a folder if it is not there and gives it this mode and, where set, group.
///
/// # Errors
/// [`Fault::Io`].
pub fn folder(path: &Path, mode: u32, group: Option<u32>) -> Result<(), Fault> {
    std::fs::create_dir_all(path).map_err(Fault::io("make folder", path))?;
    permit(path, mode, group)
}

/// Gives a path to a user, and to a group if there is one, who alone may then read and write it.
///
/// # Errors
/// [`Fault::Io`].
pub fn give(path: &Path, owner: Owner) -> Result<(), Fault> {
    rustix::fs::chown(path, Some(Uid::from_raw(owner.user)), owner.group.map(Gid::from_raw))
        .map_err(Fault::io("set the owner of", path))?;
    permit(path, if owner.group.is_some() { 0o660 } else { 0o600 }, None)
}

/// Sets group, then mode, of a path.
///
/// # Errors
/// [`Fault::Io`].
pub fn permit(path: &Path, mode: u32, group: Option<u32>) -> Result<(), Fault> {
    if let Some(group) = group {
        rustix::fs::chown(path, None, Some(Gid::from_raw(group)))
            .map_err(Fault::io("set the group of", path))?;
    }
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).map_err(Fault::io("set the mode of", path))
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
/// [`Fault::Io`].
pub fn remove(path: &Path) -> Result<(), Fault> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Fault::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Removes a file from an open folder; one that is not there is fine. Whatever becomes of the path meanwhile, it is
/// removed from that folder. `path` only names it in an error.
///
/// # Errors
/// [`Fault::Io`].
pub fn remove_in(folder: &OwnedFd, path: &Path) -> Result<(), Fault> {
    let name = path.file_name().unwrap_or_default();
    match rustix::fs::unlinkat(folder, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(Fault::io("remove", path)(e)),
    }
}

/// Replaces `path` by `content` so that a power cut leaves the old or the new content.
///
/// # Errors
/// [`Fault::Io`] naming the step that failed; `path` is then unchanged.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Fault> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = File::create(&temporary)
        .and_then(|mut f| f.write_all(content).and_then(|()| f.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(e) = written {
        let _gone = std::fs::remove_file(&temporary);
        return Err(Fault::io("write", path)(e));
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let first = lock(&path).unwrap();
        assert!(matches!(first, Locked::Ours(_)));
        match lock(&path).unwrap() {
            Locked::Theirs(pid) => assert_eq!(pid, Some(std::process::id())),
            Locked::Ours(_) => panic!("locked twice"),
        }
        drop(first);
        assert!(matches!(lock(&path).unwrap(), Locked::Ours(_)));
    }

    #[test]
    fn an_unwritable_lock_is_held_once_and_by_every_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let Locked::Ours(first) = lock_unwritable(&path).unwrap() else { panic!("not free") };
        assert!(matches!(lock_unwritable(&path).unwrap(), Locked::Theirs(None)));
        let shared = first.into_shared().unwrap();
        let copy = shared.try_clone().unwrap();
        drop(shared);
        assert!(matches!(lock_unwritable(&path).unwrap(), Locked::Theirs(None)));
        assert_eq!(rustix::io::write(&copy, b"x"), Err(Errno::BADF));
        drop(copy);
        assert!(matches!(lock_unwritable(&path).unwrap(), Locked::Ours(_)));
    }

    #[test]
    fn a_failed_replace_leaves_the_old_content_and_no_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, b"old").unwrap();
        std::fs::create_dir(dir.path().join("state.json.new")).unwrap();
        assert!(replace(&path, b"new").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }
}
