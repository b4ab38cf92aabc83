//! Tests of datastores: one holder, a scan that nothing can hide from, the states.

use super::*;
use cryptfs::safe::Policy;
use cryptfs::seal::{Wrap, create};
use crypto::{Arena, HomeKey, Kek, KeyId};
use uuid::Uuid;

fn store(path: &Path) -> Datastore {
    let config = DatastoreConfig { name: "test".into(), path: path.to_owned() };
    let store = Datastore::new(&config, 4);
    store.refresh();
    store
}

fn vm_folder(path: &Path, id: u128, name: &str) {
    std::fs::create_dir_all(path).unwrap();
    let arena = Arena::new(16 * 1024).unwrap();
    let (kek, home) = (Kek::generate(&arena).unwrap(), HomeKey::generate(&arena).unwrap());
    let key: KeyId = "native/1".parse().unwrap();
    let wraps = vec![Wrap::make(&kek, &key, &home).unwrap()];
    let name = name.parse().unwrap();
    let mut safe = Safe::new(Uuid::from_u128(id), name, Policy::default(), wraps);
    create(&VmFolder::new(path).safe(), &mut safe, &home, &arena).unwrap();
}

#[test]
fn a_second_holder_is_told_who_is_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path());
    assert_eq!(first.state(), DatastoreState::Ready);
    let DatastoreState::Unavailable(reason) = store(dir.path()).state() else {
        panic!("held twice");
    };
    assert!(reason.contains(&std::process::id().to_string()), "{reason}");
    drop(first);
    assert_eq!(store(dir.path()).state(), DatastoreState::Ready);
}

#[test]
fn only_known_file_systems_are_local() {
    assert!(!is_local(Path::new("/proc")).unwrap());
    assert!(is_local(Path::new("/nonexistent-folder")).is_err());
}

#[test]
fn damaged_folders_are_problems_and_hide_nothing() {
    let dir = tempfile::tempdir().unwrap();
    vm_folder(&dir.path().join("web01"), 1, "web01");
    vm_folder(&dir.path().join("web02"), 2, "web02");
    for (name, content) in [("aaa", ""), ("bbb", "{\"format\":\"coffer-safe\""), ("ccc", "x\ny\n")]
    {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("vm.safe"), content).unwrap();
    }
    std::fs::create_dir_all(dir.path().join("not-a-vm/sub")).unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    vm_folder(elsewhere.path(), 3, "web03");
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("web03")).unwrap();
    let store = store(dir.path());
    let found = store.scan([].iter());
    let names: Vec<_> = found.iter().map(|f| f.safe.name.to_string()).collect();
    assert_eq!(names, ["web01", "web02"]);
    let problems = store.info().problems;
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(problems[0].contains("web03 is a link"), "{problems:?}");
    assert!(problems[1..].iter().all(|p| p.contains("vm.safe")), "{problems:?}");
}

#[test]
fn an_original_comes_before_its_copy() {
    let dir = tempfile::tempdir().unwrap();
    vm_folder(&dir.path().join("aaa-copy"), 1, "web01");
    vm_folder(&dir.path().join("web01"), 1, "web01");
    let found = store(dir.path()).scan([].iter());
    assert_eq!(found[0].folder.path(), dir.path().join("web01"));
    assert_eq!(found.len(), 2);
}

#[test]
fn registered_folders_are_found_where_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("tenant/web01");
    vm_folder(&deep, 1, "web01");
    let store = store(dir.path());
    assert!(store.scan([].iter()).is_empty());
    assert_eq!(store.scan([deep].iter()).len(), 1);
    let elsewhere = PathBuf::from("/somewhere/else");
    assert!(store.scan([elsewhere].iter()).is_empty());
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = dir.path().join(format!("{SCRATCH_PREFIX}x"));
    vm_folder(&scratch, 1, "web01");
    let store = store(dir.path());
    assert!(store.scan([].iter()).is_empty(), "a scratch folder is no VM");
    store.clear_scratch();
    assert!(!scratch.exists());
}

#[test]
fn a_missing_folder_is_unavailable_until_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("late");
    let store = store(&path);
    assert!(matches!(store.state(), DatastoreState::Unavailable(_)));
    assert!(store.writable().is_err());
    assert!(!store.refresh());
    std::fs::create_dir(&path).unwrap();
    assert!(store.refresh(), "it has just become usable");
    assert!(!store.refresh(), "and is no news the second time");
    store.writable().unwrap();
}

/// Mounts a tmpfs over a folder, or says that this process may not.
fn mounted(path: &Path) -> Option<Mounted<'_>> {
    use rustix::mount::{MountFlags, mount};
    match mount("tmpfs", path, "tmpfs", MountFlags::empty(), None) {
        Ok(()) => Some(Mounted(path)),
        Err(e) => {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: this process may not mount ({e})\n"),
            );
            None
        }
    }
}

struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    fn read_only(&self, on: bool) {
        use rustix::mount::{MountFlags, mount_remount};
        let flags = if on { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_remount(self.0, flags, c"").unwrap();
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _gone = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_datastore_that_becomes_writable_is_locked_then() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = mounted(dir.path()) else { return };
    mount.read_only(true);
    let store = store(dir.path());
    assert_eq!(store.state(), DatastoreState::ReadOnly);
    assert!(store.readable().is_ok() && store.writable().is_err());
    mount.read_only(false);
    store.refresh();
    assert_eq!(store.state(), DatastoreState::Ready);
    assert!(dir.path().join(LOCK_FILE).exists());
}

#[test]
fn a_lock_is_taken_where_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = mounted(dir.path()) else { return };
    let ours = |name: &str| matches!(files::lock(&dir.path().join(name)).unwrap(), Locked::Ours(_));
    assert!(ours("there"));
    mount.read_only(true);
    let path = dir.path().join("there");
    let held = files::lock(&path).unwrap();
    assert!(matches!(held, Locked::Ours(_)));
    assert!(!ours("there"), "it was locked twice");
    drop(held);
    assert!(ours("there"));
    assert!(files::lock_if_possible(&dir.path().join("absent")).unwrap().is_none());
}
