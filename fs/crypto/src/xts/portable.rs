//! Owns the portable engine: XTS over the batch interface of the `aes` crate, in safe Rust.
//!
//! It must not know lanes or holes. Flow: the numbers of a stretch's units are encrypted as one batch;
//! then, inside the block cipher's own context, the tweaks of all blocks are computed and added, the
//! blocks go through AES as one batch (VAES, AES-NI or ARMv8 where the processor has them, else
//! constant-time code), and the tweaks are added again.

use aes::cipher::array::Array;
use aes::cipher::inout::InOutBuf;
use aes::cipher::typenum::U16;
use aes::cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit,
};
use aes::{Aes256, Aes256Enc};

use super::tweaks::{Tweaks, double};
use super::units::{BLOCK_BYTES, SECTOR_BYTES, Stretch, Unit, tweak_bytes};
use super::{Direction, XtsError};
use crate::arena::Held;
use crate::keys::Dek;

type Block = Array<u8, U16>;

/// Units of 512 bytes in the longest stretch.
const MOST_UNITS: usize = 8;

/// The expanded keys, in the arena.
pub(super) struct Portable {
    schedules: Held<Schedules>,
}

struct Schedules {
    data: Aes256,
    tweak: Aes256Enc,
}

/// What runs inside the block cipher's context: the middle of XTS over one stretch.
struct Middle<'a> {
    data: &'a mut [u8],
    tweaks: &'a mut Tweaks,
    /// The first tweak of each run of blocks.
    firsts: &'a [u128],
    /// Blocks of a run (the last may be shorter).
    run: usize,
}

impl Portable {
    /// Expands `key` into the arena; the key itself is wiped at the end.
    #[expect(clippy::needless_pass_by_value, reason = "the key is wiped once its schedule exists")]
    pub(super) fn new(key: Dek) -> Result<Self, XtsError> {
        let schedules = Held::new(&key.arena(), || Schedules::new(&key))?;
        Ok(Self { schedules })
    }

    /// Runs the cipher over one stretch; `tweaks` is room to work in.
    pub(super) fn crypt(
        &self,
        direction: Direction,
        unit: Unit,
        stretch: Stretch,
        data: InOutBuf<'_, '_, u8>,
        tweaks: &mut Tweaks,
    ) {
        let data = data.into_out_with_copied_in();
        let mut firsts = [0; MOST_UNITS];
        let (firsts, run) = match unit {
            Unit::B4096 => (self.first_inside_unit(stretch, &mut firsts), data.len() / BLOCK_BYTES),
            Unit::B512 => (self.first_of_units(stretch, &mut firsts), SECTOR_BYTES / BLOCK_BYTES),
        };
        let middle = Middle { data, tweaks, firsts, run };
        match direction {
            Direction::Encrypt => self.schedules.data.encrypt_with_backend(middle),
            Direction::Decrypt => self.schedules.data.decrypt_with_backend(middle),
        }
    }

    /// The tweak of the first block of data in its 4096-byte unit: E(K2, unit) times a power of x.
    fn first_inside_unit<'a>(
        &self,
        stretch: Stretch,
        firsts: &'a mut [u128; MOST_UNITS],
    ) -> &'a [u128] {
        let (number, skip) = stretch.in_large_unit();
        let mut block = Block::from(tweak_bytes(number));
        self.schedules.tweak.encrypt_block(&mut block);
        let first = u128::from_le_bytes(block.into());
        firsts[0] = (0..skip / BLOCK_BYTES).fold(first, |tweak, _| double(tweak));
        &firsts[..1]
    }

    /// The tweaks of up to eight 512-byte units, encrypted as one batch.
    fn first_of_units<'a>(
        &self,
        stretch: Stretch,
        firsts: &'a mut [u128; MOST_UNITS],
    ) -> &'a [u128] {
        let count = stretch.len / SECTOR_BYTES;
        let mut blocks = [Block::default(); MOST_UNITS];
        for (block, number) in blocks[..count].iter_mut().zip(stretch.sector..) {
            *block = tweak_bytes(number).into();
        }
        self.schedules.tweak.encrypt_blocks(&mut blocks[..count]);
        for (first, block) in firsts.iter_mut().zip(blocks) {
            *first = u128::from_le_bytes(block.into());
        }
        &firsts[..count]
    }
}

impl Schedules {
    /// IEEE 1619 section 5.1: the first half of the key is for the data, the second for the tweak.
    fn new(key: &Dek) -> Self {
        let (data, tweak) = key.halves();
        Self { data: Aes256::new(data.into()), tweak: Aes256Enc::new(tweak.into()) }
    }
}

impl Middle<'_> {
    /// Adds the tweaks, runs `cipher` over the blocks, adds the tweaks again.
    #[inline(always)]
    fn around(self, cipher: impl FnOnce(InOutBuf<'_, '_, Block>)) {
        let mut places = 0..self.data.len() / BLOCK_BYTES;
        for first in self.firsts {
            let count = places.len().min(self.run);
            self.tweaks.fill(places.start, count, *first);
            places.start += count;
        }
        self.tweaks.add_to(self.data);
        cipher(InOutBuf::from(&mut *self.data).into_chunks().0);
        self.tweaks.add_to(self.data);
    }
}

impl BlockSizeUser for Middle<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Middle<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        self.around(|blocks| {
            let (batches, rest) = blocks.into_chunks();
            for batch in batches {
                backend.encrypt_par_blocks(batch);
            }
            backend.encrypt_tail_blocks(rest);
        });
    }
}

impl BlockCipherDecClosure for Middle<'_> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(self, backend: &B) {
        self.around(|blocks| {
            let (batches, rest) = blocks.into_chunks();
            for batch in batches {
                backend.decrypt_par_blocks(batch);
            }
            backend.decrypt_tail_blocks(rest);
        });
    }
}
