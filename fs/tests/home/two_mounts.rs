//! One store mounted twice at once, as by two hosts: what each promises while the other changes things.

use super::mounted::{Mounted, Store, eventually, pattern};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

fn both(store: &Store) -> Option<(Mounted, Mounted)> {
    Some((store.mount()?, store.mount().unwrap()))
}

/// What the other side did is seen once the kernel's knowledge is too old.
fn becomes(what: &str, check: impl Fn() -> bool) {
    eventually(|| if check() { Ok(()) } else { Err(()) }).unwrap_or_else(|()| panic!("{what}"));
}

#[test]
fn names_made_and_moved_by_one_are_seen_by_the_other() {
    let store = Store::new();
    let Some((here, there)) = both(&store) else { return };
    fs::write(here.at("a"), b"from here").unwrap();
    assert_eq!(fs::read(there.at("a")).unwrap(), b"from here");
    fs::rename(there.at("a"), there.at("b")).unwrap();
    becomes("the old name goes", || !here.at("a").exists());
    assert_eq!(fs::read(here.at("b")).unwrap(), b"from here");
    // A folder of one name made on both sides at once is one folder.
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads = [&here, &there].map(|side| scope.spawn(|| fs::create_dir(side.at("d"))));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1, "{made:?}");
    fs::write(here.at("d/here"), b"1").unwrap();
    fs::write(there.at("d/there"), b"2").unwrap();
    for side in [&here, &there] {
        becomes("both files are there", || {
            fs::read(side.at("d/here")).is_ok_and(|bytes| bytes == b"1")
                && fs::read(side.at("d/there")).is_ok_and(|bytes| bytes == b"2")
        });
    }
    here.unmount();
    there.unmount();
}

#[test]
fn a_file_that_grows_there_is_read_whole_here() {
    let store = Store::new();
    let Some((here, there)) = both(&store) else { return };
    fs::write(here.at("log"), pattern(100)).unwrap();
    // Held open here for all of the time.
    let reader = File::open(here.at("log")).unwrap();
    reader.read_exact_at(&mut [0; 100], 0).unwrap();
    let bytes = pattern(30_000);
    for end in [101, 4096, 5000, 30_000] {
        let log = OpenOptions::new().write(true).open(there.at("log")).unwrap();
        log.write_all_at(&bytes[..end], 0).unwrap();
        drop(log);
        becomes("the new end is read", || fs::read(here.at("log")).unwrap() == bytes[..end]);
    }
    drop(reader);
    here.unmount();
    there.unmount();
}

#[test]
fn sectors_written_on_both_sides_at_once_stay_whole() {
    const SECTORS: u64 = 400;
    let store = Store::new();
    let Some((here, there)) = both(&store) else { return };
    let file = File::create_new(here.at("f")).unwrap();
    file.write_all_at(&vec![9; 512 * 400], 0).unwrap();
    drop(file);
    std::thread::scope(|scope| {
        for (odd, side) in [(0, &here), (1, &there)] {
            scope.spawn(move || {
                let file = OpenOptions::new().write(true).open(side.at("f")).unwrap();
                for sector in (odd..SECTORS).step_by(2) {
                    let byte = u8::try_from(sector % 251 + 1).unwrap();
                    file.write_all_at(&[byte; 512], sector * 512).unwrap();
                }
            });
        }
    });
    here.unmount();
    there.unmount();
    let mount = store.mount().unwrap();
    let bytes = fs::read(mount.at("f")).unwrap();
    for (sector, bytes) in bytes.chunks(512).enumerate() {
        let byte = u8::try_from(sector % 251 + 1).unwrap();
        assert!(bytes.iter().all(|&found| found == byte), "sector {sector}");
    }
    mount.unmount();
}
