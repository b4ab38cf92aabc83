//! One store mounted twice at once, as by two hosts: what each promises while the other changes things.

use super::mounted::{Mounted, Store, eventually, pattern};
use super::owners::as_ids;
use cryptfs::door::Caching;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

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

/// The time between a look for a name and its creation is long where the kernel believes that there is none.
#[test]
fn what_was_made_there_meanwhile_is_not_opened_past_its_permissions() {
    let store = Store::new();
    let Some(here) = store.mount_as(Caching::Exclusive) else { return };
    let there = store.mount().unwrap();
    fs::set_permissions(here.path(), Permissions::from_mode(0o777)).unwrap();
    for name in ["secret", "known", "old"] {
        assert!(!here.at(name).exists());
        fs::write(there.at(name), b"from there").unwrap();
        let mode = if name == "secret" { 0o600 } else { 0o666 };
        fs::set_permissions(there.at(name), Permissions::from_mode(mode)).unwrap();
    }
    let open = |name: &str, truncate| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(truncate);
        as_ids(1234, 1234, || options.open(here.at(name)))
    };
    let refused = open("secret", true).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EACCES), "{refused}");
    assert_eq!(std::io::read_to_string(open("known", false).unwrap()).unwrap(), "from there");
    assert_eq!(std::io::read_to_string(open("old", true).unwrap()).unwrap(), "");
    let first = File::create_new(here.at("known")).unwrap_err();
    assert_eq!(first.raw_os_error(), Some(libc::EEXIST), "{first}");
    assert_eq!(fs::read(there.at("secret")).unwrap(), b"from there");
    here.unmount();
    there.unmount();
}

#[test]
fn files_made_on_both_sides_at_once_open_on_both() {
    let store = Store::new();
    let Some((here, there)) = both(&store) else { return };
    let barrier = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for side in [&here, &there] {
            scope.spawn(|| {
                for i in 0..200 {
                    barrier.wait();
                    let name = side.at(&format!("f{i}"));
                    let file = OpenOptions::new().append(true).create(true).open(name).unwrap();
                    assert!(file.metadata().unwrap().is_file());
                }
            });
        }
    });
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

/// Records of 47,008 bytes, as programs on two nodes write them in turn; rounded up to sectors, so that none has bytes
/// of two records.
#[test]
fn records_written_in_turn_on_both_sides_are_whole() {
    const RECORD: usize = 47_008_usize.next_multiple_of(512);
    const RECORDS: usize = 60;
    let store = Store::new();
    let Some((here, there)) = both(&store) else { return };
    drop(File::create_new(here.at("f")).unwrap());
    std::thread::scope(|scope| {
        for (odd, side) in [(0, &here), (1, &there)] {
            scope.spawn(move || {
                let file = OpenOptions::new().write(true).open(side.at("f")).unwrap();
                // The size is there before both write: of two that grow a file, one may cut what the other wrote.
                file.set_len((RECORD * RECORDS) as u64).unwrap();
                for record in (odd..RECORDS).step_by(2) {
                    let mut bytes = pattern(RECORD);
                    bytes[0] = u8::try_from(record).unwrap();
                    file.write_all_at(&bytes, (record * RECORD) as u64).unwrap();
                }
            });
        }
    });
    here.unmount();
    there.unmount();
    let mount = store.mount().unwrap();
    let bytes = fs::read(mount.at("f")).unwrap();
    assert_eq!(bytes.len(), RECORD * RECORDS);
    for (record, bytes) in bytes.chunks(RECORD).enumerate() {
        let whole = usize::from(bytes[0]) == record && bytes[1..] == pattern(RECORD)[1..];
        assert!(whole, "record {record}");
    }
    mount.unmount();
}

/// Output of git in a folder, when it succeeds.
fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.args(["-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "safe.directory=*"]);
    command.args(["-c", "user.name=t", "-c", "user.email=t@t.invalid"]).args(args);
    let output = command.current_dir(folder).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_repository_takes_commits_from_both_sides_in_turn() {
    if Command::new("git").arg("--version").output().is_err() {
        let _ =
            std::io::Write::write_all(&mut std::io::stderr(), b"SKIPPED: needs `git` on PATH\n");
        return;
    }
    let store = Store::new();
    let Some((here, there)) = both(&store) else { return };
    git(here.path(), &["init", "-q", "-b", "main", "r"]).unwrap();
    let mut head = String::new();
    for round in 0..6 {
        let folder = if round % 2 == 0 { here.at("r") } else { there.at("r") };
        becomes("the last commit is seen", || {
            round == 0 || git(&folder, &["rev-parse", "HEAD"]).is_some_and(|seen| seen == head)
        });
        for file in 0..5 {
            let name = folder.join(format!("d{file}/f{round}"));
            fs::create_dir_all(name.parent().unwrap()).unwrap();
            fs::write(name, pattern(round * 1000 + file)).unwrap();
        }
        git(&folder, &["add", "-A"]).unwrap();
        git(&folder, &["commit", "-q", "-m", &format!("round {round}")]).unwrap();
        head = git(&folder, &["rev-parse", "HEAD"]).unwrap();
        git(&folder, &["fsck", "--full", "--strict", "--no-progress"]).unwrap();
    }
    here.unmount();
    there.unmount();
    let mount = store.mount().unwrap();
    git(&mount.at("r"), &["fsck", "--full", "--strict", "--no-progress"]).unwrap();
    assert_eq!(git(&mount.at("r"), &["rev-list", "--count", "HEAD"]).unwrap(), "6\n");
    assert_eq!(git(&mount.at("r"), &["status", "--porcelain"]).unwrap(), "");
    mount.unmount();
}
