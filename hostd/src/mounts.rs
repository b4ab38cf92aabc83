//! Mounts of VM homes: making, ending and finding them.
//!
//! Owns mount(2) of FUSE file systems and `/proc/self/mountinfo`; `busy` finds the processes that keep a mount busy,
//! `tune` has the kernel's limits of one. Must never look *into* a mount: its vmd may be dead or not serving yet, and
//! the call would hang. `service` mounts before it passes /dev/fuse to a vmd; the start clears what dead daemons left.

mod busy;
mod tune;

pub use tune::tune;

use crate::fault::Fault;
use hostd_api::error::ErrorCode;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::{CString, OsString};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::Builder;
use std::time::Duration;

/// The character device of FUSE.
const DEVICE: &str = "/dev/fuse";

/// Type of our mounts in the mount table; the part after the dot tells them from those of other programs.
const FS_TYPE: &str = "fuse.coffer";

/// Where the kernel shows the connections of FUSE mounts, when that is mounted (systemd does).
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// How long a forced unmount waits for what the kernel has not written yet. Storage that is slower than this is what
/// one forces an unmount for.
const FLUSH_WAIT: Duration = Duration::from_secs(10);

/// Stack of a thread that makes a few calls: the process locks its memory.
const STACK: usize = 256 * 1024;

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
            format!("the home of VM {vm} is in use{}", busy::named(&busy::holders(target))),
            "end them, add --lazy to let them end while it is out of the way, or --force to cut them off",
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

/// Has the kernel answer every request to the mount at `target` with an error from now on, and forget what it had not
/// written yet: its server ends, whatever it waits for. `false` when nothing is mounted there, or this host has no
/// file system with the switch.
#[must_use]
pub fn abort(target: &Path) -> bool {
    let Ok(Some(device)) = device(target) else { return false };
    // The kernel names a connection by the device number of its mount, whose major is 0 (Linux,
    // Documentation/filesystems/fuse.rst, "Control filesystem").
    let switch = Path::new(CONNECTIONS).join(device.minor.to_string()).join("abort");
    let opened = OpenOptions::new().write(true).open(&switch);
    let Ok(mut file) = opened.inspect_err(|e| tracing::debug!("{}: {e}", switch.display())) else {
        return false;
    };
    // Numbers are used again after an unmount. An open switch stays that of its connection, so it is the right one when
    // the mount is there still.
    let same = self::device(target).is_ok_and(|now| now == Some(device));
    same && file.write_all(b"1").is_ok()
}

/// Has the kernel hand everything that it has not written yet to the server of a mount, for at most [`FLUSH_WAIT`].
/// A server that hangs costs a thread, which ends with the mount.
pub fn flush(target: &Path) {
    let (done, wait) = mpsc::channel();
    let copy = target.to_owned();
    let thread = Builder::new().name("flush-home".into()).stack_size(STACK).spawn(move || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let flushed = rustix::fs::open(&copy, flags, Mode::empty()).and_then(rustix::fs::syncfs);
        // Nobody waits any more when it took too long.
        let _ = done.send(flushed);
    });
    match thread.map(|_| wait.recv_timeout(FLUSH_WAIT)) {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(e))) => tracing::warn!("{} could not be flushed: {e}", target.display()),
        Ok(Err(_)) => {
            let seconds = FLUSH_WAIT.as_secs();
            tracing::warn!("{} was not flushed within {seconds} s", target.display());
        }
        Err(e) => tracing::warn!("{} could not be flushed: {e}", target.display()),
    }
}

/// Number of the device that the kernel made for the mount at `target`; the last one, where several lie over each
/// other.
///
/// # Errors
/// [`Fault::Io`] when the table cannot be read.
pub fn device(target: &Path) -> Result<Option<Device>, Fault> {
    Ok(ours()?.into_iter().rev().find(|m| m.target == target).and_then(|m| m.device))
}

/// Our mounts below `root`, as the kernel has them now.
///
/// # Errors
/// [`Fault::Io`] when the table cannot be read.
pub fn below(root: &Path) -> Result<Vec<PathBuf>, Fault> {
    Ok(ours()?.into_iter().map(|m| m.target).filter(|t| t.starts_with(root)).collect())
}

fn ours() -> Result<Vec<Entry>, Fault> {
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(table).map_err(Fault::io("read", table))?;
    Ok(parse(&text).into_iter().filter(|m| m.fs_type == FS_TYPE.as_bytes()).collect())
}

/// Number of the device of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    major: u32,
    minor: u32,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Device {
    /// Of `major:minor`.
    fn parse(text: &[u8]) -> Option<Self> {
        let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

/// One line of the mount table.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    device: Option<Device>,
    target: PathBuf,
    fs_type: Vec<u8>,
}

/// Parses mountinfo (proc(5)): the device is field 3, the mount point field 5, the type follows a
/// lone dash. Lines that are not so are left out.
fn parse(text: &[u8]) -> Vec<Entry> {
    let entry = |line: &[u8]| {
        let mut fields = line.split(|b| *b == b' ');
        let device = Device::parse(fields.nth(2)?);
        let target = unescape(fields.nth(1)?);
        let fs_type = fields.skip_while(|f| *f != b"-").nth(1)?.to_vec();
        Some(Entry { device, target: PathBuf::from(OsString::from_vec(target)), fs_type })
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
        assert_eq!(entries[0].device.unwrap().to_string(), "98:0");
        assert_eq!(entries[1].device, Some(Device { major: 0, minor: 40 }));
        assert_eq!(entries[1].target, Path::new("/run/coffer/vm/a b/home"));
        assert_eq!(entries[1].fs_type, b"fuse.coffer");
        assert_eq!(unescape(b"a\\134\\9x\\"), b"a\\\\9x\\");
    }
}
