//! Mounts of VM homes: making, ending and finding them.
//!
//! Owns mount(2) of FUSE file systems, `/proc/self/mountinfo`, and the search for processes that keep a mount
//! busy. Must never look *into* a mount: its vmd may be dead or not serving yet, and the call would hang.
//! `service` mounts before it passes /dev/fuse to a vmd; the start clears what dead daemons left.

use crate::fault::Fault;
use hostd_api::error::ErrorCode;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The character device of FUSE.
const DEVICE: &str = "/dev/fuse";

/// Most processes looked at when a mount is busy, and descriptors of each: bounds the time of an error
/// message on a host with very many.
const MAX_PROCESSES: usize = 16_384;
const MAX_DESCRIPTORS: usize = 4_096;

/// Most holders named in a message.
const MAX_HOLDERS: usize = 8;

/// Type of our mounts in the mount table; the part after the dot tells them from those of other programs.
const FS_TYPE: &str = "fuse.coffer";

/// Mounts the home of a VM at `target` (a folder) and returns the /dev/fuse descriptor that serves it.
///
/// # Errors
/// A refusal with code `host-limit` when FUSE is not there or mounting is not allowed.
pub fn mount_home(vm: &str, target: &Path) -> Result<OwnedFd, Fault> {
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(no_device)?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    );
    let options = CString::new(options).map_err(|e| Fault::Bug(e.to_string()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let source = format!("coffer:{vm}");
    match rustix::mount::mount(source, target, FS_TYPE, flags, options.as_c_str()) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => Err(Fault::refused(
            ErrorCode::HostLimit,
            format!("this process may not mount at {}", target.display()),
            "run hostd as root, with CAP_SYS_ADMIN",
        )),
        Err(Errno::NODEV) => Err(no_device(Errno::NODEV)),
        Err(e) => Err(Fault::io("mount at", target)(e)),
    }
}

fn no_device(e: Errno) -> Fault {
    Fault::refused(
        ErrorCode::HostLimit,
        format!("FUSE cannot be used, {DEVICE}: {e}"),
        "run `modprobe fuse`, and let hostd open the device",
    )
}

/// Unmounts `target`; refused while somebody uses it.
///
/// # Errors
/// `in-use` naming the processes that hold it; other faults of the kernel.
pub fn unmount(vm: &str, target: &Path) -> Result<(), Fault> {
    match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
        // Not mounted any more (an administrator was faster): what was asked for is reached.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(Errno::BUSY) => Err(Fault::refused(
            ErrorCode::InUse,
            format!("the home of VM {vm} is in use{}", named(&holders(target))),
            "end them, or add --force",
        )),
        Err(e) => Err(Fault::io("unmount", target)(e)),
    }
}

/// Takes a mount away from the tree at once; users of it keep what they have open until its server ends.
///
/// # Errors
/// Faults of the kernel.
pub fn detach(target: &Path) -> Result<(), Fault> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(e) => Err(Fault::io("unmount", target)(e)),
    }
}

/// Our mounts below `root`, as the kernel has them now.
///
/// # Errors
/// [`Fault::Io`] when the table cannot be read.
pub fn below(root: &Path) -> Result<Vec<PathBuf>, Fault> {
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(table).map_err(Fault::io("read", table))?;
    let ours = parse(&text).into_iter().filter(|m| m.fs_type == FS_TYPE.as_bytes());
    Ok(ours.map(|m| m.target).filter(|t| t.starts_with(root)).collect())
}

/// One line of the mount table.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    target: PathBuf,
    fs_type: Vec<u8>,
}

/// Parses mountinfo (proc(5)): mount point is field 5, the type follows a lone dash. Lines that are not so
/// are left out.
fn parse(text: &[u8]) -> Vec<Entry> {
    let entry = |line: &[u8]| {
        let mut fields = line.split(|b| *b == b' ');
        let target = unescape(fields.nth(4)?);
        let fs_type = fields.skip_while(|f| *f != b"-").nth(1)?.to_vec();
        Some(Entry { target: PathBuf::from(OsString::from_vec(target)), fs_type })
    };
    text.split(|b| *b == b'\n').filter_map(entry).collect()
}

/// Undoes the octal escapes of blank, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| *first == b'\\');
        let value = code
            .and_then(|c| std::str::from_utf8(c).ok())
            .and_then(|c| u8::from_str_radix(c, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    bytes
}

/// Processes whose working folder, root, program or open files lie below `target`, as `name (pid)`. Reads
/// links only, which never waits for the file system behind them.
fn holders(target: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let processes = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.as_bytes().iter().all(u8::is_ascii_digit)));
    let holding = processes.take(MAX_PROCESSES).filter(|process| holds(process, target));
    holding.take(MAX_HOLDERS).map(|process| describe(&process)).collect()
}

fn holds(process: &Path, target: &Path) -> bool {
    let inside = |link: PathBuf| std::fs::read_link(link).is_ok_and(|to| to.starts_with(target));
    ["cwd", "root", "exe"].iter().any(|link| inside(process.join(link)))
        || std::fs::read_dir(process.join("fd"))
            .is_ok_and(|fds| fds.flatten().take(MAX_DESCRIPTORS).any(|fd| inside(fd.path())))
}

fn describe(process: &Path) -> String {
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    let pid = process.file_name().unwrap_or_default().to_string_lossy();
    format!("{} ({pid})", name.trim())
}

fn named(holders: &[String]) -> String {
    if holders.is_empty() { String::new() } else { format!(" by {}", holders.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_parsed_with_escapes_and_optional_fields() {
        let text =
            b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
            90 1 0:40 / /run/coffer/vm/a\\040b/home rw,nosuid - fuse.coffer coffer:a rw\n\
            91 1 0:41 / /x shared:7 master:2 rw - tmpfs t rw\n\
            short line\n";
        let entries = parse(text);
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].fs_type, b"ext3");
        assert_eq!(entries[1].target, Path::new("/run/coffer/vm/a b/home"));
        assert_eq!(entries[1].fs_type, b"fuse.coffer");
        assert_eq!(unescape(b"a\\134\\9x\\"), b"a\\\\9x\\");
    }

    #[test]
    fn holders_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let _open = std::fs::File::create(dir.path().join("file")).unwrap();
        let found = holders(dir.path());
        let pid = format!("({})", std::process::id());
        assert!(found.iter().any(|h| h.ends_with(&pid)), "{found:?}");
        assert!(holders(Path::new("/nonexistent-folder")).is_empty());
    }
}
