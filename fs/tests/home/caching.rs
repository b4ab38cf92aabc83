//! A mount that nobody else changes: the kernel collects writes and keeps what it knows.

use super::data::map;
use super::mounted::{Store, eventually, pattern};
use cryptfs::door::Caching;
use rustix::fs::{SeekFrom, seek};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::time::{Duration, SystemTime};

#[test]
fn files_opened_for_writing_only_are_read_where_needed() {
    let store = Store::new();
    let Some(mount) = store.mount_as(Caching::Exclusive) else { return };
    let mut expected = pattern(10_000);
    fs::write(mount.at("f"), &expected).unwrap();
    mount.unmount();
    let mount = store.mount_as(Caching::Exclusive).unwrap();
    let file = OpenOptions::new().write(true).open(mount.at("f")).unwrap();
    file.write_all_at(b"middle", 5001).unwrap();
    expected[5001..5007].copy_from_slice(b"middle");
    file.sync_all().unwrap();
    drop(file);
    let mut log = OpenOptions::new().append(true).open(mount.at("f")).unwrap();
    for piece in [&b"one"[..], b"two"] {
        log.write_all(piece).unwrap();
        expected.extend_from_slice(piece);
    }
    drop(log);
    assert!(fs::read(mount.at("f")).unwrap() == expected);
    mount.unmount();
    let mount = store.mount().unwrap();
    assert!(fs::read(mount.at("f")).unwrap() == expected, "after a remount");
    mount.unmount();
}

#[test]
fn what_was_just_written_is_data_not_a_hole() {
    let store = Store::new();
    let Some(mount) = store.mount_as(Caching::Exclusive) else { return };
    let file = File::create_new(mount.at("f")).unwrap();
    file.set_len(1 << 20).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(&[7; 4096], 65_536).unwrap();
    // Nothing may have reached the storage yet. Copiers ask for data and skip what is none.
    let data = seek(&file, SeekFrom::Data(0)).unwrap();
    assert!((60_000..=65_536).contains(&data), "data is said to begin at {data}");
    let hole = seek(&file, SeekFrom::Hole(65_536)).unwrap();
    assert!((65_536 + 4096..200_000).contains(&hole), "a hole is said to begin at {hole}");
    file.write_all_at(b"end", 2 << 20).unwrap();
    assert_eq!(
        seek(&file, SeekFrom::Hole(2 << 20)).unwrap(),
        (2 << 20) + 3,
        "as the kernel sees it"
    );
    assert!(seek(&file, SeekFrom::Data((2 << 20) + 3)).is_err());
    super::data::map(&file, 1 << 20, |map| map[500_000] = 1);
    let data = seek(&file, SeekFrom::Data(300_000)).unwrap();
    assert!((490_000..=500_000).contains(&data), "mapped data is said to begin at {data}");
    fs::copy(mount.at("f"), mount.at("copy")).unwrap();
    let copy = fs::read(mount.at("copy")).unwrap();
    assert_eq!((copy.len(), &copy[65_536..65_540]), ((2 << 20) + 3, &[7; 4][..]));
    drop(file);
    let file = File::open(mount.at("f")).unwrap();
    assert!(seek(&file, SeekFrom::Data(100_000)).unwrap() >= 490_000, "closed, it is as stored");
    drop(file);
    mount.unmount();
}

#[test]
fn a_sync_carries_data_and_size_to_the_storage() {
    let store = Store::new();
    let Some(mount) = store.mount_as(Caching::Exclusive) else { return };
    let file = File::create_new(mount.at("f")).unwrap();
    file.write_all_at(&pattern(5000), 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::metadata(store.below("f")).unwrap().len(), 13_192);
    let durable = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(mount.at("f"));
    durable.unwrap().write_all_at(&[1; 200], 9000).unwrap();
    assert!(fs::metadata(mount.at("f")).unwrap().blocks() >= 16, "what it takes is shown");
    assert_eq!(fs::metadata(store.below("f")).unwrap().len(), 4096 + 3 * 4096 + 9200 % 4096);
    drop(file);
    mount.unmount();
}

#[test]
fn times_that_were_set_survive_collected_writes() {
    let store = Store::new();
    let Some(mount) = store.mount_as(Caching::Exclusive) else { return };
    let file = File::create_new(mount.at("f")).unwrap();
    file.write_all_at(&pattern(5000), 0).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    file.set_modified(then).unwrap();
    drop(file);
    mount.unmount();
    let mount = store.mount().unwrap();
    let shown = fs::metadata(mount.at("f")).unwrap();
    assert_eq!((shown.mtime(), shown.mtime_nsec(), shown.len()), (1_000_000_000, 5, 5000));
    mount.unmount();
}

/// Memory that direct I/O takes.
fn aligned(bytes: &mut [u8], len: usize) -> &mut [u8] {
    let skip = bytes.as_ptr().align_offset(4096);
    &mut bytes[skip..skip + len]
}

#[test]
fn direct_io_and_the_cache_see_each_other() {
    for caching in [Caching::Shared, Caching::Exclusive] {
        let store = Store::new();
        let Some(mount) = store.mount_as(caching) else { return };
        let mut options = OpenOptions::new();
        let cached = options.read(true).write(true).create(true).truncate(false);
        let cached = cached.open(mount.at("f")).unwrap();
        cached.write_all_at(&pattern(16_384), 0).unwrap();
        let mut options = OpenOptions::new();
        let direct = options.read(true).write(true).custom_flags(libc::O_DIRECT);
        let direct = direct.open(mount.at("f")).unwrap();
        let mut memory = vec![0; 12_288];
        direct.read_exact_at(aligned(&mut memory, 8192), 4096).unwrap();
        assert!(aligned(&mut memory, 8192) == &pattern(16_384)[4096..12_288], "{caching:?}");
        map(&cached, 16_384, |map| {
            assert_eq!(map[8192], pattern(16_384)[8192]);
            aligned(&mut memory, 4096).fill(0xee);
            direct.write_all_at(aligned(&mut memory, 4096), 8192).unwrap();
            assert_eq!((map[8191], map[8192], map[12_287]), (pattern(16_384)[8191], 0xee, 0xee));
            map[8192] = 7;
            direct.read_exact_at(aligned(&mut memory, 4096), 8192).unwrap();
            assert_eq!(aligned(&mut memory, 4096)[..2], [7, 0xee], "{caching:?}");
        });
        // Beyond the end it grows the file, and it may be opened as the first and only.
        direct.write_all_at(aligned(&mut memory, 4096), 16_384).unwrap();
        assert_eq!(cached.metadata().unwrap().len(), 20_480);
        drop((cached, direct));
        mount.unmount();
    }
}

#[test]
fn many_search_while_others_write() {
    let store = Store::new();
    let Some(mount) = store.mount_as(Caching::Exclusive) else { return };
    // More than there are threads to serve: were one of them to wait for the kernel's writes, all would.
    std::thread::scope(|scope| {
        for worker in 0..16 {
            let mount = &mount;
            scope.spawn(move || {
                let file = File::create_new(mount.at(&format!("f{worker}"))).unwrap();
                for round in 0..20 {
                    let at = round * 50_000;
                    file.write_all_at(&pattern(3000), at).unwrap();
                    assert!(seek(&file, SeekFrom::Data(at)).unwrap() <= at + 4096);
                    let hole = seek(&file, SeekFrom::Hole(at)).unwrap();
                    assert!(hole >= at + 3000, "worker {worker}, round {round}: {hole}");
                }
            });
        }
    });
    mount.unmount();
}

#[test]
fn a_full_storage_is_told_at_the_sync_and_harms_no_old_byte() {
    let Some(store) = Store::small(2 << 20) else { return };
    let Some(mount) = store.mount_as(Caching::Exclusive) else { return };
    fs::write(mount.at("old"), pattern(500_000)).unwrap();
    let file = File::create_new(mount.at("new")).unwrap();
    let piece = pattern(65_536);
    let told = (0..60).find_map(|number| file.write_all_at(&piece, number * 65_536).err());
    let told = told.or_else(|| file.sync_all().err()).expect("it cannot hold all that");
    assert_eq!(told.kind(), std::io::ErrorKind::StorageFull);
    drop(file);
    assert!(fs::read(mount.at("old")).unwrap() == pattern(500_000));
    fs::remove_file(mount.at("new")).unwrap();
    eventually(|| {
        let file = File::create(mount.at("next"))?;
        file.write_all_at(&piece, 0)?;
        file.sync_all()
    })
    .unwrap();
    mount.unmount();
    let mount = store.mount().unwrap();
    assert!(fs::read(mount.at("old")).unwrap() == pattern(500_000));
    assert!(fs::read(mount.at("next")).unwrap() == piece);
    mount.unmount();
}
