//! What lies below the mount: no plaintext there, and nothing there is believed.

use super::log;
use super::mounted::Store;
use cryptfs::door::{Caching, Settings, serve};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::Instant;

const EIO: i32 = 5;

fn refused(path: &Path) -> bool {
    fs::read(path).is_err_and(|error| error.raw_os_error() == Some(EIO))
}

#[test]
fn no_plaintext_reaches_the_storage() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let marker = b"COFFER-PLAINTEXT-MARKER-0123456789";
    for (name, at) in [("a", 0_u64), ("b", 500), ("c", 4090), ("d", 100_000)] {
        let file = fs::File::create_new(mount.at(name)).unwrap();
        file.write_all_at(marker, at).unwrap();
        file.write_all_at(marker, at + 7).unwrap();
        file.sync_all().unwrap();
    }
    fs::copy(mount.at("d"), mount.at("e")).unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        let plain = fs::read(mount.at(name)).unwrap();
        assert!(plain.windows(8).any(|bytes| bytes == &marker[..8]), "{name} has the marker");
        let stored = fs::read(store.below(name)).unwrap();
        assert!(!stored.windows(8).any(|bytes| bytes == &marker[..8]), "{name} leaks");
    }
    mount.unmount();
}

#[test]
fn every_changed_header_byte_is_refused_and_logged() {
    log::keep();
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("victim-of-flips"), b"content").unwrap();
    let below =
        OpenOptions::new().read(true).write(true).open(store.below("victim-of-flips")).unwrap();
    let (before, start) = (log::count(&["victim-of-flips"]), Instant::now());
    for at in 0..4096 {
        let mut byte = [0];
        below.read_exact_at(&mut byte, at).unwrap();
        below.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        assert!(refused(&mount.at("victim-of-flips")), "byte {at}");
        below.write_all_at(&byte, at).unwrap();
    }
    assert_eq!(fs::read(mount.at("victim-of-flips")).unwrap(), b"content");
    let logged = log::count(&["ERROR", "victim-of-flips", "open"]) - before;
    // Users can cause these as fast as they can ask: the log gets twenty a minute, and how many were left out.
    let minutes = usize::try_from(start.elapsed().as_secs() / 60).unwrap();
    assert!((20..=20 * (minutes + 1)).contains(&logged), "{logged} of 4096 refusals are logged");
    mount.unmount();
}

#[test]
fn files_of_another_vm_are_refused() {
    log::keep();
    let (ours, theirs) = (Store::new(), Store::new());
    let Some(mount) = theirs.mount() else { return };
    fs::write(mount.at("stolen"), b"their content").unwrap();
    mount.unmount();
    fs::copy(theirs.below("stolen"), ours.below("stolen")).unwrap();
    let mount = ours.mount().unwrap();
    assert!(refused(&mount.at("stolen")));
    assert_eq!(log::count(&["ERROR", "stolen", &theirs.vm.to_string()]), 1);
    // It can be seen and removed, but neither read nor written over.
    assert_eq!(fs::metadata(mount.at("stolen")).unwrap().len(), 13);
    assert!(OpenOptions::new().write(true).truncate(true).open(mount.at("stolen")).is_err());
    fs::remove_file(mount.at("stolen")).unwrap();
    mount.unmount();
}

#[test]
fn a_file_without_its_header_is_refused() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("f"), b"content").unwrap();
    let below = OpenOptions::new().write(true).open(store.below("f")).unwrap();
    below.write_all_at(&[0; 4096], 0).unwrap();
    assert!(refused(&mount.at("f")));
    mount.unmount();
}

#[test]
fn links_that_were_planted_edited_or_cut_lead_nowhere() {
    log::keep();
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let outside = tempfile::TempDir::new().unwrap();
    symlink("inside", mount.at("honest")).unwrap();
    let honest = fs::read_link(store.below("honest")).unwrap().into_os_string().into_vec();
    mount.unmount();
    let there = outside.path().join("secrets").into_os_string().into_vec();
    // What authenticates a target stands in front of it.
    let front = if store.is_encrypted() { 30 } else { 41 };
    let cases = [
        ("planted-link", there.clone()),
        ("edited-link", [&honest[..front], &there].concat()),
        ("cut-link", honest[..honest.len() - 1].to_vec()),
        ("short-link", honest[..front].to_vec()),
    ];
    for (name, target) in &cases {
        symlink(OsStr::from_bytes(target), store.below(name)).unwrap();
    }
    let mount = store.mount().unwrap();
    for (name, _) in &cases {
        let read = fs::read_link(mount.at(name)).unwrap_err();
        assert_eq!(read.raw_os_error(), Some(EIO), "{name}");
        assert_eq!(log::count(&["ERROR", name, "readlink"]), 1, "{name} is logged once");
        let written = fs::write(mount.at(name), b"secret").unwrap_err();
        assert_eq!(written.raw_os_error(), Some(EIO), "{name}");
    }
    assert_eq!(fs::symlink_metadata(mount.at("short-link")).unwrap().len(), 0);
    assert_eq!(outside.path().read_dir().unwrap().count(), 0, "something was written outside");
    // The honest one works, under another name too, and a bad one can be removed.
    fs::rename(mount.at("honest"), mount.at("renamed")).unwrap();
    assert_eq!(fs::read_link(mount.at("renamed")).unwrap().as_os_str(), "inside");
    fs::remove_file(mount.at("planted-link")).unwrap();
    mount.unmount();
}

#[test]
fn a_killed_mount_ends_the_server() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("f"), b"content").unwrap();
    // Lazily, with a file still open: the server ends when the file is closed.
    let held = fs::File::open(mount.at("f")).unwrap();
    let path = mount.path().to_path_buf();
    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(!path.join("f").exists());
    let mut byte = [0];
    held.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, *b"c");
    drop(held);
    mount.join();
}

#[test]
fn a_device_that_is_not_mounted_is_refused() {
    let Ok(device) = OpenOptions::new().read(true).write(true).open("/dev/fuse") else { return };
    let store = Store::new();
    let settings = Settings { threads: 2, caching: Caching::Shared };
    assert!(serve(store.home(), device.into(), settings).is_err());
}
