//! What can be wrong with a stored file.
//!
//! Owns the judgement on lengths, header pages and remains behind the end, and the three repairs there are: all of
//! them clear bytes that were shown to nobody. Must not know the tree.

use super::super::error::HomeError;
use super::super::file::HomeFile;
use super::super::header::PAGE_LEN;
use super::super::layout::{HEADER, MAX_SIZE, Stored, decode, in_memory};
use super::{CheckError, Walk};
use crate::backing::{Backing, FileBacking};
use crate::fsck::{Grade, Mend};
use rustix::fs::{FileType, Mode, OFlags};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What all files are opened with: no links are followed, and what was put in the place of a file does not block.
const GUARDS: OFlags =
    OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A name in a folder, to be opened once more for a repair.
#[derive(Clone, Copy)]
struct At<'a> {
    parent: BorrowedFd<'a>,
    name: &'a CStr,
}

impl At<'_> {
    fn open(&self, access: OFlags) -> Result<OwnedFd, HomeError> {
        rustix::fs::openat(self.parent, self.name, access | GUARDS, Mode::empty())
            .map_err(HomeError::io("open"))
    }

    /// Sets the stored length of what has this length now, durably. One call does it, so a crash leaves the
    /// old length or the new one.
    fn cut(&self, from: u64, to: u64) -> Result<(), HomeError> {
        let store = FileBacking::new(self.open(OFlags::RDWR)?);
        let io = HomeError::io("change of a file's length");
        let cut = || {
            if store.len()? != from {
                return Err(io::Error::other("the file was changed meanwhile"));
            }
            store.set_len(to)?;
            Ok(rustix::io::retry_on_intr(|| rustix::fs::fsync(&store))?)
        };
        cut().map_err(io)
    }
}

impl Walk<'_, '_> {
    pub(super) fn check_file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<(), CheckError> {
        let at = At { parent, name };
        let fd = match at.open(OFlags::RDONLY) {
            Ok(fd) => fd,
            Err(HomeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(error) => return self.refused(error),
        };
        let stat = match rustix::fs::fstat(&fd) {
            Ok(stat) => stat,
            Err(error) => return self.unreadable(error),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        self.check_attributes(fd.as_fd())?;
        let stored = u64::try_from(stat.st_size).unwrap_or(0);
        match decode(stored) {
            Stored::Virgin if stored == 0 => Ok(()),
            Stored::Virgin => self.check_short(at, fd, stored),
            Stored::Broken => self.check_broken(at, fd, stored),
            Stored::Sized(size) if size > MAX_SIZE => {
                let what = format!("its length stands for {size} bytes, more than a file can have");
                self.found(Grade::Damaged, what, Mend::not("restore it from a backup"))
            }
            Stored::Sized(_) => self.check_sized(at, fd, stored),
        }
    }

    /// Less than a header page.
    fn check_short(&mut self, at: At<'_>, fd: OwnedFd, stored: u64) -> Result<(), CheckError> {
        let store = FileBacking::new(fd);
        let mut page = [0; PAGE_LEN];
        if let Err(source) = store.read_at(0, &mut page[..in_memory(stored)]) {
            return self.refused(HomeError::Io { doing: "read of a file header", source });
        }
        if page.iter().all(|&byte| byte == 0) {
            let what = "the place of a header that was never written".to_owned();
            let mend = Mend::by("makes the file empty", self.repair, || at.cut(stored, 0));
            return self.found(Grade::Leftover, what, mend);
        }
        let (grade, what, remedy) = match self.keys.open(&page, "") {
            Ok(_) => (
                Grade::Leftover,
                "its header page is cut short, with no data behind it, so it reads as empty",
                "restore it from a backup if it had content; the next write to it mends it",
            ),
            Err(error @ HomeError::Key { .. }) => return Err(CheckError::Home(error)),
            Err(_) => (
                Grade::Damaged,
                "it is too short for a file of the home, and reads as empty",
                "if it was copied here past the mount, move it away and copy it to the mounted home; else \
                 restore it from a backup",
            ),
        };
        self.found(grade, what.to_owned(), Mend::not(remedy))
    }

    /// A header page and less than a unit behind it.
    fn check_broken(&mut self, at: At<'_>, fd: OwnedFd, stored: u64) -> Result<(), CheckError> {
        let store = FileBacking::new(fd);
        let (mut page, mut rest) = ([0; PAGE_LEN], [0; PAGE_LEN]);
        let rest = &mut rest[..in_memory(stored - HEADER)];
        let read = store.read_at(0, &mut page).and_then(|()| store.read_at(HEADER, rest));
        if let Err(source) = read {
            return self.refused(HomeError::Io { doing: "read of a file", source });
        }
        if let Err(error) = self.keys.open(&page, "") {
            return self.refused(error);
        }
        let what =
            format!("its stored length of {stored} bytes stands for no size; it reads as empty");
        let mend = if rest.iter().all(|&byte| byte == 0) {
            let how = "cuts off the zeros behind the header";
            Mend::by(how, self.repair, || at.cut(stored, HEADER))
        } else {
            Mend::not("it was cut short below the mount: restore it from a backup")
        };
        self.found(Grade::Damaged, what, mend)
    }

    /// A file with a size: its header, and what lies behind its end.
    fn check_sized(&mut self, at: At<'_>, fd: OwnedFd, stored: u64) -> Result<(), CheckError> {
        let open = |fd| {
            HomeFile::open(FileBacking::new(fd), stored, Arc::clone(&self.keys), String::new())
        };
        match open(fd).and_then(|file| file.has_remains()) {
            Ok(false) => Ok(()),
            Ok(true) => {
                let clear = || at.open(OFlags::RDWR).and_then(open)?.clear_remains();
                let mend = Mend::by("sets them to zero", self.repair, clear);
                let what = "a write that was cut short left bytes behind its end".to_owned();
                self.found(Grade::Leftover, what, mend)
            }
            Err(error) => self.refused(error),
        }
    }
}
