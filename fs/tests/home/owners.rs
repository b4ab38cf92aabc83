//! Owners, modes and times.

use super::mounted::{Mounted, Store};
use cryptfs::door::Caching;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Runs a shell line as another user in the mount; says whether it succeeded.
pub(crate) fn as_user(mount: &Mounted, uid: u32, gid: u32, line: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(line).current_dir(mount.path()).uid(uid).gid(gid);
    shell.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

/// Runs `work` in a thread that is another user; the ids of a thread are its own.
pub(crate) fn as_ids<T: Send>(uid: u32, gid: u32, work: impl FnOnce() -> T + Send) -> T {
    let thread = || {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(thread).join().unwrap())
}

fn mode(mount: &Mounted, name: &str) -> u32 {
    fs::metadata(mount.at(name)).unwrap().mode() & 0o7777
}

#[test]
fn new_objects_belong_to_the_caller_with_the_umask_of_the_caller() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::set_permissions(mount.path(), Permissions::from_mode(0o777)).unwrap();
    assert!(as_user(&mount, 1234, 4321, "umask 027; echo x > f; mkdir d; ln -s t s; mkfifo p"));
    for (name, expected) in [("f", 0o640), ("d", 0o750), ("p", 0o640)] {
        assert_eq!(mode(&mount, name), expected, "{name}");
    }
    for name in ["f", "d", "s", "p"] {
        let shown = fs::symlink_metadata(mount.at(name)).unwrap();
        assert_eq!((shown.uid(), shown.gid()), (1234, 4321), "{name}");
        let below = fs::symlink_metadata(store.below(name)).unwrap();
        assert_eq!((below.uid(), below.mode()), (1234, shown.mode()), "{name} below");
    }
    assert!(as_user(&mount, 1234, 4321, "umask 0; echo x > open; mkdir wide"));
    assert_eq!((mode(&mount, "open"), mode(&mount, "wide")), (0o666, 0o777));
    mount.unmount();
}

#[test]
fn permission_bits_are_enforced() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::set_permissions(mount.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(mount.at("secret"), b"x").unwrap();
    fs::set_permissions(mount.at("secret"), Permissions::from_mode(0o600)).unwrap();
    assert!(!as_user(&mount, 1234, 1234, "cat secret"));
    assert!(!as_user(&mount, 1234, 1234, "echo y > new"));
    assert!(!as_user(&mount, 1234, 1234, "chmod 666 secret"));
    fs::set_permissions(mount.at("secret"), Permissions::from_mode(0o644)).unwrap();
    assert!(as_user(&mount, 1234, 1234, "cat secret"));
    assert!(!as_user(&mount, 1234, 1234, "echo y >> secret"));
    chown(mount.at("secret"), Some(1234), Some(1234)).unwrap();
    assert!(as_user(&mount, 1234, 1234, "echo y >> secret && chmod 400 secret"));
    assert_eq!(mode(&mount, "secret"), 0o400);
    assert!(!as_user(&mount, 1234, 1234, "chown 0 secret"));
    mount.unmount();
}

#[test]
fn folders_with_the_group_bit_pass_their_group_on() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::create_dir(mount.at("team")).unwrap();
    chown(mount.at("team"), Some(0), Some(777)).unwrap();
    fs::set_permissions(mount.at("team"), Permissions::from_mode(0o2777)).unwrap();
    assert!(as_user(&mount, 1234, 1234, "umask 022; echo x > team/f; mkdir team/d"));
    let group = |name| fs::metadata(mount.at(name)).unwrap().gid();
    assert_eq!((group("team/f"), group("team/d")), (777, 777));
    assert_eq!((mode(&mount, "team/f"), mode(&mount, "team/d")), (0o644, 0o2755));
    mount.unmount();
}

#[test]
fn set_user_bits_fall_with_owner_and_content() {
    for caching in [Caching::Shared, Caching::Exclusive] {
        let store = Store::new();
        let Some(mount) = store.mount_as(caching) else { return };
        fs::set_permissions(mount.path(), Permissions::from_mode(0o777)).unwrap();
        let make = |mode| {
            fs::write(mount.at("f"), b"program").unwrap();
            chown(mount.at("f"), Some(1234), Some(1234)).unwrap();
            fs::set_permissions(mount.at("f"), Permissions::from_mode(mode)).unwrap();
            assert_eq!(super::owners::mode(&mount, "f"), mode, "as it was set");
        };
        for line in [
            "echo more >> f",
            "truncate -s 1 f",
            ": > f",
            "fallocate -p -o 0 -l 2 f",
            "fallocate -l 9000 f",
            "dd if=/dev/zero of=f bs=512 count=1 oflag=direct conv=notrunc",
        ] {
            // Without execution by the group, its bit is none of a program.
            for (before, after) in [(0o4777, 0o777), (0o6777, 0o777), (0o6767, 0o2767)] {
                make(before);
                assert!(as_user(&mount, 4321, 4321, line), "{line}");
                assert_eq!(mode(&mount, "f"), after, "{line}, {before:o}, {caching:?}");
            }
        }
        make(0o6755);
        chown(mount.at("f"), Some(99), None).unwrap();
        assert_eq!(mode(&mount, "f"), 0o755);
        // Root keeps them when it changes the content, as on a local file system.
        make(0o4755);
        fs::OpenOptions::new().write(true).open(mount.at("f")).unwrap().set_len(3).unwrap();
        assert_eq!(mode(&mount, "f"), 0o4755);
        mount.unmount();
    }
}

#[test]
fn special_nodes_are_made_and_changed_without_opening_them() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let device = rustix::fs::makedev(1, 3);
    for (name, kind) in [
        ("fifo", FileType::Fifo),
        ("socket", FileType::Socket),
        ("null", FileType::CharacterDevice),
    ] {
        let number = if kind == FileType::CharacterDevice { device } else { 0 };
        let path = mount.at(name);
        rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), number).unwrap();
        let shown = fs::symlink_metadata(&path).unwrap();
        assert_eq!(FileType::from_raw_mode(shown.mode()), kind);
        assert_eq!(shown.rdev(), number);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(mode(&mount, name), 0o644);
        chown(&path, Some(7), Some(8)).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), 7);
    }
    mount.unmount();
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("f"), b"x").unwrap();
    for seconds in [1_000_000_000, 0, -5] {
        let times = Timestamps {
            last_access: Timespec { tv_sec: seconds, tv_nsec: 123_456_789 },
            last_modification: Timespec { tv_sec: seconds + 1, tv_nsec: 987_654_321 },
        };
        rustix::fs::utimensat(CWD, mount.at("f"), &times, AtFlags::empty()).unwrap();
        let shown = fs::metadata(mount.at("f")).unwrap();
        assert_eq!((shown.atime(), shown.atime_nsec()), (seconds, 123_456_789));
        assert_eq!((shown.mtime(), shown.mtime_nsec()), (seconds + 1, 987_654_321));
    }
    mount.unmount();
}
