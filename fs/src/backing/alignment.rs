//! What direct requests are to be aligned to.
//!
//! Owns the arithmetic; does no I/O.

use std::ops::Range;

/// Alignment of requests, powers of two in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alignment {
    block: usize,
    memory: usize,
}

impl Alignment {
    /// Offsets and lengths in multiples of `block` bytes, memory at multiples of `memory`; `None` when one of them is
    /// not a power of two.
    pub fn new(block: usize, memory: usize) -> Option<Self> {
        (block.is_power_of_two() && memory.is_power_of_two()).then_some(Self { block, memory })
    }

    /// Of offsets and lengths.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Of memory.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Whether offset and length are aligned.
    pub fn fits(&self, offset: u64, len: usize) -> bool {
        offset.is_multiple_of(self.block as u64) && len.is_multiple_of(self.block)
    }

    /// The aligned part of `len` bytes at `offset`, counted from there; empty when there is none.
    pub fn inner(&self, offset: u64, len: usize) -> Range<usize> {
        let block = self.block as u64;
        let before = offset.checked_next_multiple_of(block).map_or(u64::MAX, |up| up - offset);
        let start = usize::try_from(before).unwrap_or(usize::MAX).min(len);
        start..start + (len - start) / self.block * self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two() {
        for (block, memory) in [(0, 512), (512, 0), (0, 0), (768, 512), (512, 3)] {
            assert_eq!(Alignment::new(block, memory), None);
        }
        assert!(Alignment::new(512, 4).is_some());
    }

    #[test]
    fn the_inner_part_is_aligned_and_misses_less_than_a_block_at_each_end() {
        let alignment = Alignment::new(4096, 512).unwrap();
        for offset in (0..12_288).step_by(512) {
            for len in (0..12_288).step_by(512) {
                let inner = alignment.inner(offset, len);
                assert!(inner.start <= inner.end && inner.end <= len);
                if inner.is_empty() {
                    assert!(len < 2 * 4096, "{offset} {len}");
                    continue;
                }
                assert!(alignment.fits(offset + inner.start as u64, inner.len()));
                assert!(inner.start < 4096 && len - inner.end < 4096);
            }
        }
        assert!(
            alignment.fits(8192, 4096) && !alignment.fits(512, 4096) && !alignment.fits(0, 512)
        );
        assert!(alignment.inner(u64::MAX, 100).is_empty());
    }
}
