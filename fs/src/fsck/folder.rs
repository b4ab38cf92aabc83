//! What lies in a VM folder beside the home: known files, remains, and what does not belong there.
//!
//! Owns the judgement on names in the VM folder, in `disks` and in `leases`; opens no sealed file and reads no payload. Flow:
//! [`check_folder`] goes through the folders with the names of the payloads that descriptors claim.

use super::{Finding, Grade, Mend, Report, shown_path};
use crate::folder::{DESCRIPTOR_SUFFIX, PAYLOAD_SUFFIX, VmFolder, disk_of};
use crate::seal::is_temporary;
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{DirEntry, File, FileType};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// End of the name of a payload that the recovery tool did not finish.
const UNFINISHED: &str = ".data.recover";

/// A name in the VM folder that must be there, and whether it is a folder.
const PARTS: [(&str, bool); 3] = [("vm.safe", false), ("home", true), ("disks", true)];

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
    /// Whether the payload of this name is what is left of a disk that was never made: no descriptor names it, and it
    /// has never held a byte.
    #[must_use]
    pub fn is_remains(&self, disks: &Path, name: &str) -> bool {
        self.complete && !self.payloads.contains(name) && holds_nothing(&disks.join(name))
    }
}

/// Whether a plain file has no data at all. Storage that cannot tell holes from data says that there is some
/// (lseek(2), `SEEK_DATA`).
fn holds_nothing(path: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()).map(File::from) else {
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
    let mut top = Place { folder: folder.path().to_owned(), shown: "", repair, report };
    top.each(|place, entry, name| match name {
        LOCK => Ok(()),
        LEASES if is_real_folder(&entry.path()) => Ok(()),
        LEASES => {
            let mend = Mend::not(
                "remove it, if no host has the home mounted; the next mount makes a new one",
            );
            place.found(entry, Grade::Damaged, "it is not a folder", mend)
        }
        _ if PARTS.iter().any(|(part, _)| *part == name) => Ok(()),
        _ => place.remains_or(entry, name, "it is no part of a VM"),
    })?;
    if is_real_folder(&folder.leases()) {
        // Another host may be writing there, so nothing is removed.
        let path = folder.leases();
        let mut leases = Place { folder: path, shown: "leases/", repair: false, report };
        leases.each(|place, entry, name| match crate::lease::is_name(name) {
            true => Ok(()),
            false => place.stray(entry, "it is no lease"),
        })?;
    }
    if !is_real_folder(&folder.disks()) {
        return Ok(());
    }
    let mut disks = Place { folder: folder.disks(), shown: "disks/", repair, report };
    disks.each(|place, entry, name| {
        if claims.payloads.contains(name) || disk_of(name).is_some() {
            return Ok(());
        }
        if name.ends_with(PAYLOAD_SUFFIX) && claims.is_remains(&place.folder, name) {
            let what = "the empty payload of a disk whose creation was cut short";
            return place.remove(entry, what);
        }
        let what = if name.ends_with(PAYLOAD_SUFFIX) {
            "it may be the payload of a disk, but no descriptor names it"
        } else if name.ends_with(DESCRIPTOR_SUFFIX) {
            "it looks like a descriptor, but no disk can have this name"
        } else {
            "it is no part of a disk"
        };
        place.remains_or(entry, name, what)
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

fn is_real_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

/// One of the folders.
struct Place<'a, 'b> {
    folder: std::path::PathBuf,
    /// What paths in the report start with.
    shown: &'static str,
    repair: bool,
    report: &'a mut Report<'b>,
}

impl Place<'_, '_> {
    fn each(
        &mut self,
        mut look: impl FnMut(&mut Self, &DirEntry, &str) -> io::Result<()>,
    ) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(&error),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.unreadable(&error),
            };
            self.report.looked_at();
            match entry.file_name().to_str() {
                Some(name) => look(self, &entry, name)?,
                None => self.stray(&entry, "its name is none of ours")?,
            }
        }
        Ok(())
    }

    /// A temporary file of ours, or a stray.
    fn remains_or(&mut self, entry: &DirEntry, name: &str, stray: &str) -> io::Result<()> {
        let what = if is_temporary(entry.file_name().as_os_str()) {
            "a replacement of a sealed file that was cut short"
        } else if !self.shown.is_empty() && is_unfinished(name) {
            "a payload that the recovery tool did not finish"
        } else {
            return self.stray(entry, stray);
        };
        if !entry.file_type().is_ok_and(|kind: FileType| kind.is_file()) {
            return self.stray(entry, "it has the name of remains of ours, but is no plain file");
        }
        self.remove(entry, what)
    }

    /// Remains that mean nothing.
    fn remove(&mut self, entry: &DirEntry, what: &str) -> io::Result<()> {
        let remove = || {
            std::fs::remove_file(entry.path())?;
            File::open(&self.folder)?.sync_all()
        };
        let mend = Mend::by("removes it", self.repair, remove);
        self.found(entry, Grade::Leftover, what, mend)
    }

    fn stray(&mut self, entry: &DirEntry, what: &str) -> io::Result<()> {
        let remedy = "look at it, and move it away if nobody needs it here";
        self.found(entry, Grade::Leftover, what, Mend::not(remedy))
    }

    fn found(&mut self, at: &DirEntry, grade: Grade, what: &str, mend: Mend) -> io::Result<()> {
        let path = format!("{}{}", self.shown, shown_path(at.file_name().as_bytes()));
        self.report.found(Finding { path, plain: None, grade, what: what.to_owned(), mend })
    }

    fn unreadable(&mut self, error: &io::Error) -> io::Result<()> {
        let path = if self.shown.is_empty() { "." } else { self.shown }.to_owned();
        let what = format!("it cannot be read: {error}");
        let mend = Mend::not("check the datastore, then check again");
        self.report.found(Finding { path, plain: None, grade: Grade::Damaged, what, mend })
    }
}

/// `.NAME.data.recover`, with the name of a disk.
fn is_unfinished(name: &str) -> bool {
    let disk = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(UNFINISHED));
    disk.is_some_and(|disk| disk.parse::<crate::name::Name>().is_ok())
}
