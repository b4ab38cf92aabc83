use super::*;
use crate::testing::arena;
use crate::volume::{Fault, Geometry, Volume, VolumeError};
use crypto::{Dek, Unit};
use rustix::fs::{CWD, Mode};
use std::fs::File;
use std::path::Path;

const KIB: u64 = 1024;
const SIZE: usize = 256 * 1024;

/// A folder on a drive: /tmp is memory on many machines.
const FOLDER: &str = "/var/tmp";

/// Opens a file past the page cache.
fn open_direct(path: &Path, access: OFlags) -> io::Result<OwnedFd> {
    let flags = access | OFlags::DIRECT | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Two descriptors of a new file of `len` zero bytes; `None`, said aloud, where there is no direct I/O.
fn descriptors(len: u64) -> Option<(OwnedFd, OwnedFd)> {
    let file = tempfile::NamedTempFile::new_in(FOLDER).unwrap();
    file.as_file().set_len(len).unwrap();
    let direct = open_direct(file.path(), OFlags::RDWR);
    match direct.and_then(|direct| direct_alignment(direct.as_fd()).map(|_| direct)) {
        Ok(direct) => Some((file.into_file().into(), direct)),
        Err(error) => {
            let _ = io::Write::write_fmt(
                &mut io::stderr(),
                format_args!("SKIPPED: no direct I/O in {FOLDER}: {error}\n"),
            );
            None
        }
    }
}

/// A new file of `len` zero bytes, with blocks of this size if the file system asks for smaller ones.
pub(crate) fn direct(len: u64, block: Option<usize>) -> Option<DirectBacking> {
    let (cached, direct) = descriptors(len)?;
    let mut backing = DirectBacking::new(cached, direct).unwrap();
    if let Some(block) = block {
        let block = block.max(backing.alignment.block());
        backing.alignment = Alignment::new(block, backing.alignment.memory()).unwrap();
    }
    Some(backing)
}

fn volume(backing: DirectBacking) -> Volume {
    let size = backing.len().unwrap();
    let geometry = Geometry { size, unit: Unit::B512, read_only: false };
    Volume::open(Box::new(backing), Dek::generate(&arena()).unwrap(), geometry).unwrap()
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from((n * 7 + n / 512 + seed) % 251).unwrap()).collect()
}

#[test]
fn any_offset_length_and_memory_reads_back_on_both_ways() {
    let Some(backing) = direct(SIZE as u64, None) else { return };
    let mut model = vec![0; SIZE];
    let data = bytes(70_000, 1);
    for (offset, len, shift) in [
        (0, 4096, 0),
        (512, 512, 1),
        (1, 1, 0),
        (4095, 2, 0),
        (65_536, 65_536, 0),
        (65_536, 65_536, 8),
        (100_000, 33_333, 3),
        (SIZE - 700, 700, 0),
        (8192, 0, 0),
    ] {
        backing.write_at(offset as u64, &data[shift..shift + len]).unwrap();
        model[offset..offset + len].copy_from_slice(&data[shift..shift + len]);
        for shift in [0, 1, 512] {
            let mut got = vec![0xEE; SIZE + shift];
            backing.read_at(0, &mut got[shift..]).unwrap();
            assert!(got[shift..] == model, "{offset} {len} read to {shift}");
        }
        // By the descriptors themselves.
        let mut got = vec![0xEE; SIZE];
        backing.cached.read_at(0, &mut got).unwrap();
        assert!(got == model);
    }
    backing.flush().unwrap();
}

#[test]
fn what_one_descriptor_writes_the_other_reads() {
    let Some(backing) = direct(SIZE as u64, None) else { return };
    let room = backing.alignment.block().max(4096);
    let mut memory = vec![0; room * 3];
    let start = memory.as_ptr().align_offset(4096.max(backing.alignment.memory()));
    let memory = &mut memory[start..start + room];
    for round in 0..100u8 {
        let offset = u64::from(round % 8) * room as u64;
        // The page is in the cache before the direct write goes behind it.
        backing.cached.write_at(offset, &vec![round; room]).unwrap();
        memory.fill(0);
        backing.direct.read_at(offset, memory).unwrap();
        assert!(memory.iter().all(|byte| *byte == round));
        memory.fill(round + 100);
        backing.direct.write_at(offset, memory).unwrap();
        let mut cached = vec![0; room];
        backing.cached.read_at(offset, &mut cached).unwrap();
        assert!(cached == memory);
    }
}

/// Threads write sectors of the same pages, each sector by one thread: some on the direct way, some in part, and so
/// through the cache. None may undo another's.
#[test]
fn direct_and_cached_writers_of_one_page_never_lose_each_others_sectors() {
    const ROUNDS: u8 = 60;
    let Some(backing) = direct(64 * KIB, None) else { return };
    let volume = volume(backing);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let volume = &volume;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    for sector in (u64::from(thread)..128).step_by(4) {
                        // Odd threads leave the last byte alone, which stays zero.
                        let len = if thread % 2 == 0 { 512 } else { 511 };
                        volume.write(sector * 512, &mut vec![round + 1; len]).unwrap();
                        let mut expected = vec![round + 1; len];
                        expected.resize(512, 0);
                        let mut got = [0xEE; 512];
                        volume.read(sector * 512, &mut got).unwrap();
                        assert!(got[..] == expected, "sector {sector} in round {round}");
                    }
                    if round % 16 == 0 {
                        volume.flush().unwrap();
                    }
                }
            });
        }
    });
    for sector in 0..128usize {
        let mut got = [0xEE; 512];
        volume.read(sector as u64 * 512, &mut got).unwrap();
        assert_eq!(got[..511], [ROUNDS; 511]);
        assert_eq!(got[511], if sector % 2 == 0 { ROUNDS } else { 0 });
    }
}

#[test]
fn aligned_requests_stay_out_of_the_page_cache() {
    let Some(backing) = direct(1 << 20, None) else { return };
    let cached = FileBacking::new(rustix::io::dup(backing.cached.as_fd()).unwrap());
    let volume = volume(backing);
    let mut data = bytes(1 << 20, 3);
    let expected = data.clone();
    volume.write(0, &mut data).unwrap();
    let from_drive = read_from_drive(|| volume.read(0, &mut data).unwrap());
    assert!(data == expected);
    if from_drive < 1 << 20 {
        let _ = io::Write::write_fmt(
            &mut io::stderr(),
            format_args!("SKIPPED: the kernel does not count what is read in {FOLDER}\n"),
        );
        return;
    }
    // A page that was in the cache would not be read again. To ask for each whether it is there tells nothing: the
    // question has the kernel read ahead.
    assert_eq!(read_from_drive(|| cached.read_at(0, &mut data).unwrap()), 1 << 20);
    assert!(read_from_drive(|| cached.read_at(0, &mut data).unwrap()) < 1 << 20, "it counts all");
}

/// Bytes that this thread has drives read meanwhile (proc_pid_io(5), `read_bytes`).
fn read_from_drive(work: impl FnOnce()) -> u64 {
    let count = || {
        let text = std::fs::read_to_string("/proc/thread-self/io").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
        line.map_or(0, |number| number.parse::<u64>().unwrap())
    };
    let before = count();
    work();
    count() - before
}

#[test]
fn the_end_of_a_file_that_is_no_whole_block_is_reached() {
    let Some(backing) = direct(64 * KIB + 512, Some(4096)) else { return };
    let volume = volume(backing);
    let (mut data, expected) = (bytes(64 * 1024 + 512, 9), bytes(64 * 1024 + 512, 9));
    volume.write(0, &mut data).unwrap();
    volume.flush().unwrap();
    volume.read(0, &mut data).unwrap();
    assert!(data == expected);
    let mut last = [0; 512];
    volume.read(64 * KIB, &mut last).unwrap();
    assert_eq!(last, expected[64 * 1024..]);
}

#[test]
fn a_read_past_the_end_is_an_error_on_both_ways() {
    let Some(backing) = direct(8 * KIB, None) else { return };
    let mut memory = vec![0; 3 * 65_536];
    let start = memory.as_ptr().align_offset(65_536);
    for shift in [0, 1] {
        let room = &mut memory[start + shift..start + shift + 65_536];
        let error = backing.read_at(4 * KIB, room).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn holes_and_zeros_are_seen_on_both_ways() {
    let Some(backing) = direct(SIZE as u64, None) else { return };
    let volume = volume(backing);
    volume.write(0, &mut bytes(SIZE, 4)).unwrap();
    volume.discard(4096 + 512, 20 * KIB).unwrap();
    volume.write_zeroes(100 * KIB + 512, 40 * KIB, false).unwrap();
    volume.write_zeroes(150 * KIB + 10, 3, true).unwrap();
    let (mut got, mut expected) = (vec![0; SIZE], bytes(SIZE, 4));
    volume.read(0, &mut got).unwrap();
    expected[4096 + 512..4096 + 512 + 20 * 1024].fill(0);
    expected[100 * 1024 + 512..140 * 1024 + 512].fill(0);
    expected[150 * 1024 + 10..150 * 1024 + 13].fill(0);
    assert!(got == expected);
}

/// A file system that asks for more than it says: the kernel's EINVAL fails the request as a fault of the storage, and
/// changes nothing.
#[test]
fn a_request_that_the_kernel_finds_unaligned_fails_and_changes_nothing() {
    let Some((cached, direct)) = descriptors(64 * KIB) else { return };
    let honest = DirectBacking::new(cached.try_clone().unwrap(), direct.try_clone().unwrap());
    let before = bytes(64 * 1024, 5);
    honest.unwrap().write_at(0, &before).unwrap();
    let careless = Alignment::new(1, 1).unwrap();
    let careless = DirectBacking::with_alignment(cached.try_clone().unwrap(), direct, careless);
    let error = careless.write_at(0, &vec![1; 4097][1..]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!((VolumeError::Io { action: "write", offset: 0, source: error }).fault(), Fault::Io);
    careless.flush().unwrap();
    let mut after = vec![0; 64 * 1024];
    FileBacking::new(cached).read_at(0, &mut after).unwrap();
    assert!(after == before);
}

#[test]
fn errors_of_the_kernel_come_through() {
    let file = tempfile::NamedTempFile::new_in(FOLDER).unwrap();
    file.as_file().set_len(8192).unwrap();
    let Ok(direct) = open_direct(file.path(), OFlags::RDONLY) else { return };
    let backing = DirectBacking::new(File::open(file.path()).unwrap(), direct).unwrap();
    let page = vec![0; 3 * 4096];
    let start = page.as_ptr().align_offset(4096);
    for shift in [0, 1] {
        let error = backing.write_at(0, &page[start + shift..start + shift + 4096]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(9), "EBADF");
    }
    assert_eq!(backing.punch(0, 512).unwrap_err().raw_os_error(), Some(9), "EBADF");
}

#[test]
fn only_two_fitting_descriptors_of_one_file_are_taken() {
    let Some((cached, direct)) = descriptors(8192) else { return };
    let Some((other, _)) = descriptors(8192) else { return };
    let copy = |fd: &OwnedFd| rustix::io::dup(fd).unwrap();
    for (cached, direct) in [
        (copy(&other), copy(&direct)),
        (copy(&cached), copy(&cached)),
        (File::open("/dev/null").unwrap().into(), copy(&direct)),
    ] {
        let error = DirectBacking::new(cached, direct).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&cached));
    let read_only = File::open(path).unwrap();
    let error = DirectBacking::new(read_only, copy(&direct)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    let backing = DirectBacking::new(cached, direct).unwrap();
    assert!(backing.waits_on_write() && !backing.is_memory());
    assert!(!backing.read_ready(0, &mut [0; 512]).unwrap());
}
