//! Owns the locked memory in which every key lives.
//!
//! It must not know what a key is: it hands out wiped blocks ([`Slot`]) and typed values
//! ([`Held`]) inside one region. Flow: [`Arena::new`] maps the region once; key types take slots
//! from it; a dropped slot is wiped and goes back to the free list.
//!
//! All `unsafe` of the memory side is in `region` (mapping) and `slot` (views of it).

mod error;
mod free;
mod region;
mod slot;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use error::{ArenaError, MemlockLimit};
pub(crate) use region::{Region, secret_memory_fd};
pub(crate) use slot::{Held, Slot};

use free::FreeList;

/// Largest arena. A host with 1,000 VMs of 10 disks needs under 1 MiB for its keys; 64 MiB is far
/// above any use and keeps a wrong unit in a configuration from locking the host's memory.
const MAX_CAPACITY: usize = 64 * 1024 * 1024;

/// One region of locked memory, shared by all clones of the handle.
///
/// The region is `memfd_secret(2)` memory where the kernel has it: such pages leave the kernel's
/// direct map, so `/proc/PID/mem`, `ptrace` and `process_vm_readv` cannot read them even as root,
/// and core dumps leave them out. Elsewhere it is anonymous memory with `mlock`, `MADV_DONTDUMP`
/// and `MADV_WIPEONFORK`. Both lie between inaccessible guard pages and are absent in a forked
/// child.
#[derive(Clone)]
pub struct Arena {
    shared: Arc<Shared>,
}

/// How the arena's pages are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// `memfd_secret(2)`: unreadable from outside the process, never swapped, never dumped.
    SecretMemory,
    /// `mlock(2)`: never swapped, not dumped, but readable by root through `/proc/PID/mem`.
    LockedMemory,
}

/// How full an arena is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes handed out, rounded up to whole granules.
    pub used: usize,
    /// Bytes of the whole region.
    pub capacity: usize,
}

/// The region and the record of which parts of it are free.
struct Shared {
    region: Region,
    free: Mutex<FreeList>,
}

impl Arena {
    /// Maps and locks a region of at least `capacity` bytes (rounded up to whole pages).
    ///
    /// # Errors
    /// [`ArenaError::LockLimit`] when the process may not lock that much; it names
    /// `RLIMIT_MEMLOCK`, its value and the remedy. [`ArenaError::Capacity`] for zero or more than
    /// 64 MiB. Nothing is ever kept in unlocked memory instead.
    pub fn new(capacity: usize) -> Result<Self, ArenaError> {
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(ArenaError::Capacity { capacity, max: MAX_CAPACITY });
        }
        Ok(Self::over(Region::new(capacity)?))
    }

    /// An arena of the fallback kind, whatever the kernel offers.
    #[cfg(test)]
    pub(crate) fn new_locked(capacity: usize) -> Result<Self, ArenaError> {
        Ok(Self::over(Region::new_locked(capacity)?))
    }

    fn over(region: Region) -> Self {
        let free = Mutex::new(FreeList::new(region.len()));
        Self { shared: Arc::new(Shared { region, free }) }
    }

    /// How this arena's pages are protected.
    pub fn protection(&self) -> Protection {
        self.shared.region.protection()
    }

    /// Bytes in use and in all.
    pub fn usage(&self) -> Usage {
        let free = self.shared.free_list();
        Usage { used: free.used(), capacity: free.capacity() }
    }

    /// A zeroed block of exactly `len` bytes, 64-byte aligned.
    pub(crate) fn slot(&self, len: usize) -> Result<Slot, ArenaError> {
        Slot::take(&self.shared, len)
    }
}

impl Protection {
    /// The name shown to operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecretMemory => "secret-memory",
            Self::LockedMemory => "locked-memory",
        }
    }
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let usage = self.usage();
        write!(
            f,
            "Arena({}, {} of {} bytes)",
            self.protection().as_str(),
            usage.used,
            usage.capacity
        )
    }
}

impl Shared {
    /// The free list. A panic while it was held cannot leave it half changed (its two operations
    /// do not panic after their first write), so poison is ignored.
    fn free_list(&self) -> MutexGuard<'_, FreeList> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks all memory of the process, present and future, as it is touched.
///
/// For processes whose cipher library keeps key schedules on its own heap (AWS-LC contexts).
///
/// # Errors
/// [`ArenaError::LockLimit`] when the limit is too low for what is mapped already.
pub fn lock_process_memory() -> Result<(), ArenaError> {
    use rustix::mm::{MlockAllFlags, mlockall};
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).map_err(|errno| ArenaError::locking("the whole process", errno))
}

#[cfg(test)]
mod limit_tests;
#[cfg(test)]
#[path = "arena_tests.rs"]
mod tests;
