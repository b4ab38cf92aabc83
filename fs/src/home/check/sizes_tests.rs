//! Sizes that others' checks have stumbled over: huge and sparse, and every small one.

use super::*;

/// Of the largest size that ext4 takes, with data at odd places: the check does not go through its holes.
#[test]
fn a_sparse_file_of_many_terabytes_is_in_order() {
    let f = Fixture::new();
    let path = f.file("sparse", b"start");
    let home = f.home();
    let found = home.lookup(1, OsStr::new("sparse")).unwrap();
    let open = home.open_file(&home.node(found.id).unwrap(), true).unwrap();
    for at in [12_345, (1 << 40) + 777, (15 << 40) + 1] {
        open.file.write(at, b"data").unwrap();
    }
    drop(open);
    assert!(fs::metadata(&path).unwrap().len() > 15 << 40);
    for repair in [false, true] {
        let (found, totals) = f.check(repair);
        assert_eq!(found, []);
        assert_eq!(totals, Totals { objects: 2, ..Totals::default() });
    }
}

#[test]
fn files_of_every_small_size_are_in_order_and_a_stub_is_found_among_them() {
    let f = Fixture::new();
    let home = f.home();
    for size in (0..9000).step_by(11).chain([4095, 4096, 4097, 8191, 8192, 8193]) {
        let name = format!("f{size}");
        let (_, open) = home.create(1, OsStr::new(&name), 0o600, own()).unwrap();
        open.file.write(0, &vec![7; size]).unwrap();
    }
    drop(home);
    assert_eq!(f.check(false).0, []);
    fs::write(f.path("stub"), [1; 8]).unwrap();
    let (found, totals) = f.check(false);
    let paths: Vec<&str> = found.iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!((paths, totals.damaged + totals.leftovers), (vec!["home/stub"], 1));
}
