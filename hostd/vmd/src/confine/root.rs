//! The file tree of a vmd: its VM folder and /dev/fuse, and nothing else of the host.
//!
//! Owns the mount namespace. Landlock rules over opening and making files, not over modes, owners and times, so a
//! process with the capabilities of a file server must not be able to name other files at all. Flow:
//! [`Root::enter`] is called before the first request, in the only thread there is: it copies the two places as
//! mounts of their own, hangs them below an empty root, and lets go of the rest of the host. A descriptor of a
//! folder of the host would lead out again by `..`, so the process keeps none and takes none.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use rustix::thread::UnshareFlags;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Where the VM folder is in the root of a vmd.
pub const FOLDER: &str = "/vm";

/// Where FUSE lives, inside as outside: the served home opens it once more for each of its threads.
pub(super) const FUSE: &str = "/dev/fuse";

/// Bytes of the empty root; it holds two folders and one empty file.
const ROOT_SIZE: &str = "64k";

/// Nothing of the VM folder is a program or a device for this process.
const INERT: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// What the process can reach by names.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    refused: Option<String>,
}

impl Root {
    /// Leaves the host behind, all but the VM folder that `folder` is a descriptor of. When the kernel refuses,
    /// everything stays as it is; `confine` decides whether the process may go on so.
    ///
    /// Only the calling thread and those that it starts later are affected.
    #[must_use]
    pub fn enter(folder: OwnedFd) -> Self {
        match isolate(folder.as_fd()) {
            // The descriptor from the host is closed here.
            Ok(inside) => Self { folder: inside, refused: None },
            Err(reason) => Self { folder, refused: Some(reason) },
        }
    }

    /// The VM folder.
    #[must_use]
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    pub(super) fn in_force(&self) -> Result<Vec<String>, String> {
        match &self.refused {
            None => Ok(vec!["mount-namespace".into()]),
            Some(reason) => Err(reason.clone()),
        }
    }
}

/// Makes the new root, enters it, and returns the VM folder in it.
fn isolate(folder: BorrowedFd<'_>) -> Result<OwnedFd, String> {
    // Copies can be made of mounts of the own namespace only, so they come first. What is mounted inside the VM
    // folder comes along: without it, other files would show in its place.
    let vm = copy(folder, "", OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE)
        .map_err(cannot("copy the mount of the VM folder"))?;
    set_attributes(&vm, INERT, libc::AT_RECURSIVE).map_err(cannot("make the VM folder inert"))?;
    // A host without FUSE serves disks, and no homes.
    let fuse = match copy(CWD, FUSE, OpenTreeFlags::empty()) {
        Ok(fuse) => Some(fuse),
        Err(Errno::NOENT) => None,
        Err(e) => return Err(cannot("copy the mount of /dev/fuse")(e)),
    };
    if let Some(fuse) = &fuse {
        set_attributes(fuse, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC, 0)
            .map_err(cannot("make /dev/fuse inert"))?;
    }
    let root = empty_root().map_err(cannot("make an empty root"))?;
    own_namespace().map_err(cannot("get a mount namespace of its own"))?;
    furnish(&root, &vm, fuse.as_ref()).map_err(cannot("fill the new root"))?;
    change_root(&root).map_err(cannot("change the root"))?;
    set_attributes(&root, INERT | libc::MOUNT_ATTR_RDONLY, 0)
        .map_err(cannot("make the new root read-only"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(FOLDER, flags, Mode::empty()).map_err(cannot("open the VM folder"))
}

/// A copy of a mount that is not in any tree yet.
fn copy(at: BorrowedFd<'_>, path: &str, more: OpenTreeFlags) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(at, path, flags | more)
}

/// A small file system in memory.
fn empty_root() -> Result<OwnedFd, Errno> {
    let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&fs, "size", ROOT_SIZE)?;
    rustix::mount::fsconfig_set_string(&fs, "mode", "0755")?;
    rustix::mount::fsconfig_create(&fs)?;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Leaves the host's namespace for a copy of it, to which later mounts of the host do not spread.
fn own_namespace() -> Result<(), Errno> {
    // SAFETY: only `FILES` could take descriptors away from other threads, and it is not among the flags.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    let cut_off = || {
        let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        rustix::mount::mount_change("/", flags)
    };
    match cut_off() {
        // The root is no mount: the host runs in a chroot.
        Err(Errno::INVAL) => {
            mount_own_root()?;
            cut_off()
        }
        done => done,
    }
}

/// Makes the folder that a chroot calls its root a mount, which only such can be left for good. The mounts around
/// the chroot stay in this namespace, out of reach; homes of other VMs among them would be kept alive, so they go.
fn mount_own_root() -> Result<(), Errno> {
    let own = copy(CWD, "/", OpenTreeFlags::AT_RECURSIVE)?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").map_err(|_| last_error())?;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(place), Some("fuse.coffer")) = (fields.next(), fields.next()) {
            // A place that cannot be named keeps its home alive until this process ends: no harm but that.
            let _ = rustix::mount::unmount(unescaped(place), UnmountFlags::DETACH);
        }
    }
    place(&own, CWD, "/")?;
    rustix::process::fchdir(&own)?;
    rustix::process::chroot(".")
}

/// A path of the mount table, where blanks and backslashes stand as octal numbers (proc(5)).
fn unescaped(place: &str) -> String {
    [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")]
        .iter()
        .fold(place.to_owned(), |path, (code, sign)| path.replace(code, sign))
}

/// Mounts the new root on top of the old one, and the two places in it.
fn furnish(root: &OwnedFd, vm: &OwnedFd, fuse: Option<&OwnedFd>) -> Result<(), Errno> {
    let folder = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
    place(root, CWD, "/")?;
    rustix::fs::mkdirat(root, "vm", folder)?;
    place(vm, root.as_fd(), "vm")?;
    if let Some(fuse) = fuse {
        rustix::fs::mkdirat(root, "dev", folder)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(rustix::fs::openat(root, "dev/fuse", flags, Mode::RUSR)?);
        place(fuse, root.as_fd(), "dev/fuse")?;
    }
    Ok(())
}

fn place(mount: &OwnedFd, at: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    rustix::mount::move_mount(mount, "", at, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Makes the mount `root` the root of this namespace. The copy of the host's tree goes: it would keep the file
/// systems of the host alive, and homes of other VMs among them.
fn change_root(root: &OwnedFd) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    // The old root lands on top of the new one (pivot_root(2), "pivot_root(".", ".")").
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// Sets attributes of a mount (with `AT_RECURSIVE`, of all below it, too) and cuts it off from the host's mounts.
fn set_attributes(mount: &OwnedFd, attributes: u64, depth: libc::c_int) -> Result<(), Errno> {
    let set = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string, the structure is initialised and as long as the call is told, and both
    // outlive the call, which writes nothing.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | depth,
            &raw const set,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn cannot(what: &'static str) -> impl Fn(Errno) -> String {
    move |e| format!("cannot {what}: {e}")
}
