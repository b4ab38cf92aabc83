//! Model check of crash safety: the real file code on a storage that decides what a crash leaves.
//!
//! Owns the search for sequences that lose synced bytes or show bytes that were never written; the rules it
//! checks are those of `docs/format.md`, "VM home". Flow: `disk` records every change of the stored file,
//! builds the images that a crash may leave, and `check` opens each image with the real code and judges what
//! is visible.
//!
//! `COFFER_MODEL_STATES=1000000` checks that many crash states, `COFFER_MODEL_SEED` starts from another seed.

mod check;
mod disk;
mod run;

/// Small, seeded generator (xorshift64*, Vigna 2016): the same seed gives the same sequence everywhere.
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }

    fn nonzero(&mut self) -> u8 {
        u8::try_from(1 + self.below(255)).unwrap()
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}
