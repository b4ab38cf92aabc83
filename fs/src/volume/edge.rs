//! Locks on sectors that are changed in part.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of a sector.
pub(super) const SECTOR_LEN: usize = 512;

/// Number of locks. Unaligned writes are rare, so this only has to make it unlikely that two of them
/// at different sectors wait for each other.
const STRIPES: usize = 64;

/// One lock for every 64th sector. A request holds at most one of them at a time, so there is no order
/// to keep.
pub(super) struct EdgeLocks([Mutex<()>; STRIPES]);

impl Default for EdgeLocks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl EdgeLocks {
    /// Waits until nobody else changes a part of the sector.
    pub(super) fn hold(&self, sector: u64) -> MutexGuard<'_, ()> {
        let stripe = usize::try_from(sector % STRIPES as u64).unwrap_or(0);
        // The lock guards no data that a panic could leave half-changed.
        self.0[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
