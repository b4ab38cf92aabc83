//! Every kind of damage on a real folder: it is found, named, and mended only where nothing can be lost.

use super::*;
use crate::fsck::{Line, MAX_FINDINGS, Totals};
use crate::home::Home;
use crate::home::create::Caller;
use crate::home::layout::{HEADER, MAX_SIZE, physical};
use crypto::Kek;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;

#[path = "sizes_tests.rs"]
mod sizes;

pub(super) struct Fixture {
    folder: tempfile::TempDir,
    arena: Arena,
    kek: Kek,
    wrapped: Vec<u8>,
    vm: Uuid,
    pub(super) names: Names,
}

pub(super) fn own() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid, gid, umask: 0 }
}

impl Fixture {
    fn new() -> Fixture {
        Self::with(Names::Plain)
    }

    pub(super) fn with(names: Names) -> Fixture {
        let arena = Arena::new(256 * 1024).unwrap();
        let kek = Kek::generate(&arena).unwrap();
        let wrapped = kek.wrap(&HomeKey::generate(&arena).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Fixture { folder, arena, kek, wrapped, vm: Uuid::from_u128(3), names }
    }

    fn dir(&self) -> OwnedFd {
        File::open(self.folder.path()).unwrap().into()
    }

    pub(super) fn home(&self) -> Home {
        let key = self.kek.open(&self.arena, &self.wrapped).unwrap();
        Home::open(self.dir(), key, self.vm, self.names, self.arena.clone()).unwrap()
    }

    /// A file with this content, written through the home.
    pub(super) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let home = self.home();
        let (_, open) = home.create(1, OsStr::new(name), 0o600, own()).unwrap();
        open.file.write(0, content).unwrap();
        self.path(&self.stored(name))
    }

    /// What the storage calls a name.
    pub(super) fn stored(&self, name: &str) -> String {
        let key = self.kek.open(&self.arena, &self.wrapped).unwrap();
        let naming = Naming::new(&key, &self.arena, self.names).unwrap();
        naming.stored(OsStr::new(name)).unwrap().to_str().unwrap().to_owned()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn content(&self, name: &str) -> Vec<u8> {
        let home = self.home();
        let found = home.lookup(1, OsStr::new(name)).unwrap();
        let open = home.open_file(&home.node(found.id).unwrap(), false).unwrap();
        open.file.read(0, 100_000, <[u8]>::to_vec).unwrap()
    }

    pub(super) fn check(&self, repair: bool) -> (Vec<Finding>, Totals) {
        let key = self.kek.open(&self.arena, &self.wrapped).unwrap();
        let mut findings = Vec::new();
        let mut emit = |line: &Line| {
            if let Line::Finding(finding) = line {
                findings.push(finding.clone());
            }
            Ok(())
        };
        let mut report = Report::new(&mut emit);
        let (vm, names, arena) = (self.vm, self.names, self.arena.clone());
        check(self.dir(), key, vm, names, arena, repair, &mut report).unwrap();
        let totals = report.totals();
        (findings, totals)
    }

    /// One finding, which a repair leaves alone, and with it every byte.
    pub(super) fn only_reported(&self, path: &str, grade: Grade, what: &str) {
        for repair in [false, true] {
            let before = snapshot(&self.folder.path().to_owned());
            let (found, totals) = self.check(repair);
            let [one] = &found[..] else { panic!("{found:?}") };
            assert_eq!((one.path.as_str(), one.grade), (path, grade));
            assert!(one.what.contains(what), "{one:?}");
            assert!(matches!(&one.mend, Mend::Not { remedy } if !remedy.is_empty()), "{one:?}");
            assert_eq!(totals.mended, 0);
            assert_eq!(totals.damaged + totals.leftovers, 1);
            assert_eq!(snapshot(&self.folder.path().to_owned()), before);
        }
    }

    /// One finding, which a check leaves alone, a repair mends, and the next check does not see.
    fn mended(&self, path: &str, grade: Grade, what: &str) {
        let before = snapshot(&self.folder.path().to_owned());
        let (found, totals) = self.check(false);
        let [one] = &found[..] else { panic!("{found:?}") };
        assert_eq!((one.path.as_str(), one.grade), (path, grade));
        assert!(one.what.contains(what), "{one:?}");
        let Mend::Possible { how } = &one.mend else { panic!("{one:?}") };
        assert_eq!(snapshot(&self.folder.path().to_owned()), before, "a check changed something");
        assert_eq!((totals.damaged + totals.leftovers, totals.mended), (1, 0));
        let (found, totals) = self.check(true);
        let done = Mend::Done { how: how.clone() };
        assert_eq!(found, [Finding { mend: done, ..one.clone() }]);
        assert_eq!((totals.damaged + totals.leftovers, totals.mended), (0, 1));
        assert_eq!(self.check(true).0, []);
    }
}

fn snapshot(folder: &PathBuf) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.path(), fs::read(entry.path()).unwrap()))
        .collect();
    all.sort();
    all
}

pub(super) fn edit(path: &PathBuf, at: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Makes a byte of the file another one, whatever it is. A fixed byte is what a random place holds already, once in 256.
pub(super) fn flip(path: &PathBuf, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn set_len(path: &PathBuf, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn a_home_in_order_has_no_findings() {
    let f = Fixture::new();
    for (name, len) in [("empty", 0), ("one", 1), ("unit", 4096), ("odd", 5000)] {
        f.file(name, &vec![7; len]);
    }
    let home = f.home();
    let sub = home.make_folder(1, OsStr::new("sub"), 0o700, own()).unwrap();
    home.make_link(sub.id, OsStr::new("link"), OsStr::new("../odd"), own()).unwrap();
    home.create(sub.id, OsStr::new("in sub"), 0o600, own()).unwrap();
    let (found, totals) = f.check(false);
    assert_eq!(found, []);
    assert_eq!(totals, Totals { objects: 8, ..Totals::default() });
}

#[test]
fn a_header_that_was_edited_is_damage() {
    let f = Fixture::new();
    let path = f.file("a", b"content");
    for at in [16, 20, 47, 64, 95] {
        flip(&path, at);
        f.only_reported("home/a", Grade::Damaged, "its header fails authentication");
        flip(&path, at);
    }
    assert_eq!(f.check(true).0, []);
}

#[test]
fn a_header_page_with_more_than_a_header_is_damage() {
    let f = Fixture::new();
    let path = f.file("a", b"content");
    edit(&path, 2000, b"!");
    f.only_reported("home/a", Grade::Damaged, "its header page is not empty after the header");
}

#[test]
fn a_header_that_was_wiped_is_damage() {
    let f = Fixture::new();
    let path = f.file("a", b"content");
    edit(&path, 0, &[0; 4096]);
    f.only_reported("home/a", Grade::Damaged, "its header is empty but it has data");
}

#[test]
fn a_newer_format_is_named() {
    let f = Fixture::new();
    let path = f.file("a", b"content");
    edit(&path, 8, &2_u32.to_le_bytes());
    f.only_reported("home/a", Grade::Damaged, "format version 2");
}

#[test]
fn a_file_of_another_vm_is_foreign() {
    let mut f = Fixture::new();
    f.file("a", b"content");
    f.vm = Uuid::from_u128(4);
    f.only_reported(
        "home/a",
        Grade::Damaged,
        "encrypted for VM 00000000-0000-0000-0000-000000000003",
    );
}

#[test]
fn plain_files_copied_past_the_mount_are_found() {
    let f = Fixture::new();
    fs::write(f.path("short"), "hello\n").unwrap();
    f.only_reported("home/short", Grade::Damaged, "too short for a file of the home");
    fs::remove_file(f.path("short")).unwrap();
    fs::write(f.path("long"), [b'x'; 10_000]).unwrap();
    f.only_reported("home/long", Grade::Damaged, "magic number");
}

#[test]
fn a_header_cut_short_is_told_from_a_foreign_file() {
    let f = Fixture::new();
    let path = f.file("a", b"content");
    set_len(&path, 1000);
    f.only_reported("home/a", Grade::Leftover, "its header page is cut short");
    set_len(&path, 50);
    f.only_reported("home/a", Grade::Damaged, "too short for a file of the home");
}

#[test]
fn the_place_of_a_header_that_was_never_written_is_emptied() {
    let f = Fixture::new();
    fs::write(f.path("a"), [0; 512]).unwrap();
    f.mended("home/a", Grade::Leftover, "never written");
    assert_eq!(fs::metadata(f.path("a")).unwrap().len(), 0);
}

#[test]
fn a_length_that_stands_for_no_size_is_mended_where_only_zeros_go() {
    let f = Fixture::new();
    let path = f.file("a", &[9; 4096]);
    set_len(&path, HEADER);
    set_len(&path, HEADER + 100);
    f.mended("home/a", Grade::Damaged, "stands for no size");
    assert_eq!(fs::metadata(&path).unwrap().len(), HEADER);
    let path = f.file("b", &[9; 4096]);
    set_len(&path, HEADER + 100);
    f.only_reported("home/b", Grade::Damaged, "stands for no size");
}

#[test]
fn a_size_beyond_all_files_is_damage() {
    let f = Fixture::new();
    let path = f.file("a", b"content");
    // Not every file system has files of this length.
    let file = File::options().write(true).open(&path).unwrap();
    if file.set_len(physical(MAX_SIZE + 1)).is_ok() {
        f.only_reported("home/a", Grade::Damaged, "more than a file can have");
    }
}

#[test]
fn what_a_crash_left_behind_the_end_is_zeroed_and_no_data_changes() {
    let f = Fixture::new();
    let data: Vec<u8> = (0..5000_u32).map(|x| x.to_le_bytes()[0]).collect();
    let path = f.file("a", &data);
    let carrier = HEADER + 2 * 4096;
    edit(&path, carrier + 10, b"remains");
    f.mended("home/a", Grade::Leftover, "left bytes behind its end");
    assert_eq!(f.content("a"), data);
    let tail = &fs::read(&path).unwrap()[usize::try_from(carrier).unwrap()..];
    assert!(tail.iter().all(|&byte| byte == 0), "the carrier is not zero");
    // The pad: a sector of the last unit that no plain byte lies in.
    edit(&path, HEADER + 2 * 4096 - 512, &[0x5a; 512]);
    f.mended("home/a", Grade::Leftover, "left bytes behind its end");
    assert_eq!(f.content("a"), data);
}

#[test]
fn a_file_that_lost_its_header_before_the_first_sync_is_in_order() {
    let f = Fixture::new();
    File::create(f.path("a")).unwrap().set_len(physical(5000)).unwrap();
    assert_eq!(f.check(true).0, []);
}

#[test]
fn planted_and_edited_links_are_damage() {
    let f = Fixture::new();
    symlink("/etc/passwd", f.path("l")).unwrap();
    f.only_reported("home/l", Grade::Damaged, "a link that was not made in the mounted home");
}

#[test]
fn attributes_that_do_not_open_are_damage() {
    let f = Fixture::new();
    let path = f.file("a", b"content");
    let file = File::open(&path).unwrap();
    let set = |name: &CStr, value: &[u8]| {
        rustix::fs::fsetxattr(&file, name, value, rustix::fs::XattrFlags::empty())
    };
    if set(c"user.of the storage", b"x").is_err() {
        return;
    }
    let home = f.home();
    let id = home.lookup(1, OsStr::new("a")).unwrap().id;
    home.set_xattr(id, OsStr::new("user.mine"), b"value", 0, own()).unwrap();
    assert_eq!(f.check(false).0, [], "neither ours nor one of the storage is a fault");
    set(c"user.:uplanted", b"not sealed").unwrap();
    f.only_reported("home/a", Grade::Damaged, "user.planted was not set in this home");
    rustix::fs::fremovexattr(&file, c"user.:uplanted").unwrap();
    set(c"user.:xplanted", b"").unwrap();
    f.only_reported("home/a", Grade::Damaged, "user.:xplanted has the name of none");
}

#[test]
fn folders_are_gone_through_whole_and_too_deep_ones_are_said() {
    let f = Fixture::new();
    for folder in 0..50 {
        fs::create_dir(f.path(&format!("d{folder}"))).unwrap();
        fs::write(f.path(&format!("d{folder}/foreign")), "x").unwrap();
    }
    let (found, totals) = f.check(false);
    assert_eq!((found.len(), totals.objects), (50, 101));
    let f = Fixture::new();
    let mut at = f.dir();
    for _ in 0..MAX_DEPTH + 2 {
        rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .unwrap();
    }
    let (found, _) = f.check(false);
    let [deep] = &found[..] else { panic!("{found:?}") };
    assert!(deep.what.contains("was not looked at"), "{deep:?}");
}

#[test]
fn findings_beyond_the_limit_are_counted_and_mended_all_the_same() {
    let f = Fixture::new();
    for file in 0..MAX_FINDINGS + 5 {
        fs::write(f.path(&format!("f{file}")), [0; 8]).unwrap();
    }
    let (found, totals) = f.check(true);
    assert_eq!(u64::try_from(found.len()).unwrap(), MAX_FINDINGS);
    assert_eq!((totals.mended, totals.unlisted), (MAX_FINDINGS + 5, 5));
    assert_eq!(f.check(false).0, []);
}

#[test]
fn a_reader_that_goes_away_ends_the_check() {
    let f = Fixture::new();
    fs::write(f.path("a"), "x").unwrap();
    let key = f.kek.open(&f.arena, &f.wrapped).unwrap();
    let mut emit = |_: &Line| Err(io::ErrorKind::BrokenPipe.into());
    let mut report = Report::new(&mut emit);
    let ended = check(f.dir(), key, f.vm, f.names, f.arena.clone(), true, &mut report);
    assert!(matches!(ended, Err(CheckError::Report(_))), "{ended:?}");
}

#[test]
fn a_check_that_nobody_reads_ends_at_the_next_object() {
    let f = Fixture::new();
    for name in ["a", "b", "c"] {
        f.file(name, b"content");
    }
    let left = std::cell::Cell::new(2);
    let is_heard = || {
        left.set(left.get() - 1);
        left.get() > 0
    };
    let mut emit = |_: &Line| Ok(());
    let mut report = Report::new(&mut emit).heard_by(&is_heard);
    let key = f.kek.open(&f.arena, &f.wrapped).unwrap();
    let ended = check(f.dir(), key, f.vm, f.names, f.arena.clone(), false, &mut report);
    assert!(matches!(ended, Err(CheckError::Report(_))), "{ended:?}");
    // The home itself and one file.
    assert_eq!((report.totals().objects, left.get()), (2, 0));
}
