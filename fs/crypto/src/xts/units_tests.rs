//! Tests of the unit arithmetic.

use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

use super::{Stretch, Unit, UnitError, stretches, tweak_bytes};

#[test]
fn unit_sizes() {
    assert_eq!(Unit::try_from(512), Ok(Unit::B512));
    assert_eq!(Unit::try_from(4096), Ok(Unit::B4096));
    assert_eq!(Unit::try_from(1024), Err(UnitError(1024)));
    assert_eq!((Unit::B512.bytes(), Unit::B512.sectors()), (512, 1));
    assert_eq!((Unit::B4096.bytes(), Unit::B4096.sectors()), (4096, 8));
    assert_eq!(serde_json::to_string(&Unit::B4096).unwrap(), "4096");
    assert!(serde_json::from_str::<Unit>("2048").is_err());
}

#[test]
fn cuts_at_4096_byte_borders() {
    let cut = |sector, len| stretches(sector, len).collect::<Vec<_>>();
    assert_eq!(cut(0, 0), []);
    assert_eq!(cut(8, 4096), [Stretch { sector: 8, len: 4096 }]);
    assert_eq!(
        cut(6, 6144),
        [
            Stretch { sector: 6, len: 1024 },
            Stretch { sector: 8, len: 4096 },
            Stretch { sector: 16, len: 1024 }
        ]
    );
    assert_eq!(cut(9, 512), [Stretch { sector: 9, len: 512 }]);
}

#[test]
fn reaches_the_last_sector_number() {
    let sector = u64::MAX - 7;
    assert_eq!(stretches(sector, 7 * 512).collect::<Vec<_>>(), [Stretch { sector, len: 3584 }]);
}

#[test]
fn finds_the_large_unit() {
    assert_eq!(Stretch { sector: 16, len: 512 }.in_large_unit(), (16, 0));
    assert_eq!(Stretch { sector: 23, len: 512 }.in_large_unit(), (16, 3584));
}

/// The example of IEEE 1619: 0x123456789a is 9a 78 56 34 12 and zeros.
#[test]
fn tweaks_are_little_endian() {
    let mut expected = [0; 16];
    expected[..5].copy_from_slice(&[0x9a, 0x78, 0x56, 0x34, 0x12]);
    assert_eq!(tweak_bytes(0x0012_3456_789a), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn stretches_cover_the_data_once(sector in 0_u64..1 << 50, sectors in 0_u64..100) {
        let mut next = sector;
        for stretch in stretches(sector, usize::try_from(sectors).unwrap() * 512) {
            prop_assert_eq!(stretch.sector, next);
            let count = u64::try_from(stretch.len / 512).unwrap();
            prop_assert!(count > 0 && stretch.sector / 8 == (stretch.sector + count - 1) / 8);
            next += count;
        }
        prop_assert_eq!(next, sector + sectors);
    }
}
