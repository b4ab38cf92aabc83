//! Content: what is written is what is read, before and after a remount.

use super::mounted::{Store, pattern};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

fn read_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Stored length of a plain size, as documented.
fn stored(size: u64) -> u64 {
    4096 + size.div_ceil(4096) * 4096 + size % 4096
}

#[test]
fn odd_writes_survive_a_remount() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let file = read_write(&mount.at("f"));
    let mut expected = Vec::new();
    for (at, len) in
        [(0, 1), (3, 510), (509, 7), (4095, 2), (100, 9000), (40_000, 3), (12_287, 4097)]
    {
        let bytes = pattern(len);
        expected.resize(expected.len().max(at + len), 0);
        expected[at..at + len].copy_from_slice(&bytes);
        file.write_all_at(&bytes, at as u64).unwrap();
        assert!(fs::read(mount.at("f")).unwrap() == expected, "{len} bytes at {at}");
    }
    file.sync_all().unwrap();
    drop(file);
    mount.unmount();
    let mount = store.mount().unwrap();
    assert!(fs::read(mount.at("f")).unwrap() == expected);
    assert_eq!(fs::metadata(mount.at("f")).unwrap().len(), expected.len() as u64);
    mount.unmount();
}

#[test]
fn every_size_is_kept() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let bytes = pattern(9000);
    let mut file = OpenOptions::new().append(true).create(true).open(mount.at("grows")).unwrap();
    for (size, byte) in bytes.iter().enumerate() {
        assert_eq!(file.metadata().unwrap().len(), size as u64);
        file.write_all(&[*byte]).unwrap();
        let below = fs::metadata(store.below("grows")).unwrap().len();
        assert_eq!(below, stored(size as u64 + 1));
    }
    assert!(fs::read(mount.at("grows")).unwrap() == bytes);
    for size in (0..=9000).step_by(37).chain([4095, 4096, 4097, 8191, 8192, 8193]) {
        fs::write(mount.at("whole"), &bytes[..size]).unwrap();
        assert!(fs::read(mount.at("whole")).unwrap() == bytes[..size], "size {size}");
    }
    drop(file);
    mount.unmount();
    let mount = store.mount().unwrap();
    assert!(fs::read(mount.at("grows")).unwrap() == bytes);
    mount.unmount();
}

#[test]
fn truncation_cuts_and_fills_with_zeros() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let file = read_write(&mount.at("f"));
    let mut expected = pattern(20_000);
    file.write_all_at(&expected, 0).unwrap();
    for size in [19_999, 12_288, 12_287, 13_000, 4096, 4097, 4095, 8192, 3, 0, 1, 9000] {
        file.set_len(size).unwrap();
        expected.resize(usize::try_from(size).unwrap(), 0);
        assert!(fs::read(mount.at("f")).unwrap() == expected, "size {size}");
        assert_eq!(fs::metadata(store.below("f")).unwrap().len(), stored(size));
    }
    drop(file);
    // By path, without a handle.
    let path = std::ffi::CString::new(mount.at("f").into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: the path is a C string that lives until the call returns.
    assert_eq!(unsafe { libc::truncate(path.as_ptr(), 5) }, 0);
    assert_eq!(fs::metadata(mount.at("f")).unwrap().len(), 5);
    mount.unmount();
}

#[test]
fn appenders_and_truncating_opens() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let path = mount.at("log");
    fs::write(&path, b"first").unwrap();
    let mut one = OpenOptions::new().append(true).open(&path).unwrap();
    let mut two = OpenOptions::new().append(true).open(&path).unwrap();
    for round in 0..200 {
        one.write_all(b"one").unwrap();
        two.write_all(b"second").unwrap();
        assert_eq!(one.metadata().unwrap().len(), 5 + 9 * (round + 1));
    }
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("first{}", "onesecond".repeat(200)));
    let emptied = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    assert_eq!(emptied.metadata().unwrap().len(), 0);
    assert_eq!(fs::metadata(store.below("log")).unwrap().len(), 4096, "the header is kept");
    drop((one, two, emptied));
    mount.unmount();
}

#[test]
fn a_running_program_is_not_emptied_by_an_open() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let path = mount.at("sleep");
    fs::copy("/bin/sleep", &path).unwrap();
    let text = fs::read(&path).unwrap();
    let mut program = std::process::Command::new(&path).arg("60").spawn().unwrap();
    let flags = OpenOptionsExt::custom_flags;
    for truncates in [false, true] {
        let refused = OpenOptions::new().write(true).truncate(truncates).open(&path).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ETXTBSY));
    }
    // Opened for reading, the file is opened before the kernel looks whether it may be truncated.
    let mut reads = OpenOptions::new();
    flags(reads.read(true), libc::O_TRUNC);
    let refused = reads.open(&path).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ETXTBSY));
    assert!(fs::read(&path).unwrap() == text, "the refused open changed the file");
    program.kill().unwrap();
    program.wait().unwrap();
    // Nobody runs it any more.
    let emptied = reads.open(&path).unwrap();
    assert_eq!(emptied.metadata().unwrap().len(), 0);
    drop(emptied);
    mount.unmount();
}

#[test]
fn synchronous_writes_and_write_only_handles() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let path = mount.at("f");
    let flags = OpenOptionsExt::custom_flags;
    for sync in [0, rustix::fs::OFlags::SYNC.bits(), rustix::fs::OFlags::DSYNC.bits()] {
        let mut options = OpenOptions::new();
        flags(options.write(true).create(true), sync.cast_signed());
        let file = options.open(&path).unwrap();
        file.write_all_at(b"unaligned", 777).unwrap();
        file.write_all_at(b"more", 780).unwrap();
        fs::remove_file(&path).unwrap();
        // Still writable, although no name is left.
        file.write_all_at(b"late", 5000).unwrap();
        file.sync_all().unwrap();
        assert_eq!((file.metadata().unwrap().len(), file.metadata().unwrap().nlink()), (5004, 0));
    }
    mount.unmount();
}

#[test]
fn unlinked_files_live_until_closed() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let mut file = read_write(&mount.at("gone"));
    file.write_all(&pattern(5000)).unwrap();
    fs::remove_file(mount.at("gone")).unwrap();
    fs::write(mount.at("gone"), b"another file").unwrap();
    file.write_all_at(b"xyz", 4999).unwrap();
    file.set_len(5001).unwrap();
    let mut back = vec![0; 6000];
    let got = file.read_at(&mut back, 0).unwrap();
    let mut expected = pattern(5000);
    expected.truncate(4999);
    expected.extend(b"xy");
    assert!(back[..got] == expected);
    assert_eq!(fs::read(mount.at("gone")).unwrap(), b"another file");
    drop(file);
    mount.unmount();
}

#[test]
fn shared_mappings_read_and_write() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let file = read_write(&mount.at("map"));
    file.write_all_at(&pattern(10_000), 0).unwrap();
    let mut expected = pattern(10_000);
    map(&file, 10_000, |bytes| {
        assert!(*bytes == expected[..]);
        bytes[4090..4100].copy_from_slice(b"0123456789");
        bytes[9999] = b'!';
    });
    expected[4090..4100].copy_from_slice(b"0123456789");
    expected[9999] = b'!';
    file.sync_all().unwrap();
    assert!(fs::read(mount.at("map")).unwrap() == expected);
    // What lies behind the end in the last page is not stored as content.
    file.set_len(12_000).unwrap();
    let mut tail = vec![1; 2000];
    file.read_exact_at(&mut tail, 10_000).unwrap();
    assert!(tail == [0; 2000]);
    drop(file);
    mount.unmount();
    let mount = store.mount().unwrap();
    expected.resize(12_000, 0);
    assert!(fs::read(mount.at("map")).unwrap() == expected);
    mount.unmount();
}

pub(crate) fn map(file: &File, len: usize, work: impl FnOnce(&mut [u8])) {
    map_and_sync(file, len, work).unwrap();
}

/// The same, where the sync may fail.
pub(crate) fn map_and_sync(
    file: &File,
    len: usize,
    work: impl FnOnce(&mut [u8]),
) -> rustix::io::Result<()> {
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh shared mapping of an open file, which nobody shortens while it is used; the slice is
    // gone before it is unmapped.
    unsafe {
        let at = mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, file, 0)?;
        work(std::slice::from_raw_parts_mut(at.cast(), len));
        let synced = msync(at, len, MsyncFlags::SYNC);
        munmap(at, len)?;
        synced
    }
}

/// Locks bytes for an open file, not for the process (`F_OFD_SETLK`, fcntl(2)), without waiting.
pub(crate) fn lock_range(file: &File, start: i64, len: i64) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    let kind = i16::try_from(libc::F_WRLCK).unwrap();
    let lock = libc::flock { l_type: kind, l_whence: 0, l_start: start, l_len: len, l_pid: 0 };
    // SAFETY: the descriptor is open, and the structure is initialised and outlives the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn parallel_writers_lose_nothing() {
    const PART: usize = 300 * 1024 + 77;
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let file = read_write(&mount.at("big"));
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let file = &file;
            scope.spawn(move || {
                let bytes = pattern(PART);
                for (index, piece) in bytes.chunks(4999).enumerate() {
                    file.write_all_at(piece, (worker * PART + index * 4999) as u64).unwrap();
                }
            });
        }
    });
    drop(file);
    mount.unmount();
    let mount = store.mount().unwrap();
    let mut back = Vec::new();
    File::open(mount.at("big")).unwrap().read_to_end(&mut back).unwrap();
    assert_eq!(back.len(), 6 * PART);
    assert!(back.chunks(PART).all(|part| part == pattern(PART)));
    mount.unmount();
}

#[test]
fn direct_io_reads_and_writes() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    options.custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed());
    let file = options.open(mount.at("raw")).unwrap();
    let bytes = pattern(1 << 20);
    file.write_all_at(&bytes, 4096).unwrap();
    let mut back = vec![0; 1 << 20];
    file.read_exact_at(&mut back, 4096).unwrap();
    assert!(back == bytes);
    drop(file);
    assert!(fs::read(mount.at("raw")).unwrap()[4096..] == bytes);
    mount.unmount();
}
