//! More files than the process has descriptors.
//!
//! A home learns its limit from the process, so the tests proper run in a process of their own with a low one.
//! That is started from here and not from the other tests of mounted homes: between fork and exec a child has
//! copies of all descriptors, and theirs must not keep a mount busy.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test does")]

#[expect(dead_code, reason = "shared with tests that need more of it")]
#[path = "home/log.rs"]
mod log;
#[expect(dead_code, reason = "shared with tests that need more of it")]
#[path = "home/mounted.rs"]
mod mounted;

use mounted::Store;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

/// How the homes of these tests store names.
const NAMES: cryptfs::safe::Names = cryptfs::safe::Names::Plain;

/// Descriptors of the process; half of them are for nodes.
const DESCRIPTORS: usize = 1024;
const NODES: usize = DESCRIPTORS / 2;

const CHILD: &str = "COFFER_TEST_FEW_DESCRIPTORS";
const ENFILE: i32 = 23;

/// Runs a test of this file with few descriptors.
fn with_few_descriptors(test: &str) {
    let program = std::env::current_exe().unwrap();
    let limited = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(limited).arg(program).args(["--exact", test, "--nocapture"]);
    let output = command.env(CHILD, "1").output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_home_may_have_more_files_than_descriptors() {
    if !is_child() {
        return with_few_descriptors("a_home_may_have_more_files_than_descriptors");
    }
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("held"), b"held").unwrap();
    let held = File::open(mount.at("held")).unwrap();
    let folders = 12;
    let files = NODES / 2;
    for folder in 0..folders {
        let path = mount.at(&format!("d{folder}"));
        fs::create_dir(&path).unwrap();
        for file in 0..files {
            fs::write(path.join(format!("f{file}")), format!("{folder}/{file}")).unwrap();
        }
        assert!(descriptors() < DESCRIPTORS * 3 / 4, "the kernel forgets nothing");
    }
    for folder in 0..folders {
        let path = mount.at(&format!("d{folder}"));
        let names: BTreeSet<_> =
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), files);
        for file in 0..files {
            let content = fs::read_to_string(path.join(format!("f{file}"))).unwrap();
            assert_eq!(content, format!("{folder}/{file}"));
        }
    }
    // What is open was not touched.
    let shown = fs::read_link(format!("/proc/self/fd/{}", held.as_raw_fd())).unwrap();
    assert_eq!(shown, mount.at("held"));
    drop(held);
    mount.unmount();
}

#[test]
fn a_listing_has_all_names_when_no_node_is_left() {
    if !is_child() {
        return with_few_descriptors("a_listing_has_all_names_when_no_node_is_left");
    }
    log::keep();
    let store = Store::new();
    let names: BTreeSet<_> = (0..20).map(|number| format!("name{number}")).collect();
    fs::create_dir(store.below("list")).unwrap();
    for name in &names {
        File::create(store.below("list").join(name)).unwrap();
    }
    let Some(mount) = store.mount() else { return };
    let list = File::open(mount.at("list")).unwrap();
    // No folder that is open, or above another one, can be forgotten.
    let mut deep = mount.path().to_path_buf();
    let mut deepest = None;
    let error = loop {
        deep.push("d");
        match fs::create_dir(&deep).and_then(|()| File::open(&deep)) {
            Ok(folder) => deepest = Some(folder),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(ENFILE));
    let list = format!("/proc/self/fd/{}", list.as_raw_fd());
    let listed: BTreeSet<_> = fs::read_dir(Path::new(&list))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(listed, names);
    assert!(log::count(&["ERROR", "readdirplus", "files known to the kernel"]) > 0, "it is logged");
    drop(deepest);
}
