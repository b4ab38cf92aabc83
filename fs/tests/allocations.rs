//! The data path takes no memory from the heap: reads of any alignment and aligned writes, once the
//! cipher has been used.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test does")]

use cryptfs::backing::{Backing, DirectBacking, FileBacking};
use cryptfs::volume::{Geometry, Volume};
use crypto::{Arena, Dek, Engine, Unit};
use rustix::fs::{Mode, OFlags};
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

const SIZE: u64 = 1 << 20;

/// Whether the page cache is used.
#[derive(Debug, Clone, Copy)]
enum Cache {
    Used,
    Avoided,
}

/// A file on a drive; `None`, said aloud, where that has no direct I/O.
fn backing(cache: Cache) -> Option<Box<dyn Backing>> {
    let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    file.as_file().set_len(SIZE).unwrap();
    if matches!(cache, Cache::Used) {
        return Some(Box::new(FileBacking::from(file.into_file())));
    }
    let flags = OFlags::RDWR | OFlags::DIRECT;
    let direct = rustix::fs::open(file.path(), flags, Mode::empty());
    match direct.map_err(Into::into).and_then(|direct| DirectBacking::new(file.into_file(), direct))
    {
        Ok(backing) => Some(Box::new(backing)),
        Err(error) => {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: no direct I/O in /var/tmp: {error}\n"),
            );
            None
        }
    }
}

fn volume(backing: Box<dyn Backing>, engine: Engine) -> Volume {
    let arena = Arena::new(16 * 1024).unwrap();
    let geometry = Geometry { size: SIZE, unit: Unit::B4096, read_only: false };
    let key = Dek::generate(&arena).unwrap();
    Volume::with_engine(backing, key, geometry, engine).unwrap()
}

#[test]
fn reads_and_aligned_writes_take_no_memory() {
    assert_ne!(taken(|| drop(Box::new(1))), 0, "the counter counts");
    let engines = [Engine::default(), Engine::Portable];
    for (engine, cache) in engines.into_iter().flat_map(|e| [(e, Cache::Used), (e, Cache::Avoided)])
    {
        let Some(backing) = backing(cache) else { continue };
        let volume = volume(backing, engine);
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
        assert_eq!(taken(requests), 0, "{engine:?} {cache:?}");
    }
}
