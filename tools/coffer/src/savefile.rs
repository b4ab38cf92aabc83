//! A file that appears whole or not at all, readable by its owner only.
//!
//! Owns the temporary name, the rename and the two fsyncs; knows no content. Used for what must not be half
//! written and must not be read by others: key backups and decrypted exports.

use crate::error::CliError;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file in the making; removed when dropped before `commit`.
#[derive(Debug)]
pub(crate) struct SaveFile {
    target: PathBuf,
    folder: PathBuf,
    temporary: PathBuf,
    replace: bool,
    committed: bool,
}

impl SaveFile {
    /// Starts a file that will be at `target`; refuses at once when it is there, unless `replace`.
    pub(crate) fn create(target: &Path, replace: bool) -> Result<(Self, File), CliError> {
        let folder = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // Absolute, so that qemu-img cannot take it for a protocol.
        let folder = fs::canonicalize(folder).map_err(CliError::file("open", folder))?;
        let name = target.file_name().ok_or_else(|| {
            CliError::file("write", target)(io::Error::from(io::ErrorKind::IsADirectory))
        })?;
        if !replace && target.symlink_metadata().is_ok() {
            return Err(CliError::FileExists { path: target.to_owned() });
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".coffer-{}", std::process::id()));
        let temporary = folder.join(hidden);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(CliError::file("write", target))?;
        let target = folder.join(name);
        Ok((Self { target, folder, temporary, replace, committed: false }, file))
    }

    /// Path to write to.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Makes what was written durable, and gives it its name.
    pub(crate) fn commit(mut self) -> Result<PathBuf, CliError> {
        let written = CliError::file("write", &self.target);
        // Whoever wrote it may have used another descriptor; fsync works on the file, not on the descriptor.
        File::open(&self.temporary).and_then(|file| file.sync_all()).map_err(written)?;
        self.rename()?;
        self.committed = true;
        let written = CliError::file("write", &self.folder);
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(written)?;
        Ok(self.target.clone())
    }

    fn rename(&self) -> Result<(), CliError> {
        let flags = if self.replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        match renameat_with(CWD, &self.temporary, CWD, &self.target, flags) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(CliError::FileExists { path: self.target.clone() }),
            // NFS and some FUSE file systems have no such flag. A link refuses an existing name as well.
            Err(Errno::INVAL) if !self.replace => self.link(),
            Err(errno) => Err(CliError::file("write", &self.target)(errno.into())),
        }
    }

    fn link(&self) -> Result<(), CliError> {
        match fs::hard_link(&self.temporary, &self.target) {
            Ok(()) => {
                fs::remove_file(&self.temporary).map_err(CliError::file("write", &self.target))
            }
            Err(reason) if reason.kind() == io::ErrorKind::AlreadyExists => {
                Err(CliError::FileExists { path: self.target.clone() })
            }
            Err(reason) => Err(CliError::file("write", &self.target)(reason)),
        }
    }
}

impl Drop for SaveFile {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing can be done about a file that does not go; it is named after this process.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("a folder")
            .map(|e| e.expect("an entry").file_name())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn appears_whole_with_mode_0600() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("b");
        let (save, mut file) = SaveFile::create(&target, false).expect("created");
        file.write_all(b"content").expect("written");
        assert!(!target.exists());
        save.commit().expect("committed");
        assert_eq!(fs::read(&target).expect("there"), b"content");
        assert_eq!(fs::metadata(&target).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(names(folder.path()), ["b"]);
    }

    #[test]
    fn dropped_it_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(SaveFile::create(&folder.path().join("b"), false).expect("created"));
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn nothing_is_overwritten_without_force() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("b");
        let (late, _file) = SaveFile::create(&target, false).expect("created");
        fs::write(&target, "old").expect("written");
        let early = SaveFile::create(&target, false).expect_err("it exists");
        assert!(matches!(early, CliError::FileExists { .. }), "{early}");
        let error = late.commit().expect_err("it exists by now");
        assert!(matches!(error, CliError::FileExists { .. }), "{error}");
        assert_eq!(fs::read(&target).expect("there"), b"old");
        assert_eq!(names(folder.path()), ["b"]);
        let (save, mut file) = SaveFile::create(&target, true).expect("forced");
        file.write_all(b"new").expect("written");
        save.commit().expect("committed");
        assert_eq!(fs::read(&target).expect("there"), b"new");
    }

    #[test]
    fn the_link_way_refuses_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("b");
        let (save, _file) = SaveFile::create(&target, false).expect("created");
        fs::write(&target, "old").expect("written");
        assert!(matches!(save.link(), Err(CliError::FileExists { .. })));
        fs::remove_file(&target).expect("removed");
        save.link().expect("linked");
        assert_eq!(names(folder.path()), ["b"]);
    }
}
