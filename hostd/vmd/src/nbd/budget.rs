//! How many threads of the host may look for requests instead of sleeping.
//!
//! Owns the places for them, in memory that all vmds of the host may share. It must not know who looks for what. A
//! place holds the time until which it is taken, so one whose holder has died falls free by itself. Flow:
//! [`Budget::claim`] before looking; dropping the [`Place`] afterwards.

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Longest time that a place is taken at once: above any window, far below what an operator would notice.
const TERM: Duration = Duration::from_millis(1);

/// Most places; each is looked at in turn.
const MAX_PLACES: usize = 512;

/// Places for threads that look.
#[derive(Debug, Clone)]
pub struct Budget {
    places: Arc<Places>,
}

#[derive(Debug)]
enum Places {
    Own(Box<[AtomicU64]>),
    Shared(Shared),
}

/// A mapping of memory that other processes have mapped too.
#[derive(Debug)]
struct Shared {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping lasts as long as the value, and is reached only as atomics.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// A place that is taken.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a AtomicU64);

impl Budget {
    /// So many places, for this process alone.
    pub fn own(places: usize) -> Self {
        let places = (0..places).map(|_| AtomicU64::new(0)).collect();
        Self { places: Arc::new(Places::Own(places)) }
    }

    /// The places in `memory`, a memfd that can neither shrink nor grow.
    ///
    /// # Errors
    /// When it is anything else, or cannot be mapped.
    pub fn shared(memory: &OwnedFd) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let seals = fcntl_get_seals(memory)?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(invalid("the memory can be taken away"));
        }
        let bytes = usize::try_from(fstat(memory)?.st_size).map_err(io::Error::other)?;
        let count = bytes / size_of::<AtomicU64>();
        if !(1..=MAX_PLACES).contains(&count) {
            return Err(invalid("it has not the size of a few places"));
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory; the seals keep the file as
        // long as the mapping.
        let start =
            unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, memory, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { places: Arc::new(Places::Shared(Shared { start, count })) })
    }

    /// Takes a place, if one is free.
    pub(super) fn claim(&self) -> Option<Place<'_>> {
        let now = nanoseconds();
        let until = now + u64::try_from(TERM.as_nanos()).unwrap_or(u64::MAX);
        self.places.all().iter().find_map(|place| {
            let taken = place.load(Ordering::Relaxed);
            // A time farther off than any holder sets is nobody's.
            if taken > now && taken <= until {
                return None;
            }
            place.compare_exchange(taken, until, Ordering::Relaxed, Ordering::Relaxed).ok()?;
            Some(Place(place))
        })
    }
}

impl Places {
    fn all(&self) -> &[AtomicU64] {
        match self {
            Self::Own(places) => places,
            // SAFETY: `start` points to `count` mapped, page-aligned words, which every process uses as atomics only.
            Self::Shared(Shared { start, count }) => unsafe {
                std::slice::from_raw_parts(start.as_ptr(), *count)
            },
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let bytes = self.count * size_of::<AtomicU64>();
        // SAFETY: the mapping was made with this length, and no borrow of it is left.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), bytes) };
        debug_assert!(unmapped.is_ok(), "unmapping an own mapping cannot fail");
    }
}

/// The places of a process that shares with nobody: one for each two processors, and one at least.
impl Default for Budget {
    fn default() -> Self {
        static OWN: LazyLock<Budget> = LazyLock::new(|| {
            Budget::own((std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1))
        });
        OWN.clone()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Time of the host since it started, the same in all processes.
fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    #[test]
    fn places_are_limited_and_come_back() {
        let budget = Budget::own(2);
        let first = budget.claim().unwrap();
        let second = budget.claim().unwrap();
        assert!(budget.claim().is_none());
        drop(first);
        assert!(budget.claim().is_some());
        drop(second);
        assert!(Budget::own(0).claim().is_none());
    }

    #[test]
    fn a_place_of_the_dead_falls_free() {
        let budget = Budget::own(1);
        std::mem::forget(budget.claim().unwrap());
        assert!(budget.claim().is_none());
        std::thread::sleep(2 * TERM);
        assert!(budget.claim().is_some());
        // Whatever else stands there, it holds nothing up.
        budget.places.all()[0].store(u64::MAX, Ordering::Relaxed);
        assert!(budget.claim().is_some());
    }

    #[test]
    fn processes_share_their_places() {
        let memory = |bytes, seals| {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let fd = memfd_create("places", flags).unwrap();
            ftruncate(&fd, bytes).unwrap();
            fcntl_add_seals(&fd, seals).unwrap();
            fd
        };
        let seals = SealFlags::SHRINK | SealFlags::GROW;
        let fd = memory(16, seals);
        let [one, other] = [(); 2].map(|()| Budget::shared(&fd).unwrap());
        let held = [one.claim().unwrap(), other.claim().unwrap()];
        assert!(one.claim().is_none() && other.claim().is_none());
        drop(held);
        assert!(one.claim().is_some());
        for (bytes, seals) in [(16, SealFlags::GROW), (0, seals), (1 << 20, seals)] {
            assert!(Budget::shared(&memory(bytes, seals)).is_err(), "{bytes} {seals:?}");
        }
    }
}
