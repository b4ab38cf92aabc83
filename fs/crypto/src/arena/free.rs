//! Owns the arithmetic of which granules of a region are free.
//!
//! It must not touch the memory itself: it only deals in offsets. Flow: `take` cuts the first gap
//! that is large enough, `give_back` puts a range back and joins it with its neighbours.

use std::ops::Range;

/// Unit of allocation. 64 bytes is one cache line and the alignment that 512-bit loads like; a key
/// of 32 bytes wastes 32, a key schedule of 720 bytes wastes 48.
pub(super) const GRANULE: usize = 64;

/// The free ranges of a region, sorted by offset, never touching each other.
#[derive(Debug)]
pub(super) struct FreeList {
    gaps: Vec<Range<usize>>,
    capacity: usize,
    used: usize,
}

impl FreeList {
    /// All of `capacity` bytes (a multiple of the granule) free.
    pub(super) fn new(capacity: usize) -> Self {
        debug_assert_eq!(capacity % GRANULE, 0, "a region is whole pages");
        Self { gaps: std::iter::once(0..capacity).collect(), capacity, used: 0 }
    }

    /// Takes `len` bytes rounded up to granules (at least one), or `None` when no gap is that large.
    pub(super) fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let wanted = len.max(1).checked_next_multiple_of(GRANULE)?;
        let index = self.gaps.iter().position(|gap| gap.len() >= wanted)?;
        let gap = self.gaps.get_mut(index)?;
        let taken = gap.start..gap.start + wanted;
        gap.start = taken.end;
        if gap.start == gap.end {
            self.gaps.remove(index);
        }
        self.used += wanted;
        Some(taken)
    }

    /// Puts back a range that [`Self::take`] returned.
    pub(super) fn give_back(&mut self, range: Range<usize>) {
        self.used -= range.len();
        let index = self.gaps.partition_point(|gap| gap.end <= range.start);
        let joins_next = self.gaps.get(index).is_some_and(|next| next.start == range.end);
        let joins_prev =
            index > 0 && self.gaps.get(index - 1).is_some_and(|prev| prev.end == range.start);
        match (joins_prev, joins_next) {
            (true, true) => {
                self.gaps[index - 1].end = self.gaps[index].end;
                self.gaps.remove(index);
            }
            (true, false) => self.gaps[index - 1].end = range.end,
            (false, true) => self.gaps[index].start = range.start,
            (false, false) => self.gaps.insert(index, range),
        }
    }

    /// Bytes handed out.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Bytes in all.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
#[path = "free_tests.rs"]
mod tests;
