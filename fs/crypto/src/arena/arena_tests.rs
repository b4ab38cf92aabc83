//! Tests of the arena on the running kernel: protection, wiping, exhaustion.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::{Arena, ArenaError, Held, MAX_CAPACITY, Protection, Slot};
use crate::support::{in_child, role};

fn both_kinds() -> [Arena; 2] {
    [Arena::new(8192).unwrap(), Arena::new_locked(8192).unwrap()]
}

/// Where a slot is, for looking at it from outside.
fn address(slot: &Slot) -> u64 {
    u64::try_from(slot.bytes().as_ptr().addr()).unwrap()
}

fn peek(address: u64) -> std::io::Result<[u8; 16]> {
    let mut memory = File::open("/proc/self/mem")?;
    memory.seek(SeekFrom::Start(address))?;
    let mut bytes = [0; 16];
    memory.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The line of `VmFlags` of the mapping that holds the address.
fn vm_flags(address: u64) -> String {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        if let Some((range, _)) = line.split_once(' ')
            && let Some((start, end)) = range.split_once('-')
            && let (Ok(start), Ok(end)) =
                (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            inside = (start..end).contains(&address);
        }
        if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            return format!("{flags} ");
        }
    }
    panic!("no mapping at {address:x}");
}

#[test]
fn slots_are_zeroed_aligned_and_disjoint() {
    for arena in both_kinds() {
        let mut first = arena.slot(100).unwrap();
        let mut second = arena.slot(32).unwrap();
        assert_eq!(first.bytes(), [0; 100]);
        assert_eq!(address(&first) % 64, 0);
        assert_eq!(address(&second) % 64, 0);
        first.bytes_mut().fill(1);
        second.bytes_mut().fill(2);
        assert_eq!(first.bytes(), [1; 100]);
        assert_eq!(second.bytes(), [2; 32]);
        assert_eq!(arena.usage().used, 128 + 64);
    }
}

#[test]
fn freed_slots_are_wiped_and_counted() {
    for arena in both_kinds() {
        let mut slot = arena.slot(64).unwrap();
        slot.bytes_mut().fill(0xaa);
        let place = slot.bytes().as_ptr();
        drop(slot);
        assert_eq!(arena.usage().used, 0);
        // SAFETY: the place is inside the arena, which is mapped while `arena` lives; nobody has it.
        let left: [u8; 64] = unsafe { place.cast::<[u8; 64]>().read_volatile() };
        assert_eq!(left, [0; 64]);
    }
}

#[test]
fn a_full_arena_says_so_and_recovers() {
    let arena = Arena::new(4096).unwrap();
    let capacity = arena.usage().capacity;
    let all: Vec<Slot> = (0..capacity / 64).map(|_| arena.slot(64).unwrap()).collect();
    match arena.slot(1).map(drop) {
        Err(ArenaError::Full { wanted: 1, used, capacity: all }) => assert_eq!(used, all),
        other => panic!("{other:?}"),
    }
    drop(all);
    assert_eq!(arena.slot(capacity).unwrap().bytes().len(), capacity);
}

#[test]
fn refuses_sizes_that_no_arena_has() {
    for capacity in [0, MAX_CAPACITY + 1, usize::MAX] {
        assert!(matches!(Arena::new(capacity), Err(ArenaError::Capacity { .. })), "{capacity}");
    }
}

#[test]
fn secret_memory_cannot_be_read_from_outside() {
    let arena = Arena::new(4096).unwrap();
    if arena.protection() != Protection::SecretMemory {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: this kernel has no memfd_secret\n"),
        );
        return;
    }
    let mut slot = arena.slot(64).unwrap();
    slot.bytes_mut().fill(0x5a);
    let error = peek(address(&slot)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    assert_eq!(arena.protection().as_str(), "secret-memory");
}

#[test]
fn locked_memory_can_be_read_from_outside_so_the_test_above_means_something() {
    let arena = Arena::new_locked(4096).unwrap();
    let mut slot = arena.slot(64).unwrap();
    slot.bytes_mut().fill(0x5a);
    assert_eq!(peek(address(&slot)).unwrap(), [0x5a; 16]);
    assert_eq!(arena.protection().as_str(), "locked-memory");
}

#[test]
fn the_kernel_shows_the_flags_that_were_asked_for() {
    let [preferred, locked] = both_kinds();
    let (secret_slot, locked_slot) = (preferred.slot(64).unwrap(), locked.slot(64).unwrap());
    for address in [address(&secret_slot), address(&locked_slot)] {
        let flags = vm_flags(address);
        // Locked, not dumped, not copied on fork.
        for flag in [" lo ", " dd ", " dc "] {
            assert!(flags.contains(flag), "{flag} in {flags}");
        }
    }
    assert!(vm_flags(address(&locked_slot)).contains(" wf "), "wiped on fork");
}

#[test]
fn guard_pages_surround_the_region() {
    for arena in both_kinds() {
        let capacity = arena.usage().capacity;
        let slot = arena.slot(capacity).unwrap();
        let start = address(&slot);
        for outside in [start - 1, start + u64::try_from(capacity).unwrap()] {
            let flags = vm_flags(outside);
            assert!(!flags.contains(" rd ") && !flags.contains(" wr "), "{flags}");
        }
    }
}

/// In a process of its own, where no other thread maps something at the freed place.
#[test]
fn the_region_goes_with_its_last_user() {
    if role().is_none() {
        let said = in_child("arena::tests::the_region_goes_with_its_last_user", "owner", |_| {});
        assert_eq!(said, "mapped, then not");
        return;
    }
    let arena = Arena::new_locked(4096).unwrap();
    let slot = arena.slot(64).unwrap();
    let place = address(&slot);
    drop(arena);
    assert!(peek(place).is_ok(), "the slot keeps the region");
    drop(slot);
    assert_eq!(peek(place).unwrap_err().raw_os_error(), Some(libc::EIO), "nothing is mapped");
    println!("child: mapped, then not");
}

#[test]
fn a_held_value_lives_in_the_arena_and_is_dropped() {
    struct Loud<'a>(u64, &'a std::cell::Cell<u32>);
    impl Drop for Loud<'_> {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
        }
    }
    let drops = std::cell::Cell::new(0);
    let arena = Arena::new(4096).unwrap();
    let held = Held::new(&arena, || Loud(7, &drops)).unwrap();
    assert_eq!(held.0, 7);
    assert!(arena.usage().used >= size_of::<Loud<'_>>());
    drop(held);
    assert_eq!((drops.get(), arena.usage().used), (1, 0));
}

#[test]
fn many_threads_share_one_arena() {
    let arena = Arena::new(64 * 1024).unwrap();
    std::thread::scope(|scope| {
        for thread in 1..=4_u8 {
            let arena = &arena;
            scope.spawn(move || {
                for round in 0..500_usize {
                    let mut slot = arena.slot(1 + round % 200).unwrap();
                    assert!(slot.bytes().iter().all(|byte| *byte == 0));
                    slot.bytes_mut().fill(thread);
                    assert!(slot.bytes().iter().all(|byte| *byte == thread));
                }
            });
        }
    });
    assert_eq!(arena.usage().used, 0);
}
