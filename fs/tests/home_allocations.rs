//! Reads, writes and lookups of a mounted home take no memory from the heap. The counter is the process's: this test
//! is alone in it.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test does")]

#[expect(dead_code, reason = "shared with tests that need more of it")]
#[path = "home/mounted.rs"]
mod mounted;

use cryptfs::safe::Names;
use mounted::{Store, pattern};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering};

/// How the homes of these tests store names.
const NAMES: Names = Names::Plain;

/// The system's allocator, counting the calls of all threads.
struct Counting;

static TAKEN: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract; the counter is a
// static number.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `alloc` got the block from `System`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rounds of each request: enough that every thread that serves has had its turn before it counts.
const ROUNDS: u64 = 200;

fn taken(what: &str, mut call: impl FnMut()) {
    for _ in 0..ROUNDS {
        call();
    }
    let before = TAKEN.load(Ordering::Relaxed);
    for _ in 0..ROUNDS {
        call();
    }
    let taken = TAKEN.load(Ordering::Relaxed) - before;
    // A thread that had no turn yet makes its buffers; one allocation a request would be ROUNDS.
    assert!(taken < ROUNDS / 4, "{taken} allocations in {ROUNDS} times: {what}");
}

#[test]
fn requests_take_no_memory() {
    for names in [Names::Plain, Names::Encrypted] {
        requests_of(&Store::new().with(names));
    }
}

fn requests_of(store: &Store) {
    let Some(mount) = store.mount() else { return };
    let path = mount.at("f");
    fs::write(&path, pattern(1 << 20)).unwrap();
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path);
    let file = file.unwrap();
    let mut memory = vec![7; 128 * 1024];
    let mut at = 0;
    for len in [512, 4096, 100_000] {
        taken("read", || file.read_exact_at(&mut memory[..len], at).unwrap());
        taken("write", || file.write_all_at(&memory[..len], at).unwrap());
        taken("write that is not aligned", || file.write_all_at(&memory[..len], at + 5).unwrap());
        at += 8192;
    }
    taken("sync", || file.sync_data().unwrap());
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    taken("stat", || assert!(rustix::fs::stat(&*name).unwrap().st_size > 0));
    let missing = std::ffi::CString::new([name.as_bytes(), b"-missing"].concat()).unwrap();
    taken("lookup", || assert!(rustix::fs::stat(&*missing).is_err()));
    drop(file);
    mount.unmount();
}
