//! The data path takes no memory from the heap: reads of any alignment and aligned writes, once the
//! cipher has been used.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test does")]

use cryptfs::backing::FileBacking;
use cryptfs::volume::{Geometry, Volume};
use crypto::{Arena, Dek, Engine, Unit};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting the calls of each thread.
struct Counting;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract; the
// counter is a constant-initialised thread local without a destructor, so counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.with(|taken| taken.set(taken.get() + 1));
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

/// Allocations of this thread during a call.
fn taken(call: impl FnOnce()) -> u64 {
    let before = TAKEN.with(Cell::get);
    call();
    TAKEN.with(Cell::get) - before
}

fn volume(engine: Engine) -> Volume {
    let arena = Arena::new(16 * 1024).unwrap();
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let geometry = Geometry { size: 1 << 20, unit: Unit::B4096, read_only: false };
    let key = Dek::generate(&arena).unwrap();
    Volume::with_engine(Box::new(FileBacking::from(file)), key, geometry, engine).unwrap()
}

#[test]
fn reads_and_aligned_writes_take_no_memory() {
    assert_ne!(taken(|| drop(Box::new(1))), 0, "the counter counts");
    for engine in [Engine::default(), Engine::Portable] {
        let volume = volume(engine);
        let mut buf = vec![7; 128 * 1024];
        let mut requests = || {
            for (offset, len) in [(0, 4096), (512, 512), (8192, 128 * 1024), (4096 + 512, 12_800)] {
                volume.write(offset, &mut buf[..len]).unwrap();
                volume.read(offset, &mut buf[..len]).unwrap();
                volume.read(offset + 1, &mut buf[..len]).unwrap();
            }
            volume.flush().unwrap();
        };
        // The first use of a cipher sets up its context.
        requests();
        assert_eq!(taken(requests), 0, "{engine:?}");
    }
}
