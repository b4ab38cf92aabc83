//! Encrypted names under the check: those of the home are in order, others are reported and never touched.

use super::tests::{Fixture, flip, own};
use super::*;
use crate::fsck::Totals;
use std::ffi::OsStr;
use std::fs;

#[test]
fn encrypted_names_are_in_order_and_shown_plain_beside_the_stored_ones() {
    let f = Fixture::with(Names::Encrypted);
    let path = f.file("notes.txt", b"content");
    let home = f.home();
    let sub = home.make_folder(1, OsStr::new("sub"), 0o700, own()).unwrap();
    home.make_link(sub.id, OsStr::new("link"), OsStr::new("../notes.txt"), own()).unwrap();
    home.create(sub.id, OsStr::new("new\nline"), 0o600, own()).unwrap();
    let (found, totals) = f.check(false);
    assert_eq!(found, []);
    assert_eq!(totals, Totals { objects: 5, ..Totals::default() });
    flip(&path, 20);
    let (found, _) = f.check(true);
    let [one] = &found[..] else { panic!("{found:?}") };
    assert_eq!(one.path, format!("home/{}", f.stored("notes.txt")));
    assert_eq!(one.plain.as_deref(), Some("/notes.txt"));
    fs::remove_file(&path).unwrap();
    let below = f.path(&f.stored("sub")).join(f.stored("new\nline"));
    fs::write(&below, [b'x'; 10_000]).unwrap();
    let (found, _) = f.check(true);
    let [one] = &found[..] else { panic!("{found:?}") };
    assert_eq!(one.path, format!("home/{}/{}", f.stored("sub"), f.stored("new\nline")));
    assert_eq!(one.plain.as_deref(), Some("/sub/new\\nline"));
}

#[test]
fn names_that_are_not_of_the_home_are_reported_and_left_alone() {
    let f = Fixture::with(Names::Encrypted);
    let file = f.file("a", b"content");
    fs::write(f.path("in clear"), "x").unwrap();
    f.only_reported("home/in clear", Grade::Leftover, "not one of the home");
    fs::remove_file(f.path("in clear")).unwrap();
    // A folder is not gone into: no mount shows what is in it.
    fs::create_dir(f.path("lost+found")).unwrap();
    fs::write(f.path("lost+found/x"), "x").unwrap();
    f.only_reported("home/lost+found", Grade::Leftover, "not one of the home");
    fs::remove_dir_all(f.path("lost+found")).unwrap();
    // A storage that made all letters small.
    let folded = f.stored("a").to_lowercase();
    fs::rename(&file, f.path(&folded)).unwrap();
    f.only_reported(&format!("home/{folded}"), Grade::Damaged, "or was changed");
    // The name of another home.
    let other = Fixture::with(Names::Encrypted).stored("a");
    fs::rename(f.path(&folded), f.path(&other)).unwrap();
    f.only_reported(&format!("home/{other}"), Grade::Damaged, "not encrypted with the key");
    let (found, _) = f.check(false);
    assert_eq!(found[0].plain, None);
}

#[test]
fn links_of_the_other_policy_are_damage() {
    for (made, read) in [(Names::Plain, Names::Encrypted), (Names::Encrypted, Names::Plain)] {
        let mut f = Fixture::with(made);
        let home = f.home();
        home.make_link(1, OsStr::new("l"), OsStr::new("target"), own()).unwrap();
        let stored = f.stored("l");
        f.names = read;
        let moved = f.stored("l");
        fs::rename(f.path(&stored), f.path(&moved)).unwrap();
        let path = format!("home/{moved}");
        f.only_reported(&path, Grade::Damaged, "a link that was not made in the mounted home");
    }
}
