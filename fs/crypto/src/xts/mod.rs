//! Owns the disk cipher: AES-256-XTS over 512-byte sectors, numbered as `aes-xts-plain64` does.
//!
//! It must not know files, holes or protocols. Flow: a [`Dek`] becomes an [`Xts`]; `encrypt` and
//! `decrypt` cut the data at 4096-byte borders (`units`) and give each stretch to the engine (`aws_lc`
//! or `portable`); sectors of nothing but zeros are left alone on the way back (`zero`).
//!
//! Algorithm: IEEE 1619 section 5 and NIST SP 800-38E, whole blocks only (no ciphertext stealing).
//! The tweak of a unit is the number of its first 512-byte sector as a 128-bit little-endian integer,
//! also for 4096-byte units (0, 8, 16 ...): dm-crypt's `plain64`.

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(feature = "aws-lc")]
mod lanes;
mod portable;
mod serial;
mod tweaks;
mod units;
mod zero;

use aes::cipher::inout::InOutBuf;

use crate::arena::ArenaError;
use crate::keys::Dek;
use crate::stack::wiping_stack;

pub(crate) use serial::Serial;
pub use units::{SECTOR_BYTES, Unit, UnitError};

use tweaks::Tweaks;
use units::{Stretch, stretches};

/// The disk cipher of one key. Any number of threads may use one value at once.
pub struct Xts {
    unit: Unit,
    engine: EngineState,
}

/// The implementations of XTS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// AWS-LC, `EVP_aes_256_xts`: assembly for AVX-512 and AES-NI, code of a FIPS module.
    AwsLc,
    /// XTS over the batch interface of the `aes` crate, in safe Rust.
    Portable,
}

/// A call of the disk cipher was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XtsError {
    /// The data is not whole 512-byte sectors.
    #[error("the disk cipher got {len} bytes, which are not whole 512-byte sectors")]
    Length {
        /// Bytes given.
        len: usize,
    },
    /// Input and output differ in length.
    #[error("the disk cipher got {input} bytes to put into {output}")]
    LengthMismatch {
        /// Bytes of the input.
        input: usize,
        /// Bytes of the output.
        output: usize,
    },
    /// The data would pass the last sector number.
    #[error(
        "the disk cipher got {len} bytes at sector {sector}, which pass the last sector number"
    )]
    SectorRange {
        /// First sector.
        sector: u64,
        /// Bytes given.
        len: usize,
    },
    /// The engine is not part of this build.
    #[error("the cipher engine {} is not part of this build", .0.as_str())]
    EngineMissing(Engine),
    /// The engine's library refused a call: no memory, or a fault of this program.
    #[error("the cipher engine {} failed in {call}", .engine.as_str())]
    Engine {
        /// The engine.
        engine: Engine,
        /// The call that failed.
        call: &'static str,
    },
    /// No locked memory for the key schedule.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

/// Which way the cipher runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

enum EngineState {
    #[cfg(feature = "aws-lc")]
    AwsLc(lanes::Lanes),
    Portable(portable::Portable),
}

impl Xts {
    /// The cipher of `key` with the build's default engine. Takes the key over.
    ///
    /// # Errors
    /// [`XtsError::Arena`] when the key schedule finds no room.
    pub fn new(key: Dek, unit: Unit) -> Result<Self, XtsError> {
        Self::with_engine(key, unit, Engine::default())
    }

    /// The cipher of `key` with a chosen engine.
    ///
    /// # Errors
    /// [`XtsError::EngineMissing`], [`XtsError::Arena`].
    pub fn with_engine(key: Dek, unit: Unit, engine: Engine) -> Result<Self, XtsError> {
        let engine = match engine {
            #[cfg(feature = "aws-lc")]
            Engine::AwsLc => EngineState::AwsLc(lanes::Lanes::new(key)),
            #[cfg(not(feature = "aws-lc"))]
            Engine::AwsLc => return Err(XtsError::EngineMissing(Engine::AwsLc)),
            Engine::Portable => EngineState::Portable(portable::Portable::new(key)?),
        };
        Ok(Self { unit, engine })
    }

    /// The data unit.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The engine in use.
    pub fn engine(&self) -> Engine {
        match self.engine {
            #[cfg(feature = "aws-lc")]
            EngineState::AwsLc(_) => Engine::AwsLc,
            EngineState::Portable(_) => Engine::Portable,
        }
    }

    /// Encrypts whole sectors in place; `sector` is the number of the first 512-byte sector. The data
    /// may start and end inside a unit.
    ///
    /// # Errors
    /// [`XtsError::Length`], [`XtsError::SectorRange`], [`XtsError::Engine`]. After an engine's error
    /// the data may be partly encrypted.
    pub fn encrypt(&self, sector: u64, data: &mut [u8]) -> Result<(), XtsError> {
        self.run(Direction::Encrypt, sector, InOutBuf::from(data))
    }

    /// Encrypts `plain` into `out`, which has the same length. Otherwise as [`Self::encrypt`].
    ///
    /// # Errors
    /// As [`Self::encrypt`], and [`XtsError::LengthMismatch`].
    pub fn encrypt_into(&self, sector: u64, plain: &[u8], out: &mut [u8]) -> Result<(), XtsError> {
        let (input, output) = (plain.len(), out.len());
        let data =
            InOutBuf::new(plain, out).map_err(|_| XtsError::LengthMismatch { input, output })?;
        self.run(Direction::Encrypt, sector, data)
    }

    /// Decrypts whole sectors in place. A sector of 512 zero bytes, which no ciphertext is (chance
    /// 2^-4096), stays zero: that is how holes read as zeros.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub fn decrypt(&self, sector: u64, data: &mut [u8]) -> Result<(), XtsError> {
        self.run(Direction::Decrypt, sector, InOutBuf::from(data))
    }

    /// Decrypts `cipher` into `out`, which has the same length. Otherwise as [`Self::decrypt`]; after an error `out`
    /// holds nothing of use.
    ///
    /// # Errors
    /// As [`Self::encrypt`], and [`XtsError::LengthMismatch`].
    pub fn decrypt_into(&self, sector: u64, cipher: &[u8], out: &mut [u8]) -> Result<(), XtsError> {
        let (input, output) = (cipher.len(), out.len());
        let data =
            InOutBuf::new(cipher, out).map_err(|_| XtsError::LengthMismatch { input, output })?;
        self.run(Direction::Decrypt, sector, data)
    }

    fn run(
        &self,
        direction: Direction,
        sector: u64,
        data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), XtsError> {
        check_range(sector, data.len())?;
        match &self.engine {
            #[cfg(feature = "aws-lc")]
            EngineState::AwsLc(lanes) => lanes.with(direction, |context| {
                each_stretch(direction, sector, data, |stretch, data| {
                    context.crypt(self.unit, stretch, data)
                })
            }),
            // The `aes` crate spreads round keys over its stack frame and leaves them there; AWS-LC
            // wipes its own frames. Once a call, about 70 ns.
            EngineState::Portable(portable) => wiping_stack(|| {
                let mut tweaks = Tweaks::new();
                each_stretch(direction, sector, data, |stretch, data| {
                    portable.crypt(direction, self.unit, stretch, data, &mut tweaks);
                    Ok(())
                })
            }),
        }
    }
}

/// Cuts the data into stretches and calls `crypt` for each that is not all holes.
#[inline]
fn each_stretch(
    direction: Direction,
    sector: u64,
    mut data: InOutBuf<'_, '_, u8>,
    mut crypt: impl FnMut(Stretch, InOutBuf<'_, '_, u8>) -> Result<(), XtsError>,
) -> Result<(), XtsError> {
    for stretch in stretches(sector, data.len()) {
        let (mut here, rest) = data.split_at(stretch.len);
        match direction {
            Direction::Encrypt => crypt(stretch, here)?,
            Direction::Decrypt => {
                let holes = zero::holes(here.get_in());
                if !holes.is_everything() {
                    crypt(stretch, here.reborrow())?;
                    holes.clear(here.get_out());
                } else if !is_in_place(&mut here) {
                    here.get_out().fill(0);
                }
            }
        }
        data = rest;
    }
    Ok(())
}

/// Whether input and output are the same memory: zeros are in their place already then.
#[inline]
fn is_in_place(data: &mut InOutBuf<'_, '_, u8>) -> bool {
    data.get_in().as_ptr() == data.get_out().as_ptr()
}

impl Engine {
    /// The engine's name as shown to operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc",
            Self::Portable => "portable",
        }
    }

    /// The engines of this build.
    pub fn available() -> &'static [Self] {
        if cfg!(feature = "aws-lc") { &[Self::AwsLc, Self::Portable] } else { &[Self::Portable] }
    }
}

impl Default for Engine {
    /// AWS-LC where it is part of the build, else the portable engine.
    fn default() -> Self {
        if cfg!(feature = "aws-lc") { Self::AwsLc } else { Self::Portable }
    }
}

impl std::fmt::Debug for Xts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Xts({}, {} bytes)", self.engine().as_str(), self.unit.bytes())
    }
}

/// Whole sectors, and none past the last number.
fn check_range(sector: u64, len: usize) -> Result<(), XtsError> {
    if !len.is_multiple_of(SECTOR_BYTES) {
        return Err(XtsError::Length { len });
    }
    let sectors = u64::try_from(len / SECTOR_BYTES).unwrap_or(u64::MAX);
    sector.checked_add(sectors).map(drop).ok_or(XtsError::SectorRange { sector, len })
}

#[cfg(test)]
#[path = "xts_tests.rs"]
mod tests;
