//! The file tree that the confined binary sees: its VM folder and /dev/fuse.

use super::process::{Host, Process, ok};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: a mount namespace needs root\n"),
        );
    }
    root
}

/// Mount points of a vmd with their options and file systems.
fn mounts(vmd: &Process) -> Vec<(String, String, String)> {
    let text = fs::read_to_string(vmd.proc("mountinfo")).unwrap();
    let mount = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let kind = fields.iter().skip_while(|field| **field != "-").nth(1).unwrap();
        (fields[4].to_owned(), fields[5].to_owned(), (*kind).to_owned())
    };
    text.lines().map(mount).collect()
}

fn options<'a>(mounts: &'a [(String, String, String)], at: &str) -> Vec<&'a str> {
    mounts.iter().find(|mount| mount.0 == at).unwrap().1.split(',').collect()
}

#[test]
fn only_three_mounts_are_there() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    fs::write(host.folder().join("vm.safe"), "safe").unwrap();
    let vmd = host.start();
    let mounts = mounts(&vmd);
    let mut places: Vec<_> = mounts.iter().map(|mount| mount.0.as_str()).collect();
    places.sort_unstable();
    if Path::new("/dev/fuse").exists() {
        assert_eq!(places, ["/", "/dev/fuse", "/vm"]);
    } else {
        assert_eq!(places, ["/", "/vm"]);
    }
    for (at, set) in [
        ("/", &["ro", "nosuid", "nodev", "noexec"][..]),
        ("/vm", &["rw", "nosuid", "nodev", "noexec"]),
    ] {
        let options = options(&mounts, at);
        assert!(set.iter().all(|wanted| options.contains(wanted)), "{at}: {options:?}");
    }
    // What it sees there, by the root that the kernel gives it.
    let inside = vmd.proc("root");
    let names = |at: &Path| -> Vec<_> {
        let mut names: Vec<_> =
            fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        names
    };
    assert!(names(&inside).iter().all(|name| name == "vm" || name == "dev"));
    assert_eq!(names(&inside.join("vm")), [".lock", "vm.safe"]);
    assert_eq!(fs::read_link(vmd.proc("cwd")).unwrap(), PathBuf::from("/"));
}

#[test]
fn no_descriptor_is_a_folder_of_the_host() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let vmd = host.start();
    let disk = host.disk("root", 4096);
    ok(&vmd.attach(&disk, false));
    let device = fs::metadata(vmd.proc("root")).unwrap();
    let folder = fs::metadata(host.folder()).unwrap();
    let mut folders = 0;
    for entry in fs::read_dir(vmd.proc("fd")).unwrap() {
        let entry = entry.unwrap().path();
        // One that was closed meanwhile is no way out.
        let Ok(found) = fs::metadata(&entry) else { continue };
        if found.is_dir() {
            folders += 1;
            let info = entry.strip_prefix(vmd.proc("fd")).unwrap();
            let info = fs::read_to_string(vmd.proc("fdinfo").join(info)).unwrap();
            let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap().trim();
            let table = fs::read_to_string(vmd.proc("mountinfo")).unwrap();
            assert!(table.lines().any(|line| line.split(' ').next() == Some(mount)), "{entry:?}");
        }
    }
    assert_eq!(folders, 1);
    use std::os::unix::fs::MetadataExt;
    assert_ne!((device.dev(), device.ino()), (folder.dev(), folder.ino()));
}

/// A bind mount of a folder on itself that can be made read-only, as a datastore may be.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn new(path: PathBuf) -> Self {
        mount_bind(&path, &path).unwrap();
        let mounted = Self(path);
        mount_remount(&mounted.0, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
        mounted
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_read_only_datastore_stays_read_only() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let disk = host.disk("root", 4096);
    let _mounted = ReadOnly::new(host.folder());
    let vmd = host.spawn();
    let lock = File::open(host.folder().join(".lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    super::process::report(vmd.set_up_with(&host, &lock));
    ok(&vmd.attach(&disk, true));
    assert!(options(&mounts(&vmd), "/vm").contains(&"ro"));
    let written = fs::write(vmd.proc("root/vm/file"), "data").unwrap_err();
    assert_eq!(Errno::from_io_error(&written), Some(Errno::ROFS));
}

#[test]
fn without_the_right_to_mount_it_refuses() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let vmd = host.spawn_with(&["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]);
    let lock = File::open(host.folder().join(".lock")).unwrap();
    match vmd.set_up_with(&host, &lock) {
        hostd_api::link::Response::Failed(failure) => {
            assert_eq!(failure.code, hostd_api::error::ErrorCode::HostLimit);
            assert!(failure.message.contains("mount-namespace"), "{}", failure.message);
        }
        other => panic!("{other:?}"),
    }
}
