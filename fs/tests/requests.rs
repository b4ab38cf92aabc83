//! How many requests the kernel makes of a home: what it may know must not be asked for again and again.
//!
//! Each test has this process to itself, as the log that is counted is the process's.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test does")]

#[expect(dead_code, reason = "shared with tests that need more of it")]
#[path = "home/log.rs"]
mod log;
#[expect(dead_code, reason = "shared with tests that need more of it")]
#[path = "home/mounted.rs"]
mod mounted;

use cryptfs::door::Caching;
use mounted::{Mounted, Store, pattern};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// How the homes of these tests store names.
const NAMES: cryptfs::safe::Names = cryptfs::safe::Names::Plain;

/// Requests of a kind since the log was cleared.
fn requests(kind: &str) -> usize {
    log::count(&["request", &format!("operation=\"{kind}\"")])
}

/// Writes a thousand blocks as a user without privilege.
fn write_as_user(mount: &Mounted, name: &str) {
    let line = "dd if=/dev/zero of=\"$0\" bs=4k count=1000 conv=notrunc 2>/dev/null";
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(line).arg(mount.at(name)).uid(1234).gid(1234);
    assert!(shell.status().unwrap().success());
}

#[test]
fn the_kernel_asks_no_more_than_it_must() {
    log::keep_all();
    for caching in [Caching::Shared, Caching::Exclusive] {
        let store = Store::new();
        let Some(mount) = store.mount_as(caching) else { return };
        fs::write(mount.at("f"), pattern(100)).unwrap();
        std::os::unix::fs::chown(mount.at("f"), Some(1234), Some(1234)).unwrap();
        writes_are_not_preceded_by_questions(&mount, caching);
        aligned_writes_read_nothing(&mount, caching);
        names_are_believed(&mount, caching);
        content_is_kept(&mount, caching);
        closing_is_not_told(&mount);
        missing_names_are_believed(&mount, caching);
        listings_are_kept_until_a_name_changes(&mount, caching);
        mount.unmount();
    }
}

fn writes_are_not_preceded_by_questions(mount: &Mounted, caching: Caching) {
    log::clear();
    write_as_user(mount, "f");
    let writes = requests("write");
    match caching {
        Caching::Shared => assert_eq!(writes, 1000),
        Caching::Exclusive => assert!(writes < 100, "{writes} writes are not collected"),
    }
    let questions = requests("getxattr");
    assert!(questions < 10, "{questions} questions for 1000 writes");
}

/// Calls of read(2) and its kind by this process, in which the home is served too (proc(5), `io`).
fn reading_calls() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("syscr: "));
    line.and_then(|number| number.parse().ok()).unwrap()
}

/// A storage that answers after milliseconds must be asked once a write: neither old bytes nor a size first. The reads
/// that remain are those of requests from the kernel.
fn aligned_writes_read_nothing(mount: &Mounted, caching: Caching) {
    log::clear();
    let file = File::options().write(true).open(mount.at("f")).unwrap();
    let before = reading_calls();
    for number in 0..200 {
        file.write_all_at(&[7; 16_384], number * 16_384).unwrap();
    }
    file.sync_all().unwrap();
    let calls = usize::try_from(reading_calls() - before).unwrap();
    assert_eq!(requests("read"), 0, "{caching:?}");
    let answered = log::count(&["request"]);
    assert!(
        answered > 0 && calls < answered + 50,
        "{caching:?}: {calls} reads, {answered} requests"
    );
}

fn names_are_believed(mount: &Mounted, caching: Caching) {
    fs::metadata(mount.at("f")).unwrap();
    log::clear();
    for _ in 0..100 {
        fs::metadata(mount.at("f")).unwrap();
    }
    // Whatever the load, a hundred calls do not take a hundred seconds.
    let asked = requests("lookup") + requests("getattr");
    assert!(asked < 100, "{caching:?}: {asked} questions for 100 calls of stat");
}

fn content_is_kept(mount: &Mounted, caching: Caching) {
    let read = || fs::read(mount.at("f")).unwrap().len();
    assert_eq!(read(), 1000 * 4096);
    log::clear();
    for _ in 0..10 {
        assert_eq!(read(), 1000 * 4096);
    }
    let file = File::open(mount.at("f")).unwrap();
    file.read_exact_at(&mut [0; 10], 77).unwrap();
    if caching == Caching::Exclusive {
        assert_eq!(requests("read"), 0, "what was read is read again");
    }
}

fn closing_is_not_told(mount: &Mounted) {
    log::clear();
    for _ in 0..10 {
        drop(File::open(mount.at("f")).unwrap());
        drop(File::options().append(true).open(mount.at("f")).unwrap());
    }
    // The store is on a storage of this host, which has nothing to tell.
    assert_eq!(requests("flush"), 0);
}

fn missing_names_are_believed(mount: &Mounted, caching: Caching) {
    log::clear();
    for _ in 0..10 {
        assert!(!mount.at("later").exists());
    }
    let expected = if caching == Caching::Shared { 10 } else { 1 };
    assert_eq!(requests("lookup"), expected, "{caching:?}");
    fs::write(mount.at("later"), b"x").unwrap();
    assert!(mount.at("later").exists());
    fs::rename(mount.at("later"), mount.at("new")).unwrap();
    assert!(!mount.at("later").exists() && mount.at("new").exists());
    fs::remove_file(mount.at("new")).unwrap();
    assert!(!mount.at("new").exists());
}

fn listings_are_kept_until_a_name_changes(mount: &Mounted, caching: Caching) {
    let list = || {
        let names = fs::read_dir(mount.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(list(), ["f"]);
    log::clear();
    for _ in 0..10 {
        assert_eq!(list(), ["f"]);
    }
    let asked = requests("readdir") + requests("readdirplus");
    assert!(
        caching == Caching::Shared || asked == 0,
        "{asked} questions for a listing that is known"
    );
    fs::write(mount.at("g"), b"x").unwrap();
    assert_eq!(list(), ["f", "g"]);
    fs::remove_file(mount.at("g")).unwrap();
    assert_eq!(list(), ["f"]);
}
