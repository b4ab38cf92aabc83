//! Owns the start-up test: no process may cipher data with an engine that is wrong on this machine.
//!
//! It must not keep anything. Flow: every engine must give the known answer of IEEE 1619, then agree
//! with the plain block-by-block XTS on random keys, sectors and lengths, in both directions.

use crate::arena::{Arena, ArenaError};
use crate::keys::Dek;
use crate::keys::sealed::FromSlot;
use crate::xts::{Direction, Serial};
use crate::{Engine, KeyError, Unit, Xts, XtsError, random};

/// Sectors of the longest comparison: three 4096-byte units, so heads, whole units and tails occur.
const MAX_SECTORS: u8 = 24;
/// Comparisons of each engine, unit and direction; a few milliseconds in all.
const ROUNDS: usize = 16;

/// The start-up test refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelfTestError {
    /// An engine gives a wrong answer to a published vector.
    #[error(
        "cipher self-test: engine {engine} fails the known answer of IEEE 1619; \
         do not use this machine or build for encrypted disks"
    )]
    KnownAnswer {
        /// The engine's name.
        engine: &'static str,
    },
    /// An engine disagrees with the plain implementation.
    #[error(
        "cipher self-test: engine {engine} disagrees with the reference ({unit}-byte units, sector \
         {sector}, {len} bytes); do not use this machine or build for encrypted disks"
    )]
    Mismatch {
        /// The engine's name.
        engine: &'static str,
        /// Bytes of the unit.
        unit: usize,
        /// First sector.
        sector: u64,
        /// Bytes compared.
        len: usize,
    },
    /// The test's keys could not be made.
    #[error("cipher self-test: {0}")]
    Key(#[from] KeyError),
    /// An engine failed outright.
    #[error("cipher self-test: {0}")]
    Engine(#[from] XtsError),
    /// No locked memory for the test's keys.
    #[error("cipher self-test: {0}")]
    Arena(#[from] ArenaError),
}

/// Tests every engine of this build.
///
/// # Errors
/// [`SelfTestError::KnownAnswer`] or [`SelfTestError::Mismatch`] when the daemon must not go on; the
/// others when the test could not be run.
pub fn self_test(arena: &Arena) -> Result<(), SelfTestError> {
    for &engine in Engine::available() {
        known_answer(arena, engine)?;
        for unit in [Unit::B512, Unit::B4096] {
            let key = Dek::generate(arena)?;
            let reference = Serial::new(&key, unit)?;
            let xts = Xts::with_engine(key, unit, engine)?;
            compare(
                engine.as_str(),
                unit,
                &reference,
                |direction, sector, data| match direction {
                    Direction::Encrypt => xts.encrypt(sector, data),
                    Direction::Decrypt => xts.decrypt(sector, data),
                },
            )?;
        }
    }
    Ok(())
}

/// Compares `candidate` with the reference in both directions.
fn compare(
    engine: &'static str,
    unit: Unit,
    reference: &Serial,
    candidate: impl Fn(Direction, u64, &mut [u8]) -> Result<(), XtsError>,
) -> Result<(), SelfTestError> {
    for direction in [Direction::Encrypt, Direction::Decrypt] {
        for _ in 0..ROUNDS {
            let (sector, mut data) = random_sectors()?;
            let mut expected = data.clone();
            reference.run(direction, sector, &mut expected);
            candidate(direction, sector, &mut data)?;
            if data != expected {
                let (unit, len) = (unit.bytes(), data.len());
                return Err(SelfTestError::Mismatch { engine, unit, sector, len });
            }
        }
    }
    Ok(())
}

/// A random sector number below 2^48 and 1 to 24 random sectors.
fn random_sectors() -> Result<(u64, Vec<u8>), SelfTestError> {
    let [count, number @ ..] = random::random_array::<7>()?;
    let sector = number.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    let mut data = vec![0; 512 * usize::from(count % MAX_SECTORS + 1)];
    random::fill(&mut data)?;
    Ok((sector, data))
}

/// IEEE 1619 annex B, vector 10: AES-256, data unit 0xff, 512 bytes 00 01 02 ... ff twice.
fn known_answer(arena: &Arena, engine: Engine) -> Result<(), SelfTestError> {
    let mut slot = arena.slot(64)?;
    slot.bytes_mut().copy_from_slice(&VECTOR_10_KEY);
    let xts = Xts::with_engine(Dek::from_slot(slot)?, Unit::B512, engine)?;
    let plain: Vec<u8> = (0..=u8::MAX).chain(0..=u8::MAX).collect();
    let mut data = plain.clone();
    xts.encrypt(0xff, &mut data)?;
    let encrypted = crate::sha256_hex(&data) == VECTOR_10_CIPHERTEXT_SHA256;
    xts.decrypt(0xff, &mut data)?;
    if encrypted && data == plain {
        return Ok(());
    }
    Err(SelfTestError::KnownAnswer { engine: engine.as_str() })
}

/// The digits of e and of pi.
const VECTOR_10_KEY: [u8; 64] = [
    0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26,
    0x62, 0x49, 0x77, 0x57, 0x24, 0x70, 0x93, 0x69, 0x99, 0x59, 0x57, 0x49, 0x66, 0x96, 0x76, 0x27,
    0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95,
    0x02, 0x88, 0x41, 0x97, 0x16, 0x93, 0x99, 0x37, 0x51, 0x05, 0x82, 0x09, 0x74, 0x94, 0x45, 0x92,
];

/// SHA-256 of the vector's 512 bytes of ciphertext (written out in the tests).
const VECTOR_10_CIPHERTEXT_SHA256: &str =
    "e97e974fa393af794f7a4684395814cf820de60a01eaec677d87b452e316b364";

#[cfg(test)]
#[path = "self_test_tests.rs"]
mod tests;
