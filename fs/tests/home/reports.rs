//! Faults that users of other encrypting file systems have reported, each with the shortest way to it. None may
//! come up here.

use super::data::{lock_range, map};
use super::mounted::{Store, pattern};
use super::owners::as_ids;
use cryptfs::door::Caching;
use rustix::fs::{SeekFrom, seek};
use rustix::thread::set_thread_groups;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

#[test]
fn a_failed_truncation_leaves_the_tail_readable() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("f"), b"0123456789").unwrap();
    let read_only = File::open(mount.at("f")).unwrap();
    assert_eq!(read_only.set_len(4).unwrap_err().kind(), ErrorKind::InvalidInput);
    for len in [8_u64, 6] {
        OpenOptions::new().write(true).open(mount.at("f")).unwrap().set_len(len).unwrap();
        assert_eq!(
            fs::read(mount.at("f")).unwrap(),
            b"0123456789"[..usize::try_from(len).unwrap()]
        );
    }
    drop(read_only);
    mount.unmount();
}

#[test]
fn large_sequential_writes_come_back_block_by_block() {
    let store = Store::new();
    let Some(mount) = store.mount_as(Caching::Exclusive) else { return };
    let bytes = pattern(9_000_001);
    fs::write(mount.at("f"), &bytes).unwrap();
    mount.unmount();
    let mount = store.mount().unwrap();
    let file = File::open(mount.at("f")).unwrap();
    let mut block = [0; 4096];
    for (number, expected) in bytes.chunks(4096).enumerate().rev() {
        file.read_exact_at(&mut block[..expected.len()], number as u64 * 4096).unwrap();
        assert!(&block[..expected.len()] == expected, "block {number}");
    }
    drop(file);
    mount.unmount();
}

#[test]
fn data_far_out_in_a_sparse_file_is_found() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let file = File::create_new(mount.at("f")).unwrap();
    let places = [12_345, (1 << 40) + 777, (9 << 40) + 1];
    file.set_len(10 << 40).unwrap();
    for at in places {
        file.write_all_at(b"data", at).unwrap();
    }
    let (mut from, mut found) = (0, Vec::new());
    while let Ok(data) = seek(&file, SeekFrom::Data(from)) {
        from = seek(&file, SeekFrom::Hole(data)).unwrap();
        found.push(data..from);
    }
    assert!(found.len() <= 4, "{found:?}");
    for at in places {
        assert!(found.iter().any(|range| range.contains(&at)), "{at} is in none of {found:?}");
        let mut bytes = [0; 6];
        file.read_exact_at(&mut bytes, at - 1).unwrap();
        assert_eq!(&bytes, b"\0data\0");
    }
    drop(file);
    mount.unmount();
}

#[test]
fn a_sector_that_was_zeroed_below_reads_as_zeros() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let mut bytes = pattern(8192);
    fs::write(mount.at("f"), &bytes).unwrap();
    let below = OpenOptions::new().write(true).open(store.below("f")).unwrap();
    below.write_all_at(&[0; 512], 4096 + 1024).unwrap();
    bytes[1024..1536].fill(0);
    assert!(fs::read(mount.at("f")).unwrap() == bytes);
    mount.unmount();
}

#[test]
fn hard_links_are_one_file_until_they_are_not() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("f1"), b"12345").unwrap();
    fs::hard_link(mount.at("f1"), mount.at("f2")).unwrap();
    let shown = fs::metadata(mount.at("f2")).unwrap();
    assert_eq!((shown.len(), shown.nlink()), (5, 2));
    fs::write(mount.at("f1"), pattern(5000)).unwrap();
    assert_eq!(fs::metadata(mount.at("f2")).unwrap().len(), 5000);
    let second = OpenOptions::new().write(true).open(mount.at("f2")).unwrap();
    fs::remove_file(mount.at("f1")).unwrap();
    fs::write(mount.at("f1"), b"another").unwrap();
    second.write_all_at(b"SECOND", 0).unwrap();
    assert_eq!(fs::read(mount.at("f1")).unwrap(), b"another");
    assert_eq!(&fs::read(mount.at("f2")).unwrap()[..6], b"SECOND");
    assert_eq!(fs::metadata(mount.at("f2")).unwrap().nlink(), 1);
    drop(second);
    mount.unmount();
}

#[test]
fn the_second_group_of_a_user_counts() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::create_dir(mount.at("team")).unwrap();
    chown(mount.at("team"), Some(0), Some(777)).unwrap();
    fs::set_permissions(mount.at("team"), Permissions::from_mode(0o770)).unwrap();
    assert!(as_ids(1234, 1234, || File::create_new(mount.at("team/no"))).is_err());
    let member = std::thread::scope(|scope| {
        let thread = || {
            set_thread_groups(&[rustix::fs::Gid::from_raw(777)]).unwrap();
            let gid = rustix::fs::Gid::from_raw(1234);
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            let uid = rustix::fs::Uid::from_raw(1234);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            File::create_new(mount.at("team/yes"))
        };
        scope.spawn(thread).join().unwrap()
    });
    assert_eq!(member.unwrap().metadata().unwrap().uid(), 1234);
    mount.unmount();
}

#[test]
fn the_owner_of_the_root_may_make_things() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    chown(mount.path(), Some(1234), Some(1234)).unwrap();
    fs::set_permissions(mount.path(), Permissions::from_mode(0o700)).unwrap();
    as_ids(1234, 1234, || {
        fs::create_dir(mount.at("d")).unwrap();
        fs::write(mount.at("d/f"), b"x").unwrap();
        fs::write(mount.at("f"), b"x").unwrap();
    });
    assert_eq!(fs::metadata(mount.at("d")).unwrap().uid(), 1234);
    mount.unmount();
}

#[test]
fn read_only_files_are_made_written_and_given_attributes() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::set_permissions(mount.path(), Permissions::from_mode(0o777)).unwrap();
    as_ids(1234, 1234, || {
        // As a copier does: the new file is read-only from the start, and what it opened may write.
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o444);
        let mut copy = options.write(true).create_new(true).open(mount.at("copy")).unwrap();
        copy.write_all(b"content").unwrap();
        copy.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        copy.set_permissions(Permissions::from_mode(0o400)).unwrap();
        assert!(File::options().write(true).open(mount.at("copy")).is_err());
    });
    assert_eq!(fs::metadata(mount.at("copy")).unwrap().mtime(), 0);
    mount.unmount();
}

#[test]
fn an_open_file_outlives_its_name() {
    for caching in [Caching::Shared, Caching::Exclusive] {
        let store = Store::new();
        let Some(mount) = store.mount_as(caching) else { return };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(mount.at("f")).unwrap();
        file.write_all_at(&pattern(5000), 0).unwrap();
        fs::remove_file(mount.at("f")).unwrap();
        assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0, "no hidden name is left");
        file.set_len(9000).unwrap();
        file.write_all_at(b"late", 8000).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        file.sync_all().unwrap();
        let mut bytes = vec![0; 9000];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes[..5000] == pattern(5000) && &bytes[8000..8004] == b"late");
        let shown = file.metadata().unwrap();
        assert_eq!((shown.len(), shown.nlink(), shown.mode() & 0o777), (9000, 0, 0o600));
        map(&file, 4096, |map| map[0] = 9);
        drop(file);
        mount.unmount();
    }
}

/// Copies a tree by hand, so that many can be copied at once.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy_tree(&source, &target),
            kind if kind.is_symlink() => symlink(fs::read_link(&source).unwrap(), target).unwrap(),
            _ => assert!(fs::copy(&source, target).unwrap() > 0),
        }
    }
}

#[test]
fn trees_are_copied_in_parallel_without_a_missing_name() {
    for caching in [Caching::Shared, Caching::Exclusive] {
        let store = Store::new();
        let Some(mount) = store.mount_as(caching) else { return };
        for folder in ["tree", "tree/a", "tree/a/b"] {
            fs::create_dir(mount.at(folder)).unwrap();
            for number in 0..10 {
                let path = mount.at(folder).join(format!("f{number}"));
                fs::write(path, pattern(100 + number * 999)).unwrap();
            }
            symlink("f1", mount.at(folder).join("link")).unwrap();
        }
        std::thread::scope(|scope| {
            for worker in 0..12 {
                let mount = &mount;
                scope.spawn(move || {
                    let copy = mount.at(&format!("copy{worker}"));
                    copy_tree(&mount.at("tree"), &copy);
                    assert!(fs::read(copy.join("a/b/f9")).unwrap() == pattern(100 + 9 * 999));
                    assert!(fs::read(copy.join("a/link")).unwrap() == pattern(100 + 999));
                    fs::remove_dir_all(copy).unwrap();
                });
            }
        });
        assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1);
        mount.unmount();
    }
}

#[test]
fn locks_hold_between_openings_on_this_host() {
    use rustix::fs::{FlockOperation, flock};
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).open(mount.at("f")).unwrap()
    };
    let (first, second) = (open(), open());
    flock(&first, FlockOperation::LockExclusive).unwrap();
    assert!(flock(&second, FlockOperation::NonBlockingLockShared).is_err());
    flock(&first, FlockOperation::Unlock).unwrap();
    flock(&second, FlockOperation::NonBlockingLockShared).unwrap();
    flock(&second, FlockOperation::Unlock).unwrap();
    lock_range(&first, 100, 50).unwrap();
    assert!(lock_range(&second, 149, 1).is_err());
    lock_range(&second, 150, 1).unwrap();
    drop((first, second));
    mount.unmount();
}
