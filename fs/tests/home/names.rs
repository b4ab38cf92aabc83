//! Names: the tree behaves as one of a local file system.

use super::mounted::{Store, pattern};
use cryptfs::safe::Names;
use rustix::fs::{CWD, RenameFlags};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};

#[test]
fn renames_keep_content_and_inode() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("a"), pattern(5000)).unwrap();
    fs::create_dir(mount.at("d")).unwrap();
    let inode = fs::metadata(mount.at("a")).unwrap().ino();
    fs::rename(mount.at("a"), mount.at("d/b")).unwrap();
    assert_eq!(fs::metadata(mount.at("a")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::metadata(mount.at("d/b")).unwrap().ino(), inode);
    assert!(fs::read(mount.at("d/b")).unwrap() == pattern(5000));
    fs::rename(mount.at("d"), mount.at("e")).unwrap();
    assert!(fs::read(mount.at("e/b")).unwrap() == pattern(5000));
    fs::write(mount.at("old"), b"old").unwrap();
    fs::rename(mount.at("e/b"), mount.at("old")).unwrap();
    assert!(fs::read(mount.at("old")).unwrap() == pattern(5000));
    assert_eq!(fs::metadata(store.below("old")).unwrap().ino(), inode);
    mount.unmount();
}

#[test]
fn a_folder_in_use_is_not_replaced() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::create_dir(mount.at("d1")).unwrap();
    fs::create_dir(mount.at("d2")).unwrap();
    fs::write(mount.at("d1/f"), b"x").unwrap();
    let refused = fs::rename(mount.at("d2"), mount.at("d1")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DirectoryNotEmpty);
    let refused = fs::remove_dir(mount.at("d1")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DirectoryNotEmpty);
    assert_eq!(fs::read(mount.at("d1/f")).unwrap(), b"x");
    mount.unmount();
}

#[test]
fn rename_flags_reach_the_storage() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("a"), b"A").unwrap();
    fs::write(mount.at("b"), b"B").unwrap();
    let rename = |from: &str, to: &str, flags| {
        rustix::fs::renameat_with(CWD, mount.at(from), CWD, mount.at(to), flags)
    };
    let refused = rename("a", "b", RenameFlags::NOREPLACE);
    assert_eq!(refused, Err(rustix::io::Errno::EXIST));
    fs::write(mount.at("gone"), b"G").unwrap();
    rename("gone", "here", RenameFlags::WHITEOUT).unwrap();
    let whiteout = fs::symlink_metadata(mount.at("gone")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
    assert_eq!(fs::read(mount.at("here")).unwrap(), b"G");
    rename("a", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(mount.at("a")).unwrap(), b"B");
    assert_eq!(fs::read(mount.at("b")).unwrap(), b"A");
    fs::OpenOptions::new().append(true).open(mount.at("b")).unwrap();
    mount.unmount();
}

#[test]
fn hard_links_are_one_file() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("one"), b"content").unwrap();
    fs::hard_link(mount.at("one"), mount.at("two")).unwrap();
    let (one, two) =
        (fs::metadata(mount.at("one")).unwrap(), fs::metadata(mount.at("two")).unwrap());
    assert_eq!((one.ino(), one.nlink(), two.len()), (two.ino(), 2, 7));
    fs::write(mount.at("one"), pattern(9000)).unwrap();
    assert!(fs::read(mount.at("two")).unwrap() == pattern(9000));
    fs::remove_file(mount.at("one")).unwrap();
    fs::write(mount.at("one"), b"new file").unwrap();
    // The last known name of the node now belongs to another file.
    let second = fs::OpenOptions::new().append(true).open(mount.at("two")).unwrap();
    assert_eq!((second.metadata().unwrap().len(), second.metadata().unwrap().nlink()), (9000, 1));
    assert_eq!(fs::read(mount.at("one")).unwrap(), b"new file");
    drop(second);
    mount.unmount();
}

#[test]
fn symbolic_links_keep_their_target() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let any_bytes = |len: usize| -> Vec<u8> {
        (0..len).map(|at| u8::try_from(at % 255).unwrap() + 1).collect()
    };
    let targets = [b"target".to_vec(), b"/etc/../nowhere".to_vec(), b"x/".repeat(1400)];
    // The longest that fits in 4095 bytes, and how the storage has it.
    let (longest, stored): (usize, fn(usize) -> usize) = match store.is_encrypted() {
        false => (4054, |len| 41 + len),
        true => (3049, |len| 8 + (4 * (16 + len)).div_ceil(3)),
    };
    let lengths = [255, 256, 1000, longest - 100].map(any_bytes);
    for (number, target) in targets.iter().chain(&lengths).enumerate() {
        let (name, target) = (format!("s{number}"), OsStr::from_bytes(target));
        symlink(target, mount.at(&name)).unwrap();
        assert_eq!(fs::read_link(mount.at(&name)).unwrap(), target);
        let shown = fs::symlink_metadata(mount.at(&name)).unwrap();
        assert_eq!(shown.len(), target.len() as u64);
        let below = fs::read_link(store.below(&name)).unwrap();
        assert_eq!(below.as_os_str().len(), stored(target.len()));
    }
    let too_long =
        symlink(OsStr::from_bytes(&any_bytes(longest + 1)), mount.at("long")).unwrap_err();
    assert_eq!(too_long.kind(), std::io::ErrorKind::InvalidFilename);
    fs::write(mount.at("target"), b"through").unwrap();
    assert_eq!(fs::read(mount.at("s0")).unwrap(), b"through");
    mount.unmount();
    let mount = store.mount().unwrap();
    assert_eq!(fs::read(mount.at("s0")).unwrap(), b"through");
    mount.unmount();
}

#[test]
fn names_are_bytes_up_to_their_limit() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let mut made = HashSet::new();
    for len in 1..=store.longest() {
        made.insert(vec![b'n'; len]);
    }
    for name in
        [&b"invalid \xff\xfe"[..], b"new\nline", "umlaut \u{e4} \u{1f512}".as_bytes(), b" ", b"..."]
    {
        made.insert(name.to_vec());
    }
    for name in &made {
        fs::write(mount.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let listed: HashSet<Vec<u8>> = fs::read_dir(mount.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
        .collect();
    assert_eq!(listed, made);
    for name in &made {
        assert_eq!(fs::read(mount.path().join(OsStr::from_bytes(name))).unwrap(), *name);
    }
    for over in [1, 2, 100] {
        let long = mount.path().join("n".repeat(store.longest() + over));
        let refusals = [
            fs::write(&long, b"").unwrap_err(),
            fs::create_dir(&long).unwrap_err(),
            symlink("target", &long).unwrap_err(),
            fs::metadata(&long).unwrap_err(),
            fs::remove_file(&long).unwrap_err(),
            fs::hard_link(mount.at("n"), &long).unwrap_err(),
            fs::rename(mount.at("n"), &long).unwrap_err(),
        ];
        for refused in refusals {
            assert_eq!(refused.kind(), ErrorKind::InvalidFilename, "{over}");
        }
        assert_eq!(fs::read(mount.at("n")).unwrap(), b"n", "the source is as it was");
    }
    let mut old = "n".to_owned();
    for len in 2..=store.longest() {
        let new = "r".repeat(len);
        fs::rename(mount.at(&old), mount.at(&new)).unwrap();
        old = new;
    }
    assert_eq!(fs::read(mount.at(&old)).unwrap(), b"n");
    for name in made.iter().filter(|name| name[..] != *b"n") {
        fs::remove_file(mount.path().join(OsStr::from_bytes(name))).unwrap();
    }
    let left: Vec<_> =
        fs::read_dir(mount.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [old.as_str()]);
    mount.unmount();
}

#[test]
fn large_folders_are_listed_whole() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::create_dir(mount.at("many")).unwrap();
    for number in 0..2000 {
        fs::write(mount.at(&format!("many/file-{number:05}")), b"").unwrap();
    }
    for _ in 0..2 {
        let mut names: Vec<_> = fs::read_dir(mount.at("many"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert!(entry.file_type().unwrap().is_file());
                assert_eq!(entry.metadata().unwrap().len(), 0);
                entry.file_name().into_string().unwrap()
            })
            .collect();
        names.sort();
        let expected: Vec<_> = (0..2000).map(|number| format!("file-{number:05}")).collect();
        assert_eq!(names, expected);
    }
    // Removing while listing must not skip any.
    for entry in fs::read_dir(mount.at("many")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::remove_dir(mount.at("many")).unwrap();
    mount.unmount();
}

/// The policy cannot change; were a home mounted by the wrong one all the same, nothing is lost.
#[test]
fn a_mount_of_the_other_policy_harms_nothing() {
    let (own, other) = match crate::NAMES {
        Names::Plain => (Names::Plain, Names::Encrypted),
        Names::Encrypted => (Names::Encrypted, Names::Plain),
    };
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("f"), pattern(5000)).unwrap();
    mount.unmount();
    let store = store.with(other);
    let mount = store.mount().unwrap();
    assert!(!mount.at("f").exists());
    fs::write(mount.at("theirs"), b"x").unwrap();
    mount.unmount();
    let store = store.with(own);
    let mount = store.mount().unwrap();
    let listed: HashSet<_> =
        fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(listed.contains(OsStr::new("f")));
    assert_eq!(listed.len(), if store.is_encrypted() { 1 } else { 2 });
    assert!(fs::read(mount.at("f")).unwrap() == pattern(5000));
    mount.unmount();
}

#[test]
fn folders_can_be_synced() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("f"), b"x").unwrap();
    fs::File::open(mount.path()).unwrap().sync_all().unwrap();
    assert!(fs::read_dir(mount.at("f")).is_err());
    mount.unmount();
}
