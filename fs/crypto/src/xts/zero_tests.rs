//! Tests of the recognition of holes.

use super::holes;

#[test]
fn everything_and_nothing() {
    assert!(holes(&[0; 4096]).is_everything());
    assert!(holes(&[0; 512]).is_everything());
    let mut data = [1; 4096];
    let found = holes(&data);
    assert!(!found.is_everything());
    found.clear(&mut data);
    assert_eq!(data, [1; 4096]);
}

#[test]
fn one_byte_anywhere_makes_a_sector_data() {
    for place in 0..512 {
        let mut data = [0; 1024];
        data[512 + place] = 1;
        let found = holes(&data);
        assert!(!found.is_everything(), "{place}");
        data.fill(7);
        found.clear(&mut data);
        assert_eq!(data[..512], [0; 512]);
        assert_eq!(data[512..], [7; 512], "{place}");
    }
}
