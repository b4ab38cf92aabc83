//! What lasts: a folder that a process works in, names under many hands, and a store that is mounted again and again.

use super::mounted::{Store, pattern};
use cryptfs::door::Caching;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const BOTH: [Caching; 2] = [Caching::Shared, Caching::Exclusive];

/// Longer than names and attributes are believed in a shared mount.
const FORGOTTEN: Duration = Duration::from_millis(1200);

#[test]
fn a_working_folder_is_known_after_its_attributes_are_old() {
    for caching in BOTH {
        let store = Store::new();
        let Some(mount) = store.mount_as(caching) else { return };
        fs::create_dir_all(mount.at("a/b/c")).unwrap();
        let pause = FORGOTTEN.as_secs_f32();
        // The second shell asks the kernel, which walks up from a folder that it has to ask for anew.
        let line = format!("sleep {pause}; env -u PWD sh -c '/bin/pwd -P; cd ..; /bin/pwd -P; ls'");
        let mut shell = Command::new("sh");
        let output = shell.arg("-c").arg(line).current_dir(mount.at("a/b/c")).output().unwrap();
        let expected = format!("{0}/a/b/c\n{0}/a/b\nc\n", mount.path().display());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{caching:?}");
        assert!(output.status.success());
        mount.unmount();
    }
}

/// One of many that link, move, replace and remove names which others use as well. Every error but those that the
/// others explain is a fault.
fn juggle(root: &Path, worker: usize) {
    let own = |round: usize| root.join(format!("w{worker}-{round}"));
    let common = |number: usize| root.join(format!("common{}", number % 4));
    let explained = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::AlreadyExists);
    for round in 0..60 {
        fs::write(own(round), pattern(100 + round)).unwrap();
        for done in [
            fs::hard_link(own(round), common(worker + round)),
            fs::rename(common(round), common(round + 1)),
            fs::remove_file(common(round + 2)),
        ] {
            assert!(done.as_ref().err().is_none_or(|error| explained(error.kind())), "{done:?}");
        }
        match fs::read(common(worker + round)) {
            Ok(bytes) => assert!(bytes == pattern(bytes.len()) && bytes.len() >= 100),
            Err(error) => assert!(explained(error.kind()), "{error}"),
        }
        // Its own names nobody else touches.
        let next = root.join(format!("w{worker}"));
        fs::rename(own(round), &next).unwrap();
        assert!(fs::read(&next).unwrap() == pattern(100 + round));
    }
}

#[test]
fn names_are_linked_moved_and_removed_by_many_at_once() {
    for caching in BOTH {
        let store = Store::new();
        let Some(mount) = store.mount_as(caching) else { return };
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let root = mount.path();
                scope.spawn(move || juggle(root, worker));
            }
        });
        for common in 0..4 {
            let _ = fs::remove_file(mount.at(&format!("common{common}")));
        }
        let listed = |folder: &Path| -> BTreeSet<String> {
            let names = fs::read_dir(folder).unwrap();
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let expected: BTreeSet<_> = (0..8).map(|worker| format!("w{worker}")).collect();
        assert_eq!(listed(mount.path()), expected);
        let stored =
            |name: &String| store.below(name).file_name().unwrap().to_str().unwrap().into();
        let below: BTreeSet<String> = expected.iter().map(stored).collect();
        assert_eq!(listed(store.folder.path()), below, "no hidden name is left below");
        for name in &expected {
            assert_eq!(fs::metadata(mount.at(name)).unwrap().nlink(), 1, "{name}");
        }
        mount.unmount();
    }
}

#[test]
fn a_store_is_mounted_a_hundred_times() {
    let store = Store::new();
    for round in 0..100_u64 {
        let Some(mount) = store.mount_as(BOTH[usize::try_from(round % 2).unwrap()]) else { return };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = file.open(mount.at("f")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), round * 777);
        file.write_all_at(&pattern(777), round * 777).unwrap();
        drop(file);
        mount.unmount();
    }
    let mount = store.mount().unwrap();
    let bytes = fs::read(mount.at("f")).unwrap();
    assert!(bytes.len() == 77_700 && bytes.chunks(777).all(|part| part == pattern(777)));
    mount.unmount();
}

/// What is written, and mapped and written, is data at once to those who copy without its holes.
#[test]
fn fresh_data_is_in_a_copy_that_skips_holes() {
    for caching in BOTH {
        let store = Store::new();
        let Some(mount) = store.mount_as(caching) else { return };
        for round in 0..10 {
            let (from, to) = (mount.at(&format!("f{round}")), mount.at(&format!("c{round}")));
            let file = File::options().read(true).write(true).create_new(true).open(&from).unwrap();
            file.set_len(3 << 20).unwrap();
            file.write_all_at(&pattern(9000), round * 100_000).unwrap();
            super::data::map(&file, 3 << 20, |map| map[(2 << 20) + 7] = 1);
            let mut cp = Command::new("cp");
            cp.args(["--sparse=always", "--reflink=never"]).arg(&from).arg(&to);
            assert!(cp.status().unwrap().success());
            let copied = fs::read(&to).unwrap();
            let at = usize::try_from(round * 100_000).unwrap();
            assert!(copied[at..at + 9000] == pattern(9000), "{caching:?}, round {round}");
            assert_eq!((copied.len(), copied[(2 << 20) + 7]), (3 << 20, 1));
        }
        mount.unmount();
    }
}
