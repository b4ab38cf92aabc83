//! Owns the plainest XTS there is, one block after another: what engines are compared with at start.
//!
//! It must not share code with the engines beyond the block cipher: it counts sectors and multiplies
//! tweaks in its own way. Flow: for each block, find its unit, step the tweak, encrypt the block.

use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use super::{Direction, Unit};
use crate::arena::{ArenaError, Held};
use crate::keys::Dek;

/// The expanded keys, in the arena.
pub(crate) struct Serial {
    unit: Unit,
    /// Of the data and of the tweak.
    keys: Held<(Aes256, Aes256)>,
}

impl Serial {
    pub(crate) fn new(key: &Dek, unit: Unit) -> Result<Self, ArenaError> {
        let (data, tweak) = key.halves();
        let keys =
            Held::new(&key.arena(), || (Aes256::new(data.into()), Aes256::new(tweak.into())))?;
        Ok(Self { unit, keys })
    }

    /// IEEE 1619 section 5.3, over the 512-byte sectors from `sector` on. Zero sectors are data here.
    pub(crate) fn run(&self, direction: Direction, sector: u64, data: &mut [u8]) {
        for (bytes, number) in data.chunks_mut(512).zip(sector..) {
            let unit = number / self.unit.sectors() * self.unit.sectors();
            let mut tweak = self.encrypted(unit);
            for _ in 0..(number - unit) * 32 {
                times_x(&mut tweak);
            }
            for block in bytes.chunks_mut(16) {
                self.block(direction, &tweak, block);
                times_x(&mut tweak);
            }
        }
    }

    fn encrypted(&self, unit: u64) -> [u8; 16] {
        let mut block = u128::from(unit).to_le_bytes().into();
        self.keys.1.encrypt_block(&mut block);
        block.into()
    }

    fn block(&self, direction: Direction, tweak: &[u8; 16], bytes: &mut [u8]) {
        let mut block = [0; 16];
        block.copy_from_slice(bytes);
        block.iter_mut().zip(tweak).for_each(|(byte, add)| *byte ^= add);
        let mut block = block.into();
        match direction {
            Direction::Encrypt => self.keys.0.encrypt_block(&mut block),
            Direction::Decrypt => self.keys.0.decrypt_block(&mut block),
        }
        bytes
            .iter_mut()
            .zip(block.iter().zip(tweak))
            .for_each(|(out, (byte, add))| *out = byte ^ add);
    }
}

/// IEEE 1619 section 5.2, byte by byte as the standard writes it.
fn times_x(tweak: &mut [u8; 16]) {
    let mut carry = 0;
    for byte in tweak.iter_mut() {
        let next = *byte >> 7;
        *byte = (*byte << 1) | carry;
        carry = next;
    }
    tweak[0] ^= 0x87 * carry;
}
