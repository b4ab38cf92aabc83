//! Owns one mapping of locked memory between guard pages: the only place that maps and unmaps.
//!
//! It must not know slots or keys. Flow: reserve an inaccessible range with one spare page at each
//! end, map secret memory (or locked anonymous memory) over its middle, close the descriptor; on
//! drop, unmap. What was written is wiped by those who wrote it.

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous, mprotect, munmap,
};

use super::{ArenaError, Protection};

/// A mapped, locked, zeroed region of whole pages with an inaccessible page on both sides.
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
    guard: usize,
    protection: Protection,
}

// SAFETY: a region is plain memory; it belongs to the process, not to the thread that mapped it.
unsafe impl Send for Region {}
// SAFETY: `&Region` only gives out the base address and sizes; who may touch which bytes is
// decided by the free list (slots) or by exclusive ownership (key sheets).
unsafe impl Sync for Region {}

impl Region {
    /// Secret memory, or locked anonymous memory where the kernel has no secret memory.
    pub(super) fn new(capacity: usize) -> Result<Self, ArenaError> {
        let len = whole_pages(capacity)?;
        match secret_memory_fd(len)? {
            Some(fd) => Self::from_fd(fd.as_fd(), len, Protection::SecretMemory),
            None => Self::anonymous(len),
        }
    }

    /// Locked anonymous memory.
    #[cfg(test)]
    pub(crate) fn new_locked(capacity: usize) -> Result<Self, ArenaError> {
        Self::anonymous(whole_pages(capacity)?)
    }

    /// Maps `len` bytes of `fd` shared. The caller may close `fd` afterwards; the mapping stays.
    ///
    /// A mapping of ordinary memory (`LockedMemory`) is locked here; secret memory is by nature.
    pub(crate) fn from_fd(
        fd: BorrowedFd<'_>,
        len: usize,
        protection: Protection,
    ) -> Result<Self, ArenaError> {
        let region = Self::reserve(len, protection)?;
        let at = region.base.as_ptr().cast::<c_void>();
        // SAFETY: the fixed address range [base, base + len) lies inside the reservation that
        // `region` owns and nothing refers to yet, so replacing its pages disturbs no one.
        let mapped = unsafe {
            mmap(
                at,
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                fd,
                0,
            )
        };
        if let Err(errno) = mapped {
            region.give_up_middle();
            return Err(ArenaError::locking(format!("{len} bytes"), errno));
        }
        if protection == Protection::LockedMemory {
            region.lock()?;
        }
        region.advise(Advice::LinuxDontFork)?;
        Ok(region)
    }

    fn anonymous(len: usize) -> Result<Self, ArenaError> {
        let region = Self::reserve(len, Protection::LockedMemory)?;
        let at = region.base.as_ptr().cast::<c_void>();
        // SAFETY: the range lies inside the reservation that `region` owns; making it accessible
        // affects no other mapping.
        unsafe {
            mprotect(at, len, rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE)
        }
        .map_err(|errno| ArenaError::os("mprotect", errno))?;
        region.lock()?;
        // Wipe-on-fork first: should the second advice be refused, a child still sees zeros only.
        region.advise(Advice::LinuxWipeOnFork)?;
        region.advise(Advice::LinuxDontFork)?;
        Ok(region)
    }

    /// An inaccessible reservation of `len` bytes and a guard page on both sides.
    fn reserve(len: usize, protection: Protection) -> Result<Self, ArenaError> {
        let guard = rustix::param::page_size();
        let total = len.checked_add(2 * guard).ok_or(ArenaError::os("mmap", Errno::NOMEM))?;
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice.
        let start = unsafe {
            mmap_anonymous(ptr::null_mut(), total, ProtFlags::empty(), MapFlags::PRIVATE)
        }
        .map_err(|errno| ArenaError::locking(format!("{len} bytes"), errno))?;
        // SAFETY: `start + guard` is inside the mapping of `total` bytes just made.
        let base = unsafe { start.cast::<u8>().add(guard) };
        let base = NonNull::new(base).ok_or(ArenaError::os("mmap", Errno::FAULT))?;
        Ok(Self { base, len, guard, protection })
    }

    /// Unmaps the guard pages only. A fixed mapping that fails may have removed what was there (so
    /// the kernel does when the lock limit refuses secret memory), and another thread may have
    /// mapped something in the gap since: it is no longer ours to unmap. At worst some inaccessible
    /// addresses stay reserved.
    fn give_up_middle(self) {
        let after = self.base.as_ptr().wrapping_add(self.len);
        let before = self.base.as_ptr().wrapping_sub(self.guard);
        for guard in [before, after] {
            // SAFETY: the page was mapped by `reserve`, is still ours, and no one refers to it.
            let _ = unsafe { munmap(guard.cast::<c_void>(), self.guard) };
        }
        std::mem::forget(self);
    }

    fn lock(&self) -> Result<(), ArenaError> {
        let at = self.base.as_ptr().cast::<c_void>();
        // SAFETY: the range is this region's own, mapped memory; locking changes no contents.
        unsafe { mlock(at, self.len) }
            .map_err(|errno| ArenaError::locking(format!("{} bytes", self.len), errno))?;
        self.advise(Advice::LinuxDontDump)
    }

    fn advise(&self, advice: Advice) -> Result<(), ArenaError> {
        let at = self.base.as_ptr().cast::<c_void>();
        // SAFETY: the range is this region's own, page-aligned mapping; none of the three advices
        // used here (dontdump, dontfork, wipeonfork) changes the contents in this process.
        unsafe { madvise(at, self.len, advice) }.map_err(|errno| ArenaError::os("madvise", errno))
    }

    /// Copies `bytes` into the region at `at`. Raw copies, because another process may have the same
    /// pages mapped: no reference to them is made.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at <= self.len && bytes.len() <= self.len - at, "a write stays inside its region");
        // SAFETY: the range was just checked to lie inside the mapping; `bytes` is a Rust slice and
        // no Rust reference to a shared region exists, so the two cannot overlap.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at).as_ptr(), bytes.len());
        }
    }

    /// Copies from the region at `at` to fill `bytes`.
    pub(crate) fn read(&self, at: usize, bytes: &mut [u8]) {
        assert!(at <= self.len && bytes.len() <= self.len - at, "a read stays inside its region");
        // SAFETY: as in `write`, in the other direction.
        unsafe {
            ptr::copy_nonoverlapping(self.base.add(at).as_ptr(), bytes.as_mut_ptr(), bytes.len());
        }
    }

    /// Overwrites the region with zeros.
    pub(crate) fn wipe(&self) {
        for at in 0..self.len {
            // SAFETY: `at` is inside the mapping; volatile, so that the write is not left out.
            unsafe { self.base.add(at).write_volatile(0) }
        }
    }

    /// First byte of the region. Valid for reads and writes of `len()` bytes while `self` lives.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes of the region, a multiple of the page size.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How its pages are protected.
    pub(crate) fn protection(&self) -> Protection {
        self.protection
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the reservation [base - guard, base + len + guard) was mapped by `reserve` and is
        // owned by this value alone; every slot keeps the region alive, so no view is left.
        unsafe {
            let start = self.base.as_ptr().sub(self.guard);
            // Slots are wiped when freed and the kernel clears secret memory; nothing is left to
            // wipe here. A failure to unmap leaves an unused, locked mapping behind: no harm.
            let _ = munmap(start.cast::<c_void>(), self.len + 2 * self.guard);
        }
    }
}

/// A descriptor of `len` bytes of secret memory, or `None` where the kernel has none (no support
/// in the kernel or architecture, switched off, or filtered by a sandbox).
pub(crate) fn secret_memory_fd(len: usize) -> Result<Option<OwnedFd>, ArenaError> {
    let size = u64::try_from(len).map_err(|_| ArenaError::os("memfd_secret", Errno::OVERFLOW))?;
    // SAFETY: memfd_secret(flags) takes no pointer and returns a new descriptor or -1.
    let answer = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let Ok(raw @ 0..) = RawFd::try_from(answer) else {
        return match std::io::Error::last_os_error().raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSYS | Errno::PERM | Errno::ACCESS) | None => Ok(None),
            Some(errno) => Err(ArenaError::os("memfd_secret", errno)),
        };
    };
    // SAFETY: the kernel has just returned this descriptor to us and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    rustix::fs::ftruncate(&fd, size).map_err(|errno| ArenaError::os("ftruncate", errno))?;
    Ok(Some(fd))
}

/// `capacity` rounded up to whole pages.
fn whole_pages(capacity: usize) -> Result<usize, ArenaError> {
    capacity
        .checked_next_multiple_of(rustix::param::page_size())
        .ok_or(ArenaError::os("mmap", Errno::NOMEM))
}
