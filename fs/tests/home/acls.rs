//! Access control lists: kept by the storage, checked by the kernel, passed on to new objects.

use super::mounted::{Mounted, Store};
use super::owners::{as_ids, as_user};
use cryptfs::door::Caching;
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use rustix::io::Errno;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// An entry of a list: tag, permissions, user or group (acl(5)).
type Entry = (u16, u16, u32);

const OWNER: u16 = 1;
const USER: u16 = 2;
const GROUP: u16 = 4;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
const NOBODY: u32 = u32::MAX;

/// A list in the form of the kernel (`linux/posix_acl_xattr.h`), version 2.
fn list(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// The owner everything, the user 1234 `theirs`, all others nothing.
fn with_user(theirs: u16) -> Vec<u8> {
    list(&[
        (OWNER, 7, NOBODY),
        (USER, theirs, 1234),
        (GROUP, 0, NOBODY),
        (MASK, 7, NOBODY),
        (OTHERS, 0, NOBODY),
    ])
}

fn set(mount: &Mounted, name: &str, kind: &str, acl: &[u8]) {
    setxattr(mount.at(name), kind, acl, XattrFlags::empty()).unwrap();
}

fn get(mount: &Mounted, name: &str, kind: &str) -> Result<Vec<u8>, Errno> {
    let mut room = [0_u8; 512];
    let len = getxattr(mount.at(name), kind, &mut room[..])?;
    Ok(room[..len].to_vec())
}

fn mode(mount: &Mounted, name: &str) -> u32 {
    fs::metadata(mount.at(name)).unwrap().mode() & 0o7777
}

#[test]
fn the_kernel_enforces_a_list() {
    for caching in [Caching::Shared, Caching::Exclusive] {
        let store = Store::new();
        let Some(mount) = store.mount_as(caching) else { return };
        fs::set_permissions(mount.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(mount.at("f"), b"x").unwrap();
        fs::set_permissions(mount.at("f"), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(get(&mount, "f", ACCESS), Err(Errno::NODATA));
        assert!(!as_user(&mount, 1234, 1234, "cat f"));
        set(&mount, "f", ACCESS, &with_user(4));
        assert!(as_user(&mount, 1234, 1234, "cat f"));
        assert!(!as_user(&mount, 1234, 1234, "echo y >> f"));
        assert!(!as_user(&mount, 4321, 4321, "cat f"));
        set(&mount, "f", ACCESS, &with_user(6));
        assert!(as_user(&mount, 1234, 1234, "echo y >> f"));
        removexattr(mount.at("f"), ACCESS).unwrap();
        assert!(!as_user(&mount, 1234, 1234, "cat f"));
        assert_eq!(get(&mount, "f", ACCESS), Err(Errno::NODATA));
        mount.unmount();
    }
}

#[test]
fn list_and_mode_follow_each_other() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("f"), b"x").unwrap();
    fs::set_permissions(mount.at("f"), Permissions::from_mode(0o644)).unwrap();
    set(&mount, "f", ACCESS, &with_user(6));
    // The group of the mode is the mask of the list.
    assert_eq!(mode(&mount, "f"), 0o770);
    fs::set_permissions(mount.at("f"), Permissions::from_mode(0o740)).unwrap();
    let masked = list(&[
        (OWNER, 7, NOBODY),
        (USER, 6, 1234),
        (GROUP, 0, NOBODY),
        (MASK, 4, NOBODY),
        (OTHERS, 0, NOBODY),
    ]);
    assert_eq!(get(&mount, "f", ACCESS).unwrap(), masked);
    assert_eq!(get(&mount, "f", DEFAULT), Err(Errno::NODATA));
    mount.unmount();
    let mount = store.mount().unwrap();
    assert_eq!((mode(&mount, "f"), get(&mount, "f", ACCESS).unwrap()), (0o740, masked));
    // A list that says no more than the mode becomes the mode.
    set(&mount, "f", ACCESS, &list(&[(OWNER, 6, NOBODY), (GROUP, 4, NOBODY), (OTHERS, 4, NOBODY)]));
    assert_eq!((mode(&mount, "f"), get(&mount, "f", ACCESS)), (0o644, Err(Errno::NODATA)));
    mount.unmount();
}

#[test]
fn new_objects_get_the_list_of_their_folder_instead_of_the_umask() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::create_dir(mount.at("team")).unwrap();
    fs::set_permissions(mount.at("team"), Permissions::from_mode(0o777)).unwrap();
    assert!(as_user(&mount, 99, 99, "umask 077; echo x > team/before"));
    assert_eq!(mode(&mount, "team/before"), 0o600);
    set(&mount, "team", DEFAULT, &with_user(6));
    let line = "umask 077; echo x > team/f; mkdir team/d; mkfifo team/p; ln -s t team/s; touch team/d/deep";
    assert!(as_user(&mount, 99, 99, line));
    assert_eq!(get(&mount, "team/d", DEFAULT).unwrap(), with_user(6), "folders pass it on");
    // Of 0666 and 0777, as programs asked, the list leaves its own: nothing to others, all to the mask.
    assert_eq!((mode(&mount, "team/f"), mode(&mount, "team/d")), (0o660, 0o770));
    assert_eq!((mode(&mount, "team/p"), mode(&mount, "team/d/deep")), (0o660, 0o660));
    for name in ["team/f", "team/d/deep"] {
        assert_eq!(fs::metadata(mount.at(name)).unwrap().uid(), 99);
        let acl = get(&mount, name, ACCESS).unwrap();
        assert!(acl.windows(8).any(|entry| entry == &list(&[(USER, 6, 1234)])[4..]), "{name}");
    }
    assert!(as_user(&mount, 1234, 1234, "echo y >> team/f"));
    assert!(!as_user(&mount, 4321, 4321, "cat team/f"));
    removexattr(mount.at("team"), DEFAULT).unwrap();
    assert!(as_user(&mount, 99, 99, "umask 077; echo x > team/after"));
    assert_eq!(mode(&mount, "team/after"), 0o600);
    mount.unmount();
}

#[test]
fn a_list_of_a_foreign_group_takes_the_group_bit() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::set_permissions(mount.path(), Permissions::from_mode(0o777)).unwrap();
    let set_group = |group| {
        fs::write(mount.at("f"), b"x").unwrap();
        chown(mount.at("f"), Some(1234), Some(group)).unwrap();
        fs::set_permissions(mount.at("f"), Permissions::from_mode(0o2755)).unwrap();
    };
    for (group, expected) in [(777, 0), (1234, 0o2000)] {
        set_group(group);
        let acl = with_user(4);
        as_ids(1234, 1234, || set(&mount, "f", ACCESS, &acl));
        assert_eq!(mode(&mount, "f") & 0o2000, expected, "group {group}");
    }
    set_group(777);
    set(&mount, "f", ACCESS, &with_user(4));
    assert_eq!(mode(&mount, "f") & 0o2000, 0o2000, "root may");
    mount.unmount();
}
