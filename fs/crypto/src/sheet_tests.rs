//! Tests of key sheets: order, damage, foreign descriptors, the fallback, wiping.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::{KeySheet, MAX_SHEET_KEYS, SheetKey, locked_memory_fd, sheet_bytes};
use crate::arena::{Arena, Protection, Region};
use crate::keys::sealed::Bytes;
use crate::keys::{Dek, HomeKey};
use crate::support::{arena, in_child, role};
use crate::{KeyError, MacKey};

/// A sheet of any contents.
fn sheet(write: impl FnOnce(&Region)) -> OwnedFd {
    let fd = locked_memory_fd(sheet_bytes(2)).unwrap();
    let region = Region::from_fd(fd.as_fd(), sheet_bytes(2), Protection::LockedMemory).unwrap();
    write(&region);
    fd
}

fn damage(fd: OwnedFd) -> &'static str {
    match KeySheet::open(fd, &arena()) {
        Err(KeyError::SheetDamaged(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_arrive_in_order_and_the_sheet_is_wiped() {
    let (ours, theirs) = (arena(), arena());
    let home = HomeKey::generate(&ours).unwrap();
    let disks: Vec<Dek> = (0..3).map(|_| Dek::generate(&ours).unwrap()).collect();
    let mut keys = vec![SheetKey::Home(&home)];
    keys.extend(disks.iter().map(SheetKey::Disk));
    let fd = KeySheet::seal(&keys).unwrap();
    let copy = fd.try_clone().unwrap();

    let mut sheet = KeySheet::open(fd, &theirs).unwrap();
    assert_eq!(sheet.take_home().unwrap().bytes(), home.bytes());
    for disk in &disks {
        assert_eq!(sheet.take_disk().unwrap().bytes(), disk.bytes());
    }
    assert!(matches!(sheet.take_disk(), Err(KeyError::SheetOrder { found: "nothing", .. })));
    assert_eq!(damage(copy), "it does not start with the mark of this version");
    assert_eq!(theirs.usage().used, 0, "taken keys were dropped, the copy of the sheet too");
}

#[test]
fn the_wrong_kind_is_refused_and_stays() {
    let arena = arena();
    let disk = Dek::generate(&arena).unwrap();
    let mut sheet =
        KeySheet::open(KeySheet::seal(&[SheetKey::Disk(&disk)]).unwrap(), &arena).unwrap();
    let refused = sheet.take_home();
    assert!(matches!(refused, Err(KeyError::SheetOrder { wanted: "home", found: "a disk key" })));
    assert_eq!(sheet.take_disk().unwrap().bytes(), disk.bytes());
}

#[test]
fn holds_as_many_keys_as_it_says_and_no_more() {
    let arena = Arena::new(256 * 1024).unwrap();
    let disk = Dek::generate(&arena).unwrap();
    let keys = vec![SheetKey::Disk(&disk); MAX_SHEET_KEYS + 1];
    assert!(matches!(KeySheet::seal(&keys), Err(KeyError::SheetFull { count: 257, max: 256 })));
    let mut sheet = KeySheet::open(KeySheet::seal(&keys[1..]).unwrap(), &arena).unwrap();
    for _ in 0..MAX_SHEET_KEYS {
        assert_eq!(sheet.take_disk().unwrap().bytes(), disk.bytes());
    }
    assert!(KeySheet::open(KeySheet::seal(&[]).unwrap(), &arena).unwrap().take_home().is_err());
}

#[test]
fn an_arena_that_is_too_small_is_an_error_and_keeps_nothing() {
    let small = Arena::new(4096).unwrap();
    let disk = Dek::generate(&arena()).unwrap();
    let fd = KeySheet::seal(&vec![SheetKey::Disk(&disk); 100]).unwrap();
    assert!(matches!(KeySheet::open(fd, &small), Err(KeyError::Arena(_))));
    assert_eq!(small.usage().used, 0);
}

#[test]
fn the_fallback_carries_keys_too() {
    let arena = arena();
    let disk = Dek::generate(&arena).unwrap();
    let len = sheet_bytes(1);
    let fd = locked_memory_fd(len).unwrap();
    let fd = KeySheet::fill(fd, &[SheetKey::Disk(&disk)], len, Protection::LockedMemory).unwrap();
    let mut sheet = KeySheet::open(fd, &arena).unwrap();
    assert_eq!(sheet.take_disk().unwrap().bytes(), disk.bytes());
}

#[test]
fn damaged_sheets_are_refused() {
    assert_eq!(damage(sheet(|_| {})), "it does not start with the mark of this version");
    let with_count = |count: u64| {
        sheet(move |region| {
            region.write(0, &super::MAGIC);
            region.write(8, &count.to_le_bytes());
        })
    };
    for count in [57, 257, u64::MAX] {
        assert_eq!(damage(with_count(count)), "it has fewer keys than it says", "{count}");
    }
    assert_eq!(damage(with_count(1)), "it has a key of an unknown kind");
}

#[test]
fn equal_halves_are_refused() {
    let fd = sheet(|region| {
        region.write(0, &super::MAGIC);
        region.write(8, &1_u64.to_le_bytes());
        region.write(16, &super::KIND_DISK.to_le_bytes());
    });
    assert!(matches!(KeySheet::open(fd, &arena()), Err(KeyError::EqualHalves)));
}

#[test]
fn foreign_descriptors_are_refused() {
    let unsealed = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&unsealed, u64::try_from(sheet_bytes(1)).unwrap()).unwrap();
    assert_eq!(damage(unsealed), "it is neither secret memory nor a sealed memfd");
    for size in [0, 100, 1 << 30] {
        let fd = memfd_create("test", MemfdFlags::empty()).unwrap();
        ftruncate(&fd, size).unwrap();
        assert_eq!(damage(fd), "it has not the size of one");
    }
    let (reader, _writer) = std::io::pipe().unwrap();
    assert_eq!(damage(reader.into()), "it has not the size of one");
}

/// The real way: the sheet is inherited by a program that was started, as hostd starts a vmd. Both
/// sides show that they hold the same key by a tag made with it.
#[test]
fn a_started_program_gets_the_keys() {
    const FD: RawFd = 100;
    let tag_of = |disk: &Dek, arena: &Arena| {
        hex::encode(MacKey::derive(disk, arena, "handover test").unwrap().tag(&[b"hello"]))
    };
    let arena = arena();
    if role().is_some() {
        // SAFETY: the parent put the sheet at this number and nothing else in this process uses it.
        let fd = unsafe { OwnedFd::from_raw_fd(FD) };
        let mut sheet = KeySheet::open(fd, &arena).unwrap();
        sheet.take_home().unwrap();
        println!("child: {}", tag_of(&sheet.take_disk().unwrap(), &arena));
        return;
    }
    let (home, disk) = (HomeKey::generate(&arena).unwrap(), Dek::generate(&arena).unwrap());
    let fd = KeySheet::seal(&[SheetKey::Home(&home), SheetKey::Disk(&disk)]).unwrap();
    let said = in_child("sheet::tests::a_started_program_gets_the_keys", "receiver", |command| {
        let raw = fd.as_raw_fd();
        // SAFETY: the hook makes one system call that is allowed between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::dup2(raw, FD) {
                FD => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
    });
    assert_eq!(said, tag_of(&disk, &arena));
}
