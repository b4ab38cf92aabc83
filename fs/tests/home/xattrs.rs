//! Extended attributes: as Linux has them above, sealed below.

use super::log;
use super::mounted::{Store, pattern};
use super::owners::as_ids;
use rustix::fs::{XattrFlags, fsetxattr, getxattr, lgetxattr, listxattr, lsetxattr};
use rustix::fs::{getxattr_query, removexattr, setxattr};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn get(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut room = vec![0; 65_536];
    let len = getxattr(path, name, &mut room[..])?;
    room.truncate(len);
    Ok(room)
}

fn set(path: &Path, name: &str, value: &[u8]) -> Result<(), Errno> {
    setxattr(path, name, value, XattrFlags::empty())
}

fn names(path: &Path) -> BTreeSet<String> {
    let mut room = vec![0; 65_536];
    let len = listxattr(path, &mut room[..]).unwrap();
    let names = room[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
}

#[test]
fn values_of_all_spaces_come_back_and_are_sealed_below() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("f"), b"x").unwrap();
    fs::create_dir(mount.at("d")).unwrap();
    let marker = b"COFFER-PLAINTEXT-MARKER".repeat(20);
    let all = ["user.comment", "trusted.overlay.opaque", "security.test", "user.\u{fc}:\n"];
    for place in ["f", "d", "."] {
        for name in all {
            set(&mount.at(place), name, &marker).unwrap();
            assert_eq!(get(&mount.at(place), name).unwrap(), marker, "{place} {name}");
        }
        assert_eq!(names(&mount.at(place)), all.map(String::from).into());
    }
    let below = names(&store.below("f"));
    assert!(below.contains("user.:ucomment") && below.contains("user.:toverlay.opaque"));
    for name in &below {
        let stored = get(&store.below("f"), name).unwrap();
        assert_eq!(stored.len(), marker.len() + 33);
        assert!(!stored.windows(8).any(|piece| piece == &marker[..8]), "{name} leaks");
    }
    mount.unmount();
    let mount = store.mount().unwrap();
    fs::rename(mount.at("f"), mount.at("d/g")).unwrap();
    fs::hard_link(mount.at("d/g"), mount.at("h")).unwrap();
    assert_eq!(get(&mount.at("h"), "user.comment").unwrap(), marker);
    assert_eq!(get(&mount.at("d"), "security.test").unwrap(), marker);
    mount.unmount();
}

#[test]
fn sizes_and_flags_are_those_of_linux() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let file = fs::File::create_new(mount.at("f")).unwrap();
    let f = mount.at("f");
    for len in [0, 1, 15, 16, 17, 255, 3000] {
        set(&f, "user.v", &pattern(len)).unwrap();
        assert_eq!(get(&f, "user.v").unwrap(), pattern(len));
        assert_eq!(getxattr_query(&f, "user.v"), Ok(len), "the length alone");
        if len > 1 {
            let mut short = vec![0; len / 2];
            assert_eq!(getxattr(&f, "user.v", &mut short[..]), Err(Errno::RANGE));
        }
    }
    assert_eq!(set(&f, "user.v", &vec![1; 65_537]), Err(Errno::TOOBIG));
    // Linux allows it, the storage has no room for it in an inode (ENOSPC) or not with the seal (E2BIG).
    let refused = set(&f, "user.v", &vec![1; 65_536]).unwrap_err();
    assert!([Errno::TOOBIG, Errno::NOSPC].contains(&refused), "{refused}");
    assert_eq!(get(&f, "user.v").unwrap(), pattern(3000), "the old value stays");
    let flagged = |name: &str, flags| setxattr(&f, name, b"new", flags);
    assert_eq!(flagged("user.v", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(flagged("user.w", XattrFlags::REPLACE), Err(Errno::NODATA));
    flagged("user.w", XattrFlags::CREATE).unwrap();
    flagged("user.v", XattrFlags::REPLACE).unwrap();
    assert_eq!(get(&f, "user.none"), Err(Errno::NODATA));
    removexattr(&f, "user.w").unwrap();
    assert_eq!(removexattr(&f, "user.w"), Err(Errno::NODATA));
    let long = |len: usize| format!("user.{}", "n".repeat(len - 5));
    set(&f, &long(253), b"x").unwrap();
    assert_eq!(set(&f, &long(254), b"x"), Err(Errno::RANGE));
    assert_eq!(set(&f, "other.name", b"x"), Err(Errno::OPNOTSUPP));
    assert_eq!(set(&f, "system.other", b"x"), Err(Errno::OPNOTSUPP));
    // A file without a name still has them.
    fs::remove_file(&f).unwrap();
    fsetxattr(&file, "user.v", b"gone", XattrFlags::empty()).unwrap();
    drop(file);
    mount.unmount();
}

#[test]
fn other_kinds_have_none_of_the_user() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    symlink("nowhere", mount.at("link")).unwrap();
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, mount.at("fifo"), kind, mode, 0).unwrap();
    for name in ["link", "fifo"] {
        let set = |attribute| lsetxattr(mount.at(name), attribute, b"x", XattrFlags::empty());
        assert_eq!(set("user.x"), Err(Errno::PERM), "{name}");
        assert_eq!(set("trusted.x"), Err(Errno::OPNOTSUPP), "{name}");
        let got = lgetxattr(mount.at(name), "trusted.x", &mut [0_u8; 8][..]);
        assert_eq!(got, Err(Errno::OPNOTSUPP), "{name}");
        assert_eq!(rustix::fs::llistxattr(mount.at(name), &mut [0_u8; 8][..]), Ok(0));
    }
    mount.unmount();
}

#[test]
fn what_was_moved_edited_or_planted_below_is_refused() {
    log::keep();
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let (f, below) = (mount.at("attribute-victim"), store.below("attribute-victim"));
    fs::write(&f, b"x").unwrap();
    set(&f, "user.a", b"yes").unwrap();
    set(&f, "user.b", b"no").unwrap();
    let sealed = get(&below, "user.:ua").unwrap();
    set(&below, "user.:ub", &sealed).unwrap();
    assert_eq!(get(&f, "user.b"), Err(Errno::IO), "the value of another name");
    for at in 0..sealed.len() {
        let mut edited = sealed.clone();
        edited[at] ^= 1;
        set(&below, "user.:ua", &edited).unwrap();
        assert_eq!(get(&f, "user.a"), Err(Errno::IO), "byte {at}");
    }
    set(&below, "user.:ua", &sealed).unwrap();
    assert_eq!(get(&f, "user.a").unwrap(), b"yes");
    set(&below, "user.foreign", b"plain").unwrap();
    set(&below, "user.:uplanted", b"plain").unwrap();
    assert_eq!(get(&f, "user.foreign"), Err(Errno::NODATA));
    assert_eq!(get(&f, "user.planted"), Err(Errno::IO));
    assert_eq!(names(&f), ["user.a", "user.b", "user.planted"].map(String::from).into());
    // As many as the log gets in a minute.
    assert!(log::count(&["ERROR", "attribute-victim", "getxattr"]) >= 20);
    mount.unmount();
}

#[test]
fn users_see_and_set_what_linux_lets_them() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("f"), b"x").unwrap();
    std::os::unix::fs::chown(mount.at("f"), Some(1234), Some(1234)).unwrap();
    set(&mount.at("f"), "trusted.secret", b"root's").unwrap();
    set(&mount.at("f"), "user.open", b"all's").unwrap();
    let f = mount.at("f");
    as_ids(1234, 1234, || {
        set(&f, "user.mine", b"1").unwrap();
        assert_eq!(get(&f, "user.open").unwrap(), b"all's");
        assert_eq!(names(&f), ["user.mine", "user.open"].map(String::from).into());
        assert_eq!(set(&f, "trusted.mine", b"1"), Err(Errno::PERM));
        assert_eq!(get(&f, "trusted.secret"), Err(Errno::NODATA));
    });
    assert_eq!(as_ids(4321, 4321, || set(&f, "user.theirs", b"1")), Err(Errno::ACCESS));
    let seen = ["trusted.secret", "user.mine", "user.open"].map(String::from);
    assert_eq!(names(&mount.at("f")), seen.into());
    mount.unmount();
}

#[test]
fn capabilities_of_a_file_fall_when_it_is_written() {
    for caching in [cryptfs::door::Caching::Shared, cryptfs::door::Caching::Exclusive] {
        let store = Store::new();
        let Some(mount) = store.mount_as(caching) else { return };
        let path = mount.at("program");
        // vfs_cap_data of version 2: net_raw, permitted and effective.
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for change in ["write", "truncate", "chown"] {
            fs::write(&path, b"program").unwrap();
            set(&path, "security.capability", &capability).unwrap();
            assert_eq!(get(&path, "security.capability").unwrap(), capability);
            match change {
                "write" => fs::write(&path, b"other").unwrap(),
                "truncate" => {
                    let file = fs::File::options().write(true).open(&path).unwrap();
                    file.set_len(1).unwrap();
                }
                _ => std::os::unix::fs::chown(&path, Some(7), None).unwrap(),
            }
            assert_eq!(get(&path, "security.capability"), Err(Errno::NODATA), "{change}");
        }
        mount.unmount();
    }
}
