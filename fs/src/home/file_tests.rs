use super::*;
use crate::backing::{Backing, Call, Fault, FaultyBacking, FileBacking, When};
use crate::home::keys::OPEN_FILE_ARENA;
use crate::home::layout::{UNIT, physical};
use crate::home::scratch::CHUNK;
use crate::home::space::Zeroing;
use crate::safe::Names;
use crypto::{Arena, HomeKey};
use std::os::fd::OwnedFd;
use uuid::Uuid;

pub(super) fn keys() -> Arc<HomeKeys> {
    let arena = Arena::new(256 * 1024).unwrap();
    let home = HomeKey::generate(&arena).unwrap();
    Arc::new(HomeKeys::new(home, Uuid::from_u128(7), Names::Plain, arena).unwrap())
}

struct Fixture {
    keys: Arc<HomeKeys>,
    raw: std::fs::File,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { keys: keys(), raw: tempfile::tempfile().unwrap() }
    }

    fn open(&self) -> Result<HomeFile<FileBacking>, HomeError> {
        let fd = OwnedFd::from(self.raw.try_clone().unwrap());
        let store = FileBacking::new(fd);
        let stored = store.len().unwrap();
        HomeFile::open(store, stored, Arc::clone(&self.keys), "f".into())
    }

    fn stored(&self) -> FileBacking {
        FileBacking::new(OwnedFd::from(self.raw.try_clone().unwrap()))
    }

    fn stored_len(&self) -> u64 {
        self.raw.metadata().unwrap().len()
    }
}

fn all(file: &HomeFile<FileBacking>) -> Vec<u8> {
    file.read(0, in_memory(file.size()) + 100, <[u8]>::to_vec).unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index * 7 % 251).unwrap() + 1).collect()
}

/// Two hosts that open a file before either has written to it. One header replaced the other once, and what was written
/// under the first one, and by its host ever after, could not be read.
#[test]
fn two_hosts_that_begin_a_file_make_one_header() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    for lost in [0, HEADER + UNIT] {
        let path = folder.path().join(lost.to_string());
        // Of a length without a header, as a crash leaves it, or empty.
        std::fs::File::create_new(&path).unwrap().set_len(lost).unwrap();
        let host = || {
            let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
            HomeFile::open(FileBacking::from(file), lost, Arc::clone(&keys), "f".into())
        };
        let (one, two) = (host().unwrap(), host().unwrap());
        one.truncate(10_000).unwrap();
        one.write(0, &pattern(4096)).unwrap();
        two.truncate(10_000).unwrap();
        two.write(4096, &pattern(4096)).unwrap();
        one.write(8192, &pattern(1808)).unwrap();
        let expected = [pattern(4096), pattern(4096), pattern(1808)].concat();
        let third = HomeFile::open(
            FileBacking::from(std::fs::File::open(&path).unwrap()),
            physical(10_000),
            Arc::clone(&keys),
            "f".into(),
        );
        for (name, file) in [("one", &one), ("two", &two), ("a third", &third.unwrap())] {
            assert!(all(file) == expected, "{name}, {lost}");
        }
    }
}

#[test]
fn a_header_is_not_made_while_another_host_makes_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let open = || {
        let mut options = std::fs::File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        FileBacking::from(file.unwrap())
    };
    let other = open();
    other.lock().unwrap();
    let file = HomeFile::open(open(), 0, keys(), "f".into()).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| file.write(0, b"waits"));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        other.unlock().unwrap();
        writer.join().unwrap().unwrap();
    });
    assert_eq!(all(&file), b"waits");
}

/// Header and data of an empty file go out together, and what is stored is what the long way stores, on which the size
/// is set before: sectors that were written, zeros in pad and carrier, and the length.
#[test]
fn the_first_write_of_a_file_stores_the_same_on_every_way() {
    for len in [1, 511, 512, 513, 4095, 4096, 4097, 10_000, CHUNK - 1, CHUNK] {
        let stored = [(true, false), (false, false), (false, true)].map(|(alone, long)| {
            let fixture = Fixture::new();
            let file = fixture.open().unwrap().seen_by_us_only(alone);
            if long {
                file.truncate(len as u64).unwrap();
            }
            file.write(0, &pattern(len)).unwrap();
            assert_eq!(fixture.stored_len(), physical(len as u64), "{len}");
            let mut image = vec![0; in_memory(fixture.stored_len())];
            fixture.stored().read_at(0, &mut image).unwrap();
            file.write(len as u64, b"and more").unwrap();
            let expected = [&pattern(len)[..], b"and more"].concat();
            assert!(all(&file) == expected, "{len}, {alone}, {long}");
            assert!(all(&fixture.open().unwrap()) == expected, "{len}, {alone}, {long}, opened");
            let zeros = image.chunks(SECTOR_LEN).map(|sector| sector.iter().all(|&byte| byte == 0));
            zeros.collect::<Vec<_>>()
        });
        assert_eq!((&stored[0], &stored[1]), (&stored[2], &stored[2]), "{len}");
    }
}

/// The short way is two calls; that it is taken shows where the first of them, or the second, fails.
#[test]
fn the_first_write_of_a_file_that_nobody_else_sees_is_one_write() {
    for call in [0, 1] {
        let disk = Arc::new(FaultyBacking::new(0));
        let file = HomeFile::open(Arc::clone(&disk), 0, keys(), "f".into());
        let file = file.unwrap().seen_by_us_only(true);
        disk.inject(Fault::eio_at(disk.calls() + call));
        file.write(0, &pattern(700)).unwrap_err();
        disk.heal();
        let before = disk.calls();
        file.write(0, &pattern(700)).unwrap();
        assert_eq!((disk.calls() - before, disk.live().len() as u64), (2, physical(700)));
    }
}

#[test]
fn the_header_comes_with_the_first_write_and_stays() {
    let fixture = Fixture::new();
    let file = fixture.open().unwrap();
    assert_eq!((file.size(), fixture.stored_len()), (0, 0));
    file.truncate(0).unwrap();
    assert_eq!(fixture.stored_len(), 0);
    file.write(0, b"x").unwrap();
    assert_eq!(fixture.stored_len(), physical(1));
    file.truncate(0).unwrap();
    assert_eq!(fixture.stored_len(), HEADER);
    let mut header = [0; 4096];
    fixture.stored().read_at(0, &mut header).unwrap();
    file.write(10, b"y").unwrap();
    let mut again = [0; 4096];
    fixture.stored().read_at(0, &mut again).unwrap();
    assert!(header == again, "the header was rewritten");
    assert_eq!(all(&file), [&[0; 10][..], b"y"].concat());
}

#[test]
fn odd_writes_read_back_after_reopening() {
    let fixture = Fixture::new();
    let mut expected = Vec::new();
    for (at, len) in [(0, 1), (1, 511), (500, 20), (4090, 12), (100, 9000), (20_000, 3), (8191, 2)]
    {
        let bytes = pattern(len);
        expected.resize(expected.len().max(at + len), 0);
        expected[at..at + len].copy_from_slice(&bytes);
        fixture.open().unwrap().write(at as u64, &bytes).unwrap();
        let file = fixture.open().unwrap();
        assert!(all(&file) == expected, "after {len} bytes at {at}");
        assert_eq!(fixture.stored_len(), physical(expected.len() as u64));
    }
}

#[test]
fn a_write_of_several_chunks_reads_back() {
    let fixture = Fixture::new();
    let file = fixture.open().unwrap();
    let bytes = pattern(3 * CHUNK + 77);
    file.write(333, &bytes).unwrap();
    let back = file.read(333, bytes.len(), <[u8]>::to_vec).unwrap();
    assert!(back == bytes);
}

#[test]
fn the_ciphertext_is_aes_xts_plain64_after_the_header() {
    let fixture = Fixture::new();
    let file = fixture.open().unwrap();
    let bytes = pattern(8192);
    file.write(0, &bytes).unwrap();
    let mut page = [0; 4096];
    fixture.stored().read_at(0, &mut page).unwrap();
    let cipher = fixture.keys.open(&page, "f").unwrap().unwrap();
    let mut expected = bytes.clone();
    cipher.encrypt(0, &mut expected).unwrap();
    let mut stored = vec![0; 8192];
    fixture.stored().read_at(HEADER, &mut stored).unwrap();
    assert!(stored == expected, "unit n must be encrypted as sector 8 n");
    assert!(stored[..16] != bytes[..16]);
}

#[test]
fn aligned_writes_do_not_read() {
    let fixture = Fixture::new();
    let file = fixture.open().unwrap();
    file.write(0, &pattern(8192)).unwrap();
    // Ciphertext that was damaged below: an aligned write must not even look at it.
    fixture.stored().write_at(HEADER + 512, &[0xee; 512]).unwrap();
    file.write(512, &pattern(512)).unwrap();
    let back = file.read(512, 512, <[u8]>::to_vec).unwrap();
    assert!(back == pattern(512));
}

#[test]
fn shrinking_and_growing_shows_zeros() {
    for (size, small, large) in
        [(9000, 5000, 9000), (9000, 4096, 8000), (5000, 4500, 4600), (700, 3, 4096)]
    {
        let fixture = Fixture::new();
        let file = fixture.open().unwrap();
        file.write(0, &pattern(size)).unwrap();
        file.truncate(small as u64).unwrap();
        file.truncate(large as u64).unwrap();
        let mut expected = pattern(small);
        expected.resize(large, 0);
        assert!(all(&file) == expected, "{size} to {small} to {large}");
        assert!(all(&fixture.open().unwrap()) == expected);
    }
}

#[test]
fn data_left_in_the_carrier_by_a_crash_never_shows() {
    let fixture = Fixture::new();
    fixture.open().unwrap().write(0, &pattern(100)).unwrap();
    fixture.stored().write_at(HEADER + UNIT, &[0xaa; 100]).unwrap();
    let file = fixture.open().unwrap();
    assert!(all(&file) == pattern(100));
    file.truncate(9000).unwrap();
    let mut expected = pattern(100);
    expected.resize(9000, 0);
    assert!(all(&file) == expected);
}

#[test]
fn impossible_lengths_read_as_empty_and_heal() {
    let fixture = Fixture::new();
    fixture.open().unwrap().write(0, &pattern(5000)).unwrap();
    fixture.raw.set_len(HEADER + 700).unwrap();
    let file = fixture.open().unwrap();
    assert_eq!((file.size(), all(&file)), (0, Vec::new()));
    file.write(2, b"new").unwrap();
    assert_eq!(all(&file), b"\0\0new");
    assert_eq!(fixture.stored_len(), physical(5));
}

#[test]
fn a_torn_header_counts_as_none() {
    let fixture = Fixture::new();
    fixture.stored().write_at(0, &[0x77; 1024]).unwrap();
    let file = fixture.open().unwrap();
    assert_eq!(file.size(), 0);
    file.write(0, b"data").unwrap();
    assert_eq!(all(&fixture.open().unwrap()), b"data");
}

#[test]
fn an_empty_header_is_remade_only_without_data() {
    let blank = Fixture::new();
    blank.raw.set_len(physical(5000)).unwrap();
    let file = blank.open().unwrap();
    assert!(all(&file) == [0; 5000]);
    file.write(4999, b"ab").unwrap();
    let back = all(&blank.open().unwrap());
    assert!(back[..4999] == [0; 4999] && back[4999..] == *b"ab");

    let lost = Fixture::new();
    lost.open().unwrap().write(0, &pattern(5000)).unwrap();
    lost.stored().write_at(0, &[0; 4096]).unwrap();
    assert!(matches!(lost.open(), Err(HomeError::Damaged { .. })));
}

#[test]
fn files_of_other_homes_are_refused() {
    let fixture = Fixture::new();
    fixture.open().unwrap().write(0, b"mine").unwrap();
    let thief = Fixture { keys: keys(), raw: fixture.raw.try_clone().unwrap() };
    assert!(matches!(thief.open(), Err(HomeError::Damaged { .. })), "same VM id, other key");
    let arena = Arena::new(64 * 1024).unwrap();
    let key = HomeKey::generate(&arena).unwrap();
    let other = Arc::new(HomeKeys::new(key, Uuid::from_u128(8), Names::Plain, arena).unwrap());
    let thief = Fixture { keys: other, raw: fixture.raw.try_clone().unwrap() };
    assert!(
        matches!(thief.open(), Err(HomeError::Foreign { owner, .. }) if owner == Uuid::from_u128(7))
    );
}

#[test]
fn punched_and_zeroed_ranges_read_as_zero() {
    for how in [Zeroing::Punch, Zeroing::Keep] {
        let fixture = Fixture::new();
        let file = fixture.open().unwrap();
        file.write(0, &pattern(20_000)).unwrap();
        let mut expected = pattern(20_000);
        for (at, len) in [(10, 20), (500, 600), (4000, 9000), (19_000, 5000)] {
            file.zero(at, len, how, true).unwrap();
            let (at, end) = (in_memory(at), in_memory(at + len).min(20_000));
            expected[at..end].fill(0);
            assert!(all(&file) == expected, "{how:?} {at}..{end}");
        }
        file.zero(25_000, 10, Zeroing::Keep, false).unwrap();
        expected.resize(25_010, 0);
        assert!(all(&file) == expected);
    }
}

#[test]
fn holes_are_found_where_they_are() {
    let fixture = Fixture::new();
    let file = fixture.open().unwrap();
    file.write(64 * 1024, &pattern(100)).unwrap();
    assert_eq!(file.next_data(0).unwrap(), 64 * 1024);
    assert_eq!(file.next_hole(0).unwrap(), 0);
    assert_eq!(file.next_hole(64 * 1024 + 5).unwrap(), 64 * 1024 + 100, "the end is a hole");
    assert!(matches!(file.next_data(64 * 1024 + 100), Err(HomeError::PastEnd)));
    assert!(matches!(file.next_hole(64 * 1024 + 100), Err(HomeError::PastEnd)));
}

#[test]
fn allocation_grows_unless_told_not_to() {
    let fixture = Fixture::new();
    let file = fixture.open().unwrap();
    file.allocate(100, 9000, true).unwrap();
    assert_eq!(file.size(), 0);
    file.allocate(100, 9000, false).unwrap();
    assert!(all(&file) == [0; 9100]);
    assert_eq!(fixture.stored_len(), physical(9100));
}

#[test]
fn sizes_beyond_the_limit_are_refused() {
    let fixture = Fixture::new();
    let file = fixture.open().unwrap();
    assert!(matches!(file.write(MAX_SIZE, b"x"), Err(HomeError::TooLarge { .. })));
    assert!(matches!(file.write(u64::MAX, b"x"), Err(HomeError::TooLarge { .. })));
    assert!(matches!(file.truncate(MAX_SIZE + 1), Err(HomeError::TooLarge { .. })));
    assert_eq!(fixture.stored_len(), 0);
}

#[test]
fn parallel_writers_of_neighbouring_bytes_lose_nothing() {
    let fixture = Fixture::new();
    let file = fixture.open().unwrap();
    file.truncate(30_000).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4_u8 {
            let file = &file;
            // Bytes worker, worker + 4, ...: every sector is fought over by all.
            scope.spawn(move || {
                for at in (u64::from(worker)..30_000).step_by(4) {
                    file.write(at, &[worker + 1]).unwrap();
                }
            });
        }
    });
    let back = all(&file);
    assert!(back.iter().enumerate().all(|(at, &byte)| usize::from(byte) == at % 4 + 1));
}

#[test]
fn an_open_file_takes_little_locked_memory() {
    let arena = Arena::new(256 * 1024).unwrap();
    let home = HomeKey::generate(&arena).unwrap();
    let keys =
        Arc::new(HomeKeys::new(home, Uuid::from_u128(7), Names::Plain, arena.clone()).unwrap());
    let fixture = Fixture { keys, raw: tempfile::tempfile().unwrap() };
    let before = arena.usage().used;
    let file = fixture.open().unwrap();
    file.write(0, b"x").unwrap();
    let taken = arena.usage().used - before;
    assert!((64..=OPEN_FILE_ARENA).contains(&taken), "{taken} bytes");
    drop(file);
    assert_eq!(arena.usage().used, before, "the key of a closed file is still there");
    let key = crypto::Dek::generate(&arena).unwrap();
    let portable = Xts::with_engine(key, crypto::Unit::B4096, crypto::Engine::Portable).unwrap();
    let taken = arena.usage().used - before;
    assert!(taken <= OPEN_FILE_ARENA, "portable: {taken} bytes");
    drop(portable);
}

/// A stored file of 5000 plain bytes, with junk in the carrier as a crash leaves it, on a storage that can
/// fail.
fn faulty(fixture: &Fixture) -> (Arc<FaultyBacking>, HomeFile<Arc<FaultyBacking>>) {
    fixture.open().unwrap().write(0, &pattern(5000)).unwrap();
    let mut image = vec![0; in_memory(fixture.stored_len())];
    fixture.stored().read_at(0, &mut image).unwrap();
    *image.last_mut().unwrap() = 7;
    let disk = Arc::new(FaultyBacking::with_image(image));
    let file = HomeFile::open(
        Arc::clone(&disk),
        disk.len().unwrap(),
        Arc::clone(&fixture.keys),
        "f".into(),
    )
    .unwrap();
    (disk, file)
}

fn flush_fault() -> Fault {
    Fault { when: When::Always, on: Some(Call::Flush), errno: 5, short: 0 }
}

#[test]
fn a_sync_that_failed_inside_a_shrink_fails_the_next_sync() {
    let fixture = Fixture::new();
    let (disk, file) = faulty(&fixture);
    disk.inject(flush_fault());
    file.truncate(4500).unwrap();
    disk.heal();
    for result in [file.sync(true), file.sync(false), file.settle(), file.verdict()] {
        assert!(matches!(result, Err(HomeError::Io { .. })), "{result:?}");
    }
    let again = HomeFile::open(
        Arc::clone(&disk),
        disk.len().unwrap(),
        Arc::clone(&fixture.keys),
        "f".into(),
    )
    .unwrap();
    again.sync(true).unwrap();
}

/// Found by the model check, seed 534: junk of a crash was zeroed, the sync of that failed, and the file was opened
/// again, where the zeros looked as if they had always been there. A second crash could lose them but not the growth.
#[test]
fn after_a_sync_that_failed_growth_waits_for_one_that_does_not() {
    let fixture = Fixture::new();
    let (disk, file) = faulty(&fixture);
    disk.inject(flush_fault());
    file.truncate(4500).unwrap();
    drop(file);
    let stored = disk.len().unwrap();
    let keys = Arc::clone(&fixture.keys);
    let again = HomeFile::open(Arc::clone(&disk), stored, keys, "f".into()).unwrap();
    again.doubt();
    assert!(again.truncate(6000).is_err(), "it grew without a sync");
    assert_eq!(disk.len().unwrap(), stored);
}

#[test]
fn a_sync_that_failed_fails_for_every_handle() {
    let fixture = Fixture::new();
    for data_only in [true, false] {
        let (disk, file) = faulty(&fixture);
        file.sync(data_only).unwrap();
        disk.inject(flush_fault());
        let file = Arc::new(file);
        let handles = [Arc::clone(&file), file];
        assert!(handles[0].sync(data_only).is_err());
        disk.heal();
        assert!(handles[1].sync(!data_only).is_err(), "the other handle must hear of it too");
        assert!(handles[0].sync(data_only).is_err(), "and it stays");
    }
}

#[test]
fn a_hole_that_the_storage_refuses_changes_nothing() {
    let fixture = Fixture::new();
    let (disk, file) = faulty(&fixture);
    disk.refuse_punch();
    let refused = file.zero(100, 3000, Zeroing::Punch, true);
    assert!(matches!(refused, Err(HomeError::NotSupported(_))), "{refused:?}");
    assert!(file.read(0, 5000, <[u8]>::to_vec).unwrap() == pattern(5000));
}
