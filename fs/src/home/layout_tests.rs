use super::*;
use proptest::prelude::*;

#[test]
fn worked_examples_of_the_format() {
    let table = [
        (0, 4096),
        (1, 8193),
        (4095, 12287),
        (4096, 8192),
        (4097, 12289),
        (5000, 13192),
        (8192, 12288),
        (9000, 17192),
    ];
    for (size, stored) in table {
        assert_eq!(physical(size), stored, "size {size}");
        assert_eq!(decode(stored), Stored::Sized(size), "stored {stored}");
    }
}

#[test]
fn every_size_up_to_nine_thousand_is_told_apart() {
    let mut seen = std::collections::HashSet::new();
    for size in 0..=9000 {
        assert!(seen.insert(physical(size)), "size {size} shares a stored length");
        assert_eq!(decode(physical(size)), Stored::Sized(size));
    }
}

#[test]
fn short_and_impossible_lengths() {
    assert_eq!(decode(0), Stored::Virgin);
    assert_eq!(decode(4095), Stored::Virgin);
    assert_eq!(decode(4096), Stored::Sized(0));
    for stored in 4097..8192 {
        assert_eq!(decode(stored), Stored::Broken);
        assert_eq!(decode(stored).size(), 0);
    }
    assert_eq!(decode(8192), Stored::Sized(4096));
}

#[test]
fn the_largest_size_fits_a_file_offset() {
    assert!(i64::try_from(physical(MAX_SIZE)).is_ok());
    assert_eq!(decode(u64::MAX).size(), (u64::MAX - HEADER) / UNIT * UNIT - UNIT + UNIT - 1);
}

#[test]
fn one_ragged_sector_is_only_a_head() {
    let inner = Span::new(600, 700);
    assert!(inner.ragged_head() && inner.ragged_tail());
    let start = Span::new(512, 700);
    assert!(start.ragged_head() && start.ragged_tail(), "its only sector must be read once");
    let whole = Span::new(512, 1024);
    assert!(!whole.ragged_head() && !whole.ragged_tail());
}

proptest! {
    #[test]
    fn decode_inverts_physical(size in 0..=MAX_SIZE) {
        prop_assert_eq!(decode(physical(size)), Stored::Sized(size));
    }

    #[test]
    fn physical_inverts_decode(stored in HEADER..=physical(MAX_SIZE)) {
        if let Stored::Sized(size) = decode(stored) {
            prop_assert_eq!(physical(size), stored);
        } else {
            prop_assert!(stored < HEADER + UNIT);
        }
    }

    #[test]
    fn a_span_covers_the_range_with_whole_sectors(at in 0..1u64 << 40, len in 1..1u64 << 22) {
        let span = Span::new(at, at + len);
        prop_assert!(span.from <= at && at < span.from + SECTOR);
        prop_assert!(span.end <= span.to && span.to < span.end + SECTOR);
        prop_assert_eq!(span.from % SECTOR, 0);
        prop_assert_eq!(span.to % SECTOR, 0);
        prop_assert_eq!(span.sector() * SECTOR, span.from);
        let body = span.body();
        if body.start < body.end {
            prop_assert!(body.start >= at && body.end <= at + len);
            prop_assert!(body.start - span.from <= SECTOR && span.to - body.end <= SECTOR);
        } else {
            prop_assert!(span.to - span.from <= 2 * SECTOR);
        }
    }

    #[test]
    fn the_tail_is_the_unit_used_in_part(size in 0..=MAX_SIZE) {
        let (start, used) = tail(size);
        prop_assert_eq!(start + used, size);
        prop_assert_eq!(start % UNIT, 0);
        prop_assert!(used < UNIT);
        if used > 0 {
            prop_assert_eq!(physical(size), HEADER + start + UNIT + used);
        }
    }
}
