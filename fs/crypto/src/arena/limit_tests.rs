//! Tests of what happens without the right to lock memory, and after a fork. Each plays its part in a
//! process of its own, because limits belong to processes.

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::{Arena, ArenaError, MemlockLimit, Protection, lock_process_memory};
use crate::support::{in_child, role};
use crate::{Dek, KeyError, KeySheet, MacKey, SheetKey};

/// Sets the limit and gives up the right to pass it, as for an ordinary user.
fn limit_to(bytes: u64) {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    sets.permitted.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Memlock, limit).unwrap();
}

/// The text says which limit, its value and what to do.
fn assert_names_the_limit(error: &ArenaError, bytes: u64) {
    let ArenaError::LockLimit { limit, .. } = error else { panic!("{error:?}") };
    assert_eq!(*limit, MemlockLimit(Some(bytes)));
    let text = error.to_string();
    for part in [&format!("RLIMIT_MEMLOCK is {bytes} bytes"), "LimitMEMLOCK=", "CAP_IPC_LOCK"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn no_right_to_lock_is_a_clear_error() {
    if role().is_none() {
        let said =
            in_child("arena::limit_tests::no_right_to_lock_is_a_clear_error", "limited", |_| {});
        assert_eq!(said, "refused");
        return;
    }
    let full = Arena::new(4096).unwrap();
    let disk = Dek::generate(&full).unwrap();
    limit_to(0);
    assert_names_the_limit(&Arena::new(4096).unwrap_err(), 0);
    assert_names_the_limit(&Arena::new_locked(4096).unwrap_err(), 0);
    match KeySheet::seal(&[SheetKey::Disk(&disk)]) {
        Err(KeyError::Arena(error)) => assert_names_the_limit(&error, 0),
        other => panic!("{other:?}"),
    }
    println!("child: refused");
}

#[test]
fn a_low_limit_is_a_clear_error_above_it_and_none_below() {
    if role().is_none() {
        let test = "arena::limit_tests::a_low_limit_is_a_clear_error_above_it_and_none_below";
        assert_eq!(in_child(test, "limited", |_| {}), "refused above, made below");
        return;
    }
    limit_to(64 * 1024);
    assert_names_the_limit(&Arena::new(128 * 1024).unwrap_err(), 64 * 1024);
    assert_names_the_limit(&Arena::new_locked(128 * 1024).unwrap_err(), 64 * 1024);
    assert_names_the_limit(&lock_process_memory().unwrap_err(), 64 * 1024);
    // A failed arena leaves nothing locked behind: this fills the limit to the last page.
    let arena = Arena::new(64 * 1024).unwrap();
    assert_eq!(arena.slot(64 * 1024).unwrap().bytes().len(), 64 * 1024);
    drop(arena);
    Arena::new_locked(64 * 1024).unwrap();
    println!("child: refused above, made below");
}

#[test]
fn the_whole_process_can_be_locked() {
    if role().is_none() {
        let said =
            in_child("arena::limit_tests::the_whole_process_can_be_locked", "locked", |_| {});
        assert!(said == "locked" || said.contains("RLIMIT_MEMLOCK"), "{said}");
        return;
    }
    match lock_process_memory() {
        Ok(()) => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
            assert_ne!(locked.trim(), "0 kB");
            println!("child: locked");
        }
        // A machine without the right: the error must say so.
        Err(error) => println!("child: {error}"),
    }
}

/// What a forked child can copy out of the arena: nothing, the kernel says EFAULT.
#[test]
fn a_forked_child_has_no_arena() {
    let test = "arena::limit_tests::a_forked_child_has_no_arena";
    let Some(kind) = role() else {
        for kind in ["secret", "locked"] {
            assert_eq!(in_child(test, kind, |_| {}), "parent reads, child does not");
        }
        return;
    };
    let arena = if kind == "secret" { Arena::new(4096) } else { Arena::new_locked(4096) }.unwrap();
    assert!(kind == "secret" || arena.protection() == Protection::LockedMemory);
    let mut slot = arena.slot(64).unwrap();
    slot.bytes_mut().fill(0x5a);
    let (reader, writer) = std::io::pipe().unwrap();
    let copy_out = || rustix::io::write(&writer, slot.bytes());
    assert_eq!(copy_out(), Ok(64));
    // SAFETY: the child makes two system calls and leaves; it touches no lock and no heap.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = if copy_out() == Err(rustix::io::Errno::FAULT) { 0 } else { 1 };
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = -1;
    // SAFETY: waits for the child just made; `status` is valid for writes.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child could copy from the arena");
    drop(reader);
    println!("child: parent reads, child does not");
}

/// Makes `memfd_secret` answer as a kernel without it does, for this thread.
fn forbid_secret_memory() {
    let number = u32::try_from(libc::SYS_memfd_secret).unwrap();
    let errno = u32::try_from(libc::ENOSYS).unwrap();
    let op =
        |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let mut filter = [
        // The number of the call is the first word of what the filter sees.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true).unwrap();
    // SAFETY: `program` points to four valid instructions that outlive the call, which copies them.
    let done =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(done, 0);
}

/// Without secret memory in the kernel, arena and key sheet fall back to locked memory and work.
#[test]
fn without_secret_memory_locked_memory_is_used() {
    if role().is_none() {
        let test = "arena::limit_tests::without_secret_memory_locked_memory_is_used";
        assert_eq!(in_child(test, "old-kernel", |_| {}), "fell back");
        return;
    }
    forbid_secret_memory();
    let arena = Arena::new(16 * 1024).unwrap();
    assert_eq!(arena.protection(), Protection::LockedMemory);
    let disk = Dek::generate(&arena).unwrap();
    let mut sheet =
        KeySheet::open(KeySheet::seal(&[SheetKey::Disk(&disk)]).unwrap(), &arena).unwrap();
    let label = |key: &Dek| MacKey::derive(key, &arena, "same?").unwrap().tag(&[]);
    assert_eq!(label(&sheet.take_disk().unwrap()), label(&disk));
    limit_to(0);
    assert_names_the_limit(&Arena::new(4096).unwrap_err(), 0);
    assert!(matches!(KeySheet::seal(&[SheetKey::Disk(&disk)]), Err(KeyError::Arena(_))));
    println!("child: fell back");
}
