//! What lies in a VM folder beside the home: known files, remains, and what does not belong there.
//!
//! Owns the judgement on names in the VM folder, in `disks` and in `leases`; opens no sealed file and reads no payload. Flow:
//! [`check_folder`] goes through the folders with the names of the payloads that descriptors claim.

use super::{Finding, Grade, Mend, Report, shown_path};
use crate::folder::{DESCRIPTOR_SUFFIX, PAYLOAD_SUFFIX, VmFolder, disk_of};
use crate::seal::{is_temporary, names};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// End of the name of a payload that the recovery tool did not finish.
const UNFINISHED: &str = ".data.recover";

/// A name in the VM folder that must be there, and whether it is a folder.
const PARTS: [(&str, bool); 3] = [("vm.safe", false), ("home", true), (DISKS, true)];

/// Folder of the disks.
const DISKS: &str = "disks";

/// Held by flock; its content means nothing.
const LOCK: &str = ".lock";

/// Folder of the leases of the home, once it was mounted.
const LEASES: &str = "leases";

/// Payloads that belong to a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Their names.
    pub payloads: BTreeSet<String>,
    /// Every descriptor has said which one is its own, so that all others are nobody's.
    pub complete: bool,
}

impl Claims {
    /// Whether the payload of this name in the folder of disks is what is left of a disk that was never made: no
    /// descriptor names it, and it has never held a byte.
    #[must_use]
    pub fn is_remains(&self, disks: impl AsFd, name: &str) -> bool {
        self.complete && !self.payloads.contains(name) && holds_nothing(disks, name)
    }
}

/// Whether a plain file has no data at all. Storage that cannot tell holes from data says that there is some
/// (lseek(2), `SEEK_DATA`).
fn holds_nothing(folder: impl AsFd, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let Ok(file) = rustix::fs::openat(folder, name, flags, Mode::empty()).map(File::from) else {
        return false;
    };
    let empty = file.metadata().is_ok_and(|meta| meta.is_file() && meta.blocks() == 0);
    empty && rustix::fs::seek(&file, SeekFrom::Data(0)) == Err(Errno::NXIO)
}

/// Looks at the names in the VM folder, in its `disks` and in its `leases`. `claims` has the payloads of all descriptors.
/// With `repair`, remains that mean nothing are removed; nobody may be changing the folder meanwhile.
///
/// # Errors
/// When nobody reads the report any more.
pub fn check_folder(
    folder: &VmFolder,
    claims: &Claims,
    repair: bool,
    report: &mut Report<'_>,
) -> io::Result<()> {
    for (name, is_folder) in PARTS {
        check_part(folder.path(), name, is_folder, report)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut top = match rustix::fs::open(folder.path(), flags, Mode::empty()) {
        Ok(folder) => Place { folder, shown: "", repair, report },
        Err(error) => return unreadable("", &error.into(), report),
    };
    top.each(|place, name| match name {
        LOCK => Ok(()),
        LEASES if place.kind(name) == Some(FileType::Directory) => Ok(()),
        LEASES => {
            let mend = Mend::not(
                "remove it, if no host has the home mounted; the next mount makes a new one",
            );
            place.found(name, Grade::Damaged, "it is not a folder", mend)
        }
        _ if PARTS.iter().any(|(part, _)| *part == name) => Ok(()),
        _ => place.remains_or(name, "it is no part of a VM"),
    })?;
    // In the leases another host may be writing, so nothing is removed.
    if let Some(mut leases) = top.inner(LEASES, "leases/", false)? {
        leases.each(|place, name| match crate::lease::is_name(name) {
            true => Ok(()),
            false => place.stray(name, "it is no lease"),
        })?;
    }
    let Some(mut disks) = top.inner(DISKS, "disks/", repair)? else { return Ok(()) };
    disks.each(|place, name| {
        if claims.payloads.contains(name) || disk_of(name).is_some() {
            return Ok(());
        }
        if name.ends_with(PAYLOAD_SUFFIX) && claims.is_remains(&place.folder, name) {
            let what = "the empty payload of a disk whose creation was cut short";
            return place.remove(name, what);
        }
        let what = if name.ends_with(PAYLOAD_SUFFIX) {
            "it may be the payload of a disk, but no descriptor names it"
        } else if name.ends_with(DESCRIPTOR_SUFFIX) {
            "it looks like a descriptor, but no disk can have this name"
        } else {
            "it is no part of a disk"
        };
        place.remains_or(name, what)
    })
}

/// A part that must be there, and be what it is: a link to one could lead anywhere.
fn check_part(
    folder: &Path,
    name: &str,
    is_folder: bool,
    report: &mut Report<'_>,
) -> io::Result<()> {
    let what = match folder.join(name).symlink_metadata() {
        Ok(part) if part.is_dir() == is_folder && (part.is_dir() || part.is_file()) => {
            report.looked_at();
            return Ok(());
        }
        Ok(_) if is_folder => "it is not a folder".to_owned(),
        Ok(_) => "it is not a plain file".to_owned(),
        Err(error) => format!("it cannot be read: {error}"),
    };
    let mend = Mend::not("restore it from a backup");
    report.found(Finding { path: name.to_owned(), plain: None, grade: Grade::Damaged, what, mend })
}

/// One of the folders, by its descriptor: whoever can write to the storage could put a link in its place meanwhile, and
/// lead a repair out of it.
struct Place<'a, 'b> {
    folder: OwnedFd,
    /// What paths in the report start with.
    shown: &'static str,
    repair: bool,
    report: &'a mut Report<'b>,
}

impl<'b> Place<'_, 'b> {
    /// A folder in this one; none when it is no folder, or not there.
    fn inner(
        &mut self,
        name: &str,
        shown: &'static str,
        repair: bool,
    ) -> io::Result<Option<Place<'_, 'b>>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.folder, name, flags, Mode::empty()) {
            Ok(folder) => Ok(Some(Place { folder, shown, repair, report: self.report })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => unreadable(shown, &error.into(), self.report).map(|()| None),
        }
    }

    fn each(&mut self, mut look: impl FnMut(&mut Self, &str) -> io::Result<()>) -> io::Result<()> {
        let names = match names(&self.folder) {
            Ok(names) => names,
            Err(error) => return unreadable(self.shown, &error, self.report),
        };
        for name in names {
            let name = match name {
                Ok(name) => name,
                Err(error) => return unreadable(self.shown, &error, self.report),
            };
            self.report.looked_at();
            match name.to_str() {
                Some(name) => look(self, name)?,
                None => self.stray(&name, "its name is none of ours")?,
            }
        }
        Ok(())
    }

    fn kind(&self, name: &str) -> Option<FileType> {
        let stat = rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    }

    /// A temporary file of ours, or a stray.
    fn remains_or(&mut self, name: &str, stray: &str) -> io::Result<()> {
        let what = if is_temporary(name.as_ref()) {
            "a replacement of a sealed file that was cut short"
        } else if !self.shown.is_empty() && is_unfinished(name) {
            "a payload that the recovery tool did not finish"
        } else {
            return self.stray(name, stray);
        };
        if self.kind(name) != Some(FileType::RegularFile) {
            return self.stray(name, "it has the name of remains of ours, but is no plain file");
        }
        self.remove(name, what)
    }

    /// Remains that mean nothing.
    fn remove(&mut self, name: &str, what: &str) -> io::Result<()> {
        let folder = &self.folder;
        let remove = || {
            rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
            rustix::fs::fsync(folder)
        };
        let mend = Mend::by("removes it", self.repair, remove);
        self.found(name, Grade::Leftover, what, mend)
    }

    fn stray(&mut self, name: impl AsRef<OsStr>, what: &str) -> io::Result<()> {
        let remedy = "look at it, and move it away if nobody needs it here";
        self.found(name, Grade::Leftover, what, Mend::not(remedy))
    }

    fn found(
        &mut self,
        name: impl AsRef<OsStr>,
        grade: Grade,
        what: &str,
        mend: Mend,
    ) -> io::Result<()> {
        let path = format!("{}{}", self.shown, shown_path(name.as_ref().as_bytes()));
        self.report.found(Finding { path, plain: None, grade, what: what.to_owned(), mend })
    }
}

fn unreadable(shown: &str, error: &io::Error, report: &mut Report<'_>) -> io::Result<()> {
    let path = if shown.is_empty() { "." } else { shown }.to_owned();
    let what = format!("it cannot be read: {error}");
    let mend = Mend::not("check the datastore, then check again");
    report.found(Finding { path, plain: None, grade: Grade::Damaged, what, mend })
}

/// `.NAME.data.recover`, with the name of a disk.
fn is_unfinished(name: &str) -> bool {
    let disk = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(UNFINISHED));
    disk.is_some_and(|disk| disk.parse::<crate::name::Name>().is_ok())
}
