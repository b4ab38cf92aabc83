//! Holes, reserved space, copies inside the mount, and what is not served.

use super::mounted::{Store, eventually, pattern};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate};
use rustix::io::Errno;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

#[test]
fn sparse_files_stay_sparse() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let file = fs::File::create_new(mount.at("sparse")).unwrap();
    file.write_all_at(b"end", 1 << 34).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (1 << 34) + 3);
    assert!(fs::metadata(store.below("sparse")).unwrap().blocks() < 1000);
    drop(file);
    let file = fs::File::open(mount.at("sparse")).unwrap();
    let mut middle = [1; 5000];
    file.read_exact_at(&mut middle, 1 << 33).unwrap();
    assert!(middle == [0; 5000]);
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)), Ok(1 << 34));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(0)), Ok(0));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(1 << 34)), Ok((1 << 34) + 3));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data((1 << 34) + 3)), Err(Errno::NXIO));
    drop(file);
    mount.unmount();
}

#[test]
fn ranges_are_reserved_punched_and_zeroed() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let path = mount.at("f");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    let mut expected = pattern(100_000);
    file.write_all_at(&expected, 0).unwrap();
    let (keep, punch) = (FallocateFlags::KEEP_SIZE, FallocateFlags::PUNCH_HOLE);
    for (at, len) in [(5, 10), (500, 20), (4000, 50_000), (99_000, 5000)] {
        fallocate(&file, punch | keep, at as u64, len as u64).unwrap();
        expected[at..(at + len).min(100_000)].fill(0);
        assert!(fs::read(&path).unwrap() == expected, "punch {len} at {at}");
    }
    fallocate(&file, FallocateFlags::ZERO_RANGE, 60_001, 1000).unwrap();
    expected[60_001..61_001].fill(0);
    fallocate(&file, FallocateFlags::empty(), 150_000, 10).unwrap();
    expected.resize(150_010, 0);
    fallocate(&file, keep, 0, 500_000).unwrap();
    assert!(fs::read(&path).unwrap() == expected);
    let refused = fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096);
    assert_eq!(refused, Err(Errno::OPNOTSUPP));
    drop(file);
    mount.unmount();
    let mount = store.mount().unwrap();
    assert!(fs::read(mount.at("f")).unwrap() == expected);
    mount.unmount();
}

#[test]
fn copies_inside_the_mount_are_encrypted_again() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let bytes = pattern(2_500_000);
    fs::write(mount.at("from"), &bytes).unwrap();
    assert_eq!(fs::copy(mount.at("from"), mount.at("to")).unwrap(), 2_500_000);
    assert!(fs::read(mount.at("to")).unwrap() == bytes);
    let (one, two) = (fs::read(store.below("from")).unwrap(), fs::read(store.below("to")).unwrap());
    assert!(one[4096..8192] != two[4096..8192], "two files must not share a key");
    let from = fs::File::open(mount.at("from")).unwrap();
    let to = OpenOptions::new().write(true).open(mount.at("to")).unwrap();
    let (mut source, mut target) = (3, 2_400_001);
    let copied =
        rustix::fs::copy_file_range(&from, Some(&mut source), &to, Some(&mut target), 200_000)
            .unwrap();
    let mut expected = bytes.clone();
    expected.truncate(2_400_001);
    expected.extend(&bytes[3..3 + copied]);
    expected.extend(bytes.get(expected.len()..).unwrap_or_default());
    assert!(fs::read(mount.at("to")).unwrap() == expected);
    drop((from, to));
    mount.unmount();
}

#[test]
fn the_space_shown_is_the_storage_s() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let shown = rustix::fs::statvfs(mount.path()).unwrap();
    let below = rustix::fs::statvfs(store.folder.path()).unwrap();
    assert_eq!(shown.f_blocks, below.f_blocks);
    // Where the storage has names of 255 bytes, as all do that tests run on.
    assert_eq!((shown.f_namemax, below.f_namemax), (store.longest() as u64, 255));
    mount.unmount();
}

#[test]
fn a_full_storage_harms_no_old_byte() {
    let Some(store) = Store::small(4 << 20) else { return };
    let Some(mount) = store.mount() else { return };
    let old = pattern(1_000_003);
    fs::write(mount.at("old"), &old).unwrap();
    let full = std::io::ErrorKind::StorageFull;
    let filler = fs::File::create_new(mount.at("filler")).unwrap();
    let piece = pattern(70_001);
    let mut size = 0;
    let error = loop {
        match filler.write_all_at(&piece, size) {
            Ok(()) => size += 70_001,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), full);
    assert!(size > 2_000_000, "it filled up too early: {size}");
    let left = fs::read(mount.at("filler")).unwrap();
    assert!(left.len() as u64 >= size, "written bytes are gone");
    assert!(left[..usize::try_from(size).unwrap()].chunks(70_001).all(|part| part == piece));
    // An append that does not fit harms nothing; a write in place still works.
    let append = OpenOptions::new().append(true).open(mount.at("old")).unwrap();
    let refused = std::io::Write::write_all(&mut &append, &pattern(500_000)).unwrap_err();
    assert_eq!(refused.kind(), full);
    // The kernel may have sent it in parts, of which the first fitted.
    let left = fs::read(mount.at("old")).unwrap();
    assert!(left.starts_with(&old) && pattern(500_000).starts_with(&left[old.len()..]));
    let inside = OpenOptions::new().write(true).open(mount.at("old")).unwrap();
    inside.write_all_at(b"still works", 5000).unwrap();
    drop((filler, append, inside));
    fs::remove_file(mount.at("filler")).unwrap();
    eventually(|| fs::write(mount.at("filler"), &old)).unwrap();
    mount.unmount();
    let mount = store.mount().unwrap();
    let mut expected = left;
    expected[5000..5011].copy_from_slice(b"still works");
    assert!(fs::read(mount.at("old")).unwrap() == expected);
    assert!(fs::read(mount.at("filler")).unwrap() == old);
    mount.unmount();
}
