//! Owns the portable engine: XTS over the batch interface of the `aes` crate, in safe Rust.
//!
//! It must not know lanes or sectors. Flow: a piece's tweak is encrypted once; then, for a chunk of
//! blocks at a time, the tweaks are computed, added, the blocks go through AES as one batch (which the
//! crate runs on VAES, AES-NI or ARMv8 where the processor has them), and the tweaks are added again.

use aes::cipher::array::Array;
use aes::cipher::inout::InOutBuf;
use aes::cipher::typenum::U16;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes256, Aes256Enc};

use super::units::{BLOCK_BYTES, Piece};
use super::{Direction, XtsError};
use crate::arena::Held;
use crate::keys::Dek;

/// Blocks of one batch: a 4096-byte unit. The tweaks then take 4 KiB of stack and stay in the first
/// cache, and the cost of starting a batch (15 round keys loaded) is small.
const BATCH: usize = 256;

type Block = Array<u8, U16>;

/// The expanded keys, in the arena.
pub(super) struct Portable {
    schedules: Held<Schedules>,
}

struct Schedules {
    data: Aes256,
    tweak: Aes256Enc,
}

impl Portable {
    /// Expands `key` into the arena; the key itself is wiped at the end.
    #[expect(clippy::needless_pass_by_value, reason = "the key is wiped once its schedule exists")]
    pub(super) fn new(key: Dek) -> Result<Self, XtsError> {
        let schedules = Held::new(&key.arena(), || Schedules::new(&key))?;
        Ok(Self { schedules })
    }

    /// Runs the cipher over one piece (whole blocks, at most a unit).
    pub(super) fn crypt(&self, direction: Direction, piece: Piece, data: InOutBuf<'_, '_, u8>) {
        let mut tweak = self.first_tweak(piece);
        let (mut blocks, rest) = data.into_chunks::<U16>();
        debug_assert!(rest.is_empty(), "data is whole blocks");
        let mut tweaks = [0; BATCH];
        while !blocks.is_empty() {
            let size = blocks.len().min(BATCH);
            let (batch, rest) = blocks.split_at(size);
            let used = &mut tweaks[..batch.len()];
            tweak = fill(used, tweak);
            self.batch(direction, used, batch);
            blocks = rest;
        }
    }

    fn batch(&self, direction: Direction, tweaks: &[u128], batch: InOutBuf<'_, '_, Block>) {
        let out = batch.into_out_with_copied_in();
        add(out, tweaks);
        match direction {
            Direction::Encrypt => self.schedules.data.encrypt_blocks(out),
            Direction::Decrypt => self.schedules.data.decrypt_blocks(out),
        }
        add(out, tweaks);
    }

    /// The tweak of the piece's first block: E(K2, unit) times x to the number of skipped blocks.
    fn first_tweak(&self, piece: Piece) -> u128 {
        let mut block = Block::from(piece.tweak_bytes());
        self.schedules.tweak.encrypt_block(&mut block);
        let first = u128::from_le_bytes(block.into());
        (0..piece.skip / BLOCK_BYTES).fold(first, |tweak, _| double(tweak))
    }
}

impl Schedules {
    /// IEEE 1619 section 5.1: the first half of the key is for the data, the second for the tweak.
    fn new(key: &Dek) -> Self {
        let (data, tweak) = key.halves();
        Self { data: Aes256::new(data.into()), tweak: Aes256Enc::new(tweak.into()) }
    }
}

/// Fills `tweaks` with `first`, x first, x^2 first ...; returns the one that follows.
fn fill(tweaks: &mut [u128], first: u128) -> u128 {
    tweaks.iter_mut().fold(first, |tweak, place| {
        *place = tweak;
        double(tweak)
    })
}

/// Multiplies by x in GF(2^128) modulo x^128 + x^7 + x^2 + x + 1 (IEEE 1619 section 5.2), without a
/// branch on the value.
fn double(tweak: u128) -> u128 {
    (tweak << 1) ^ ((tweak >> 127) * 0x87)
}

/// Adds the tweaks to the blocks.
fn add(blocks: &mut [Block], tweaks: &[u128]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        let sum = u128::from_le_bytes((*block).into()) ^ tweak;
        *block = sum.to_le_bytes().into();
    }
}
