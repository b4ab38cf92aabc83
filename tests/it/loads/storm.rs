//! A vmd that is killed while names are made, moved and removed: every folder can be listed and removed afterwards,
//! and what was synced is there.

use super::{MODES, crash, host_with_home, sized};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;
use tests::host::{Host, pattern};
use tests::{needs, wait};

/// Files of the folder that is moved to and fro.
const MOVED: u32 = 200;

/// Content of a file, which its number tells.
fn content(number: u32) -> Vec<u8> {
    pattern(usize::try_from(number * 331 % 20_000).unwrap() + 1, number)
}

/// Makes folders with files until an error ends it; gives back those whose file and name were synced.
fn make(root: &Path, first: u32, made: &AtomicU32) -> Vec<u32> {
    let mut synced = Vec::new();
    let end = Instant::now() + wait::PROGRAM;
    for number in (first..).take_while(|_| Instant::now() < end) {
        let folder = root.join(format!("d{number}"));
        let make = || -> io::Result<()> {
            fs::create_dir(&folder)?;
            fs::write(folder.join("unsynced"), content(number))?;
            let mut file = File::create_new(folder.join("synced"))?;
            file.write_all(&content(number))?;
            file.sync_all()?;
            File::open(&folder)?.sync_all()?;
            File::open(root)?.sync_all()
        };
        if make().is_err() {
            break;
        }
        synced.push(number);
        made.fetch_add(1, Ordering::Release);
        // Some go again, so that the storm removes as well; one may be cut off in the middle of it.
        if number % 3 == 0 {
            synced.pop();
            if fs::remove_dir_all(&folder).is_err() {
                break;
            }
        }
    }
    synced
}

/// Moves a folder with many files to and fro until an error ends it.
fn shuffle(root: &Path) {
    let end = Instant::now() + wait::PROGRAM;
    while Instant::now() < end
        && fs::rename(root.join("here"), root.join("there")).is_ok()
        && fs::rename(root.join("there"), root.join("here")).is_ok()
    {}
}

/// Reads all below a folder. What was not synced may be shorter, or zeros where it had not come yet.
fn read_all(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found.extend(read_all(&path));
        } else {
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        found.push(path);
    }
    found
}

fn check(root: &Path, synced: &[u32], when: &str) {
    read_all(root);
    for number in synced {
        let folder = root.join(format!("d{number}"));
        assert!(fs::read(folder.join("synced")).unwrap() == content(*number), "{when}: d{number}");
        let bytes = fs::read(folder.join("unsynced")).unwrap_or_default();
        let expected = content(*number);
        let parts = bytes.chunks(512).zip(expected.chunks(512));
        let (mut short, mut whole) = (0, 0);
        for (found, expected) in parts {
            let zeros = found.iter().all(|byte| *byte == 0);
            assert!(zeros || expected.starts_with(found), "{when}: garbage in d{number}");
            if zeros { short += 1 } else { whole += 1 }
        }
        assert!(short + whole <= expected.len().div_ceil(512), "{when}: d{number} is longer");
    }
    // Under one of its names, and whole.
    let moved =
        ["here", "there"].map(|name| root.join(name)).into_iter().filter(|path| path.is_dir());
    let moved: Vec<_> = moved.collect();
    assert_eq!(moved.len(), 1, "{when}: {moved:?}");
    for number in 0..MOVED {
        let file = moved[0].join(format!("f{number}"));
        assert!(fs::read(file).unwrap() == content(number), "{when}: f{number}");
    }
    if moved[0].ends_with("there") {
        fs::rename(&moved[0], root.join("here")).unwrap();
    }
}

/// One storm, ended by the death of the vmd.
fn storm(host: &Host, first: u32) -> Vec<u32> {
    let home = host.home("web01");
    let made = AtomicU32::new(0);
    thread::scope(|scope| {
        let maker = scope.spawn(|| make(&home, first, &made));
        let mover = scope.spawn(|| shuffle(&home));
        wait::until("some folders are made", wait::PROGRAM / 2, || {
            (made.load(Ordering::Acquire) > sized(20, 60)).then_some(())
        });
        assert!(!maker.is_finished() && !mover.is_finished(), "the storm ended by itself");
        crash(host);
        maker.join().unwrap()
    })
}

#[test]
fn a_tree_is_whole_after_a_vmd_was_killed_in_a_storm_of_names() {
    needs!(Root, Fuse);
    for mode in MODES {
        let host = host_with_home(mode);
        let home = host.home("web01");
        fs::create_dir(home.join("here")).unwrap();
        for number in 0..MOVED {
            let mut file = File::create_new(home.join(format!("here/f{number}"))).unwrap();
            file.write_all(&content(number)).unwrap();
            file.sync_all().unwrap();
        }
        let mut synced = Vec::new();
        // hostd starts a vmd again five times a minute.
        for round in 0..sized(3, 4) {
            synced.extend(storm(&host, round * 100_000));
            check(&home, &synced, &format!("{mode}, round {round}"));
        }
        assert!(!synced.is_empty());
        host.coffer(&["vm", "umount", "web01"]).ok();
        let said = host.coffer(&["vm", "fsck", "web01"]);
        assert_eq!(said.code, 0, "{said}");
        host.coffer(&["vm", "mount", "web01", mode]).ok();
        for entry in fs::read_dir(&home).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
        host.coffer(&["vm", "umount", "web01"]).ok();
        let left: Vec<_> = fs::read_dir(host.file("web01", "home")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
