//! Steps that tests do to a disk and to a plain model of it.

use super::{Geometry, Volume, VolumeError};
use crate::backing::FaultyBacking;
use crate::testing::arena;
use crypto::{Dek, Unit};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use std::ops::Range;
use std::sync::Arc;

/// A disk in memory with faults, and the storage behind it.
pub(super) fn faulty(size: u64, unit: Unit) -> (Volume, Arc<FaultyBacking>) {
    let backing = Arc::new(FaultyBacking::new(size));
    let geometry = Geometry { size, unit, read_only: false };
    let key = Dek::generate(&arena()).unwrap();
    (Volume::open(Box::new(Arc::clone(&backing)), key, geometry).unwrap(), backing)
}

/// Plaintext of a range.
pub(super) fn read(volume: &Volume, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xEE; len];
    volume.read(offset, &mut buf).unwrap();
    buf
}

/// Writes bytes that the caller keeps.
pub(super) fn write(volume: &Volume, offset: u64, bytes: &[u8]) {
    volume.write(offset, &mut bytes.to_vec()).unwrap();
}

/// What the storage holds now, deciphered, without a call that a planned fault could strike.
pub(super) fn plaintext(backing: &FaultyBacking, volume: &Volume) -> Vec<u8> {
    let mut image = backing.live();
    volume.xts.decrypt(0, &mut image).unwrap();
    image
}

/// Size of the disks of these tests: odd sectors at the end.
pub(super) const SIZE: usize = 48 * 1024 + 512;

/// One request.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Read { at: usize, len: usize },
    Write { at: usize, len: usize, fill: u8 },
    Zero { at: usize, len: usize, punch: bool },
    Discard { at: usize, len: usize },
    Flush,
}

fn range() -> impl Strategy<Value = (usize, usize)> {
    let at = prop_oneof![0..SIZE, (0..SIZE / 512).prop_map(|sector| sector * 512)];
    let len = prop_oneof![0usize..600, 0usize..20_000, (0usize..40).prop_map(|n| n * 512)];
    (at, len).prop_map(|(at, len)| (at, len.min(SIZE - at)))
}

/// Any request inside a disk of [`SIZE`].
pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => range().prop_map(|(at, len)| Step::Read { at, len }),
        4 => (range(), any::<u8>()).prop_map(|((at, len), fill)| Step::Write { at, len, fill }),
        2 => (range(), any::<bool>()).prop_map(|((at, len), punch)| Step::Zero { at, len, punch }),
        1 => range().prop_map(|(at, len)| Step::Discard { at, len }),
        1 => Just(Step::Flush),
    ]
}

/// Bytes that differ from their neighbours, so that a shift shows.
pub(super) fn pattern(fill: u8, len: usize) -> Vec<u8> {
    (0..len).map(|n| fill.wrapping_add(u8::try_from(n % 251).unwrap())).collect()
}

impl Step {
    /// Does it to the disk; a read also checks what it gets.
    pub(super) fn run(&self, volume: &Volume, model: &[u8]) -> Result<(), VolumeError> {
        match *self {
            Self::Read { at, len } => {
                let mut buf = vec![0xEE; len];
                volume.read(at as u64, &mut buf)?;
                assert_eq!(buf, model[at..at + len]);
                Ok(())
            }
            Self::Write { at, len, fill } => volume.write(at as u64, &mut pattern(fill, len)),
            Self::Zero { at, len, punch } => volume.write_zeroes(at as u64, len as u64, punch),
            Self::Discard { at, len } => volume.discard(at as u64, len as u64),
            Self::Flush => volume.flush(),
        }
    }

    /// Does it to the model; a discard does nothing, see [`Step::accept`].
    pub(super) fn apply(&self, model: &mut [u8]) {
        match *self {
            Self::Write { at, len, fill } => {
                model[at..at + len].copy_from_slice(&pattern(fill, len));
            }
            Self::Zero { at, len, .. } => model[at..at + len].fill(0),
            Self::Read { .. } | Self::Discard { .. } | Self::Flush => {}
        }
    }

    /// The sectors that it may change, as a range of bytes.
    pub(super) fn sectors(&self) -> Range<usize> {
        match *self {
            Self::Read { .. } | Self::Flush => 0..0,
            Self::Write { at, len, .. } | Self::Zero { at, len, .. } if len > 0 => {
                at / 512 * 512..(at + len).next_multiple_of(512)
            }
            Self::Write { .. } | Self::Zero { .. } => 0..0,
            Self::Discard { at, len } => {
                let start = at.next_multiple_of(512);
                start..start.max((at + len) / 512 * 512)
            }
        }
    }

    /// Takes over into the model what a discard left: each sector is as before or zero.
    pub(super) fn accept(&self, model: &mut [u8], now: &[u8]) {
        if let Self::Discard { .. } = self {
            for start in self.sectors().step_by(512) {
                let sector = &now[start..start + 512];
                assert!(*sector == model[start..start + 512] || *sector == [0; 512]);
                model[start..start + 512].copy_from_slice(sector);
            }
        }
    }
}
