//! What is on the storage of a home with encrypted names, and names there that are not of the home.

use crate::suite::log;
use crate::suite::mounted::Store;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

/// All names and targets of links below a folder, one after the other.
fn stored(folder: &Path, all: &mut Vec<u8>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        all.extend_from_slice(path.file_name().unwrap().as_bytes());
        all.push(b'\n');
        if path.is_symlink() {
            all.extend_from_slice(fs::read_link(&path).unwrap().as_os_str().as_bytes());
            all.push(b'\n');
        } else if path.is_dir() {
            stored(&path, all);
        }
    }
}

#[test]
fn no_name_and_no_target_is_in_clear_on_the_storage() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::create_dir_all(mount.at("payroll/payroll")).unwrap();
    fs::write(mount.at("payroll/payroll/payroll"), b"x").unwrap();
    symlink("payroll/payroll", mount.at("link to payroll")).unwrap();
    fs::hard_link(mount.at("payroll/payroll/payroll"), mount.at("payroll 2")).unwrap();
    fs::rename(mount.at("payroll 2"), mount.at("payroll/payroll 3")).unwrap();
    assert_eq!(fs::read(mount.at("link to payroll/payroll")).unwrap(), b"x");
    let mut all = Vec::new();
    stored(store.folder.path(), &mut all);
    // Five names and a target.
    assert_eq!(all.iter().filter(|&&byte| byte == b'\n').count(), 6);
    assert!(!all.windows(7).any(|piece| piece == b"payroll"), "a name leaks");
    // The same name is the same in every folder.
    assert!(store.below("payroll/payroll/payroll").is_file());
    mount.unmount();
}

#[test]
fn strays_are_not_shown_are_logged_once_and_keep_their_folder() {
    log::keep();
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::create_dir(mount.at("with-a-stray")).unwrap();
    let stray = store.below("with-a-stray").join("stray-of-the-storage");
    fs::write(&stray, b"theirs").unwrap();
    let other = store.below("with-a-stray").join("A".repeat(30));
    fs::create_dir(&other).unwrap();
    for _ in 0..3 {
        assert_eq!(fs::read_dir(mount.at("with-a-stray")).unwrap().count(), 0);
    }
    assert_eq!(log::count(&["WARN", "with-a-stray", "stray-of-the-storage"]), 1);
    assert_eq!(log::count(&["WARN", "with-a-stray", &"A".repeat(30)]), 1);
    assert!(!mount.at("with-a-stray/stray-of-the-storage").exists());
    let refused = fs::remove_dir(mount.at("with-a-stray")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DirectoryNotEmpty);
    assert_eq!(log::count(&["ERROR", "with-a-stray", "looks empty and is not"]), 1);
    fs::create_dir(mount.at("new")).unwrap();
    let refused = fs::rename(mount.at("new"), mount.at("with-a-stray")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DirectoryNotEmpty);
    // One of its own can be made beside it, under the same name too, and the folder can be moved.
    fs::write(mount.at("with-a-stray/stray-of-the-storage"), b"ours").unwrap();
    fs::rename(mount.at("with-a-stray"), mount.at("moved")).unwrap();
    assert_eq!(fs::read(mount.at("moved/stray-of-the-storage")).unwrap(), b"ours");
    let stray = store.below("moved").join("stray-of-the-storage");
    assert_eq!(fs::read(&stray).unwrap(), b"theirs");
    fs::remove_file(stray).unwrap();
    fs::remove_dir(store.below("moved").join("A".repeat(30))).unwrap();
    fs::remove_dir_all(mount.at("moved")).unwrap();
    mount.unmount();
}

#[test]
fn folders_with_more_strays_than_names_are_listed_whole() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::create_dir(mount.at("d")).unwrap();
    for number in 0..1500 {
        fs::write(store.below("d").join(format!("stray-{number:04}-{}", "x".repeat(150))), b"")
            .unwrap();
    }
    let names: BTreeSet<_> = (0..100).map(|number| format!("name-{number}")).collect();
    for name in &names {
        fs::write(mount.at(&format!("d/{name}")), b"").unwrap();
    }
    let listed: BTreeSet<_> = fs::read_dir(mount.at("d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(listed, names);
    mount.unmount();
}
