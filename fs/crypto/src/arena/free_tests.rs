//! Tests of the free list against a plain map of granules.

use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use super::{FreeList, GRANULE};

#[test]
fn rounds_up_to_granules() {
    let mut list = FreeList::new(4 * GRANULE);
    assert_eq!(list.take(0), Some(0..GRANULE));
    assert_eq!(list.take(GRANULE + 1), Some(GRANULE..3 * GRANULE));
    assert_eq!(list.used(), 3 * GRANULE);
    assert_eq!(list.take(2 * GRANULE), None, "one granule is left");
    assert_eq!(list.take(usize::MAX), None);
}

#[test]
fn joins_neighbours_in_every_order() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut list = FreeList::new(3 * GRANULE);
        let taken: Vec<_> = (0..3).map(|_| list.take(1).unwrap()).collect();
        for index in order {
            list.give_back(taken[index].clone());
        }
        assert_eq!(list.take(3 * GRANULE), Some(0..3 * GRANULE), "{order:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn never_hands_out_a_granule_twice(steps in proptest::collection::vec((any::<bool>(), 1_usize..400), 1..80)) {
        let capacity = 32 * GRANULE;
        let mut list = FreeList::new(capacity);
        let mut owned: Vec<std::ops::Range<usize>> = Vec::new();
        for (take, number) in steps {
            if take {
                if let Some(range) = list.take(number) {
                    prop_assert!(range.end <= capacity && range.len() >= number);
                    prop_assert!(owned.iter().all(|other| range.end <= other.start || other.end <= range.start));
                    owned.push(range);
                }
            } else if !owned.is_empty() {
                list.give_back(owned.swap_remove(number % owned.len()));
            }
            prop_assert_eq!(list.used(), owned.iter().map(std::ops::Range::len).sum::<usize>());
        }
        owned.into_iter().for_each(|range| list.give_back(range));
        prop_assert_eq!(list.take(capacity), Some(0..capacity));
    }
}
