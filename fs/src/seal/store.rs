//! Sealed files on storage: bounded reading, and replacing without a moment of damage.
//!
//! Owns the order temporary file, fsync, rename, fsync of the folder; must not know what is in the
//! bytes. After a crash at any point the path holds the old file or the new one, whole; what may stay
//! behind is a temporary file, told by its name and removed by [`clean`]. A folder is never reached through a link in
//! its place: whoever can write to the storage could lead a change out of it.

use super::SealError;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::{fs::File, path::Path};

/// End of the name of a temporary file; its first character is a dot, which no name of ours has.
const TEMPORARY: &str = ".coffer-tmp";

/// Whether a path may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// There must be no file of that name.
    New,
    /// A file of that name is replaced.
    Over,
}

/// Reads a regular file of at most `limit` bytes; never follows a link in place of it or of its folder, never
/// waits for a pipe.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, SealError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let (parent, name) = split(path, "open")?;
    let opened = open_folder(parent)
        .and_then(|folder| rustix::fs::openat(folder, name, flags, Mode::empty()));
    let file = match opened {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Err(SealError::Missing { path: path.to_owned() }),
        Err(error) => return Err(failed(path, "open")(error.into())),
    };
    if !file.metadata().map_err(failed(path, "read"))?.is_file() {
        return Err(failed(path, "read")(io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    let most = limit as u64 + 1;
    file.take(most).read_to_end(&mut bytes).map_err(failed(path, "read"))?;
    if bytes.len() > limit {
        return Err(SealError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Writes a whole file, so that a crash leaves the old state or the new one.
///
/// # Errors
/// After [`SealError::NotDurable`] the new file is in place, after all others the old state is.
pub(crate) fn put(path: &Path, bytes: &[u8], how: Put) -> Result<(), SealError> {
    put_by(path, how, |mut file| file.write_all(bytes), |folder| sync_folder(folder))
}

/// [`put`] with the writing and the last sync left to the caller, which is where tests let a disk fail.
fn put_by(
    path: &Path,
    how: Put,
    write: impl FnOnce(&File) -> io::Result<()>,
    sync: impl FnOnce(&OwnedFd) -> io::Result<()>,
) -> Result<(), SealError> {
    let (parent, name) = split(path, "write")?;
    let folder = open_folder(parent).map_err(|error| failed(path, "write")(error.into()))?;
    let (temporary, file) = Temporary::create(&folder, name).map_err(failed(path, "write"))?;
    write(&file).map_err(failed(path, "write"))?;
    file.sync_all().map_err(failed(path, "flush"))?;
    drop(file);
    temporary.rename(name, how).map_err(|error| match error {
        Errno::EXIST => SealError::Exists { path: path.to_owned() },
        error => failed(path, "put in place")(error.into()),
    })?;
    sync(&folder).map_err(|source| SealError::NotDurable { path: path.to_owned(), source })
}

/// Removes temporary files that a crash left in a folder; tells how many. The caller sees to it that
/// nobody is replacing a file there meanwhile.
pub fn clean(folder: &Path) -> io::Result<usize> {
    let (folder, mut removed) = (open_folder(folder)?, 0);
    for name in names(&folder)? {
        let name = name?;
        if !is_temporary(&name) {
            continue;
        }
        let stat = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            rustix::fs::unlinkat(&folder, &name, AtFlags::empty())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The names in a folder, the first `most` of them; none when there is no folder.
pub(crate) fn list(folder: &Path, most: usize) -> io::Result<Vec<OsString>> {
    match open_folder(folder) {
        Ok(folder) => names(&folder)?.take(most).collect(),
        Err(Errno::NOENT) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(Errno::ISDIR)?;
    let folder = open_folder(path.parent().unwrap_or(Path::new(".")));
    match folder.and_then(|folder| rustix::fs::unlinkat(folder, name, AtFlags::empty())) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The names in an open folder.
pub(crate) fn names(
    folder: &OwnedFd,
) -> io::Result<impl Iterator<Item = io::Result<OsString>> + use<>> {
    let names = Dir::read_from(folder)?
        .map(|entry| Ok(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned()));
    Ok(names.filter(|name| !name.as_ref().is_ok_and(|name| name == "." || name == "..")))
}

/// The folder of a file, and its name there.
fn split<'a>(path: &'a Path, action: &'static str) -> Result<(&'a Path, &'a OsStr), SealError> {
    let name = path.file_name().ok_or_else(|| failed(path, action)(Errno::ISDIR.into()))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")), name))
}

/// Whether a file with this name, beside a sealed file, is left from a replacement that was cut short.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.starts_with(b".") && bytes.ends_with(TEMPORARY.as_bytes())
}

/// The file that a temporary file was to become, if it is one.
pub(crate) fn target(name: &str) -> Option<&str> {
    // A dot, the target, a dot, random digits, the end.
    Some(name.strip_prefix('.')?.strip_suffix(TEMPORARY)?.rsplit_once('.')?.0)
}

/// A file that goes away unless it is renamed.
struct Temporary<'a> {
    folder: &'a OwnedFd,
    name: Option<OsString>,
}

impl<'a> Temporary<'a> {
    fn create(folder: &'a OwnedFd, target: &OsStr) -> io::Result<(Self, File)> {
        let random = crypto::random_array::<8>().map_err(io::Error::other)?;
        let mut name = OsString::from(".");
        name.push(target);
        name.push(format!(".{}{TEMPORARY}", hex::encode(random)));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(folder, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((Self { folder, name: Some(name) }, File::from(fd)))
    }

    fn rename(mut self, target: &OsStr, how: Put) -> Result<(), Errno> {
        let Some(name) = &self.name else { return Ok(()) };
        match how {
            Put::Over => rustix::fs::renameat(self.folder, name, self.folder, target)?,
            Put::New => {
                let flags = RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(self.folder, name, self.folder, target, flags) {
                    // NFS has no such flag, but a link never replaces either; the temporary name is
                    // then removed on drop.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                        let flags = AtFlags::empty();
                        return rustix::fs::linkat(self.folder, name, self.folder, target, flags);
                    }
                    done => done?,
                }
            }
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Failing, it leaves a file that `clean` removes later.
            let _ = rustix::fs::unlinkat(self.folder, name, AtFlags::empty());
        }
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Makes names durable. Some network file systems answer EINVAL: they make names durable on their own.
fn sync_folder(folder: impl AsFd) -> io::Result<()> {
    match rustix::io::retry_on_intr(|| rustix::fs::fsync(&folder)) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> SealError {
    move |source| SealError::Io { path: path.to_owned(), action, source }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
