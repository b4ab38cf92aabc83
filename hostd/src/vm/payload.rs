//! Opening the payload of a disk, for the page cache and past it.
//!
//! Owns the flags and the refusals; must not know who gets the descriptors. Flow: a vmd cannot open a path, and the
//! flags of an open file belong to all who hold it, so a disk past the page cache has its payload opened twice.

use super::Vm;
use super::info::payload_path;
use crate::fault::Fault;
use crate::files;
use cryptfs::backing::direct_alignment;
use cryptfs::descriptor::Descriptor;
use hostd_api::error::ErrorCode;
use hostd_api::types::CacheMode;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Opens the payload of a disk.
///
/// # Errors
/// `damaged` when it is not a plain file; faults of the storage.
pub(crate) fn open_payload(
    vm: &Vm,
    descriptor: &Descriptor,
    read_only: bool,
) -> Result<File, Fault> {
    let path = payload_path(vm, descriptor);
    let opened = open(vm, &path, read_only, OFlags::NONBLOCK)?;
    let file = File::from(opened.map_err(Fault::io("open", &path))?);
    if file.metadata().map_err(Fault::io("look at", &path))?.is_file() {
        return Ok(file);
    }
    Err(Fault::refused(
        ErrorCode::Damaged,
        format!("{} is not a plain file", path.display()),
        "restore the payload from a backup",
    ))
}

/// Opens the payload of a disk once more, past the page cache, if the mode asks for it. It must have been opened by
/// [`open_payload`], which looks at what it is.
///
/// # Errors
/// `host-limit` when the file system has no direct I/O; faults of the storage.
pub(crate) fn open_direct(
    vm: &Vm,
    descriptor: &Descriptor,
    read_only: bool,
    cache: CacheMode,
) -> Result<Option<OwnedFd>, Fault> {
    if cache == CacheMode::Writeback {
        return Ok(None);
    }
    let path = payload_path(vm, descriptor);
    let file = match open(vm, &path, read_only, OFlags::NONBLOCK | OFlags::DIRECT)? {
        Ok(file) => file,
        // open(2): the file system does not have it.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Err(no_direct_io(&path)),
        Err(e) => return Err(Fault::io("open", &path)(e)),
    };
    match direct_alignment(file.as_fd()) {
        Ok(_) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Err(no_direct_io(&path)),
        Err(e) => Err(Fault::io("read past the page cache", &path)(e)),
    }
}

fn no_direct_io(path: &Path) -> Fault {
    Fault::refused(
        ErrorCode::HostLimit,
        format!("the file system of {} has no direct I/O (O_DIRECT)", path.display()),
        "attach the disk without --cache none, or move the VM to a datastore on ext4 or XFS",
    )
}

/// Opens without following links below the VM folder: who can write to the datastore must not choose which file of
/// this host is written.
fn open(
    vm: &Vm,
    path: &Path,
    read_only: bool,
    more: OFlags,
) -> Result<Result<OwnedFd, Errno>, Fault> {
    let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let folder = files::open_folder(vm.folder.path())?;
    let below = path.strip_prefix(vm.folder.path()).unwrap_or(path);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = access | OFlags::CLOEXEC | more;
    Ok(rustix::fs::openat2(&folder, below, flags, Mode::empty(), resolve))
}
