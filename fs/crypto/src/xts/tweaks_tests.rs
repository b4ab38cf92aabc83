//! Tests of tweak arithmetic against doubling one by one.

use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use super::{MOST, Tweaks, double};

#[test]
fn doubling_folds_the_carry_back() {
    assert_eq!(double(1), 2);
    assert_eq!(double(1 << 127), 0x87);
    assert_eq!(double(u128::MAX), (u128::MAX << 1) ^ 0x87);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_run_equals_doubling_one_by_one(first in any::<u128>(), start in 0_usize..8, sectors in 1_usize..=8) {
        let count = (32 * sectors).min(MOST - 32 * start);
        let mut tweaks = Tweaks::new();
        tweaks.fill(32 * start, count, first);
        let mut data = [0; 16 * MOST];
        tweaks.add_to(&mut data);
        let mut expected = first;
        for (index, block) in data.as_chunks().0.iter().enumerate() {
            let inside = (32 * start..32 * start + count).contains(&index);
            prop_assert_eq!(u128::from_le_bytes(*block), if inside { expected } else { 0 });
            if inside {
                expected = double(expected);
            }
        }
    }
}
