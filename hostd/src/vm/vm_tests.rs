//! Tests of the verbs on VMs and disks: what they leave, what they refuse, and with which code.

use crate::fault::Fault;
use crate::testing::{TestHost, code, create_disk, refused};
use cryptfs::lease::{Holder, Leases, Renewal, Use};
use hostd_api::error::{ErrorCode, LockCode};
use hostd_api::types::{
    AttachDisk, CreateVm, Force, HomeNames, KeyringState, MountVm, RegisterVm, ResizeDisk,
    UmountVm, VmState,
};
use rustix::mount::{MountFlags, UnmountFlags};
use std::path::{Path, PathBuf};

const FORCE: Force = Force { force: true };
const GENTLE: Force = Force { force: false };

fn create(t: &TestHost, name: &str) -> Result<(), Fault> {
    t.host
        .create_vm(&CreateVm {
            name: name.into(),
            datastore: None,
            names: HomeNames::Plain,
            key_id: None,
        })
        .map(|_| ())
}

fn entries(path: &Path) -> Vec<String> {
    let names = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<_> = names.map(|n| n.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_new_vm_has_safe_home_and_disks() {
    let t = TestHost::new();
    t.vm("web01");
    assert_eq!(entries(&t.store().join("web01")), [".lock", "disks", "home", "vm.safe"]);
    let info = t.host.show_vm("web01").unwrap();
    assert_eq!((info.state, info.key_ids.len()), (VmState::Unlocked, 1));
    assert_eq!(info.lock, None);
    assert_eq!(t.host.list_vms().len(), 1);
}

#[test]
fn bad_and_taken_names_are_refused_everywhere() {
    let t = TestHost::new();
    t.vm("web01");
    for bad in ["", "a/b", "..", ".x", "-x", "a b", &"x".repeat(65), "a\n"] {
        assert_eq!(code(create(&t, bad)), ErrorCode::InvalidArgument, "{bad:?}");
        assert_eq!(code(t.host.show_vm(bad)), ErrorCode::InvalidArgument, "{bad:?}");
        assert_eq!(code(t.host.delete_vm(bad, &GENTLE)), ErrorCode::InvalidArgument, "{bad:?}");
        assert_eq!(code(t.host.lock_vm(bad, &FORCE)), ErrorCode::InvalidArgument, "{bad:?}");
        let disk = t.host.create_disk("web01", &create_disk(bad, 512));
        assert_eq!(code(disk), ErrorCode::InvalidArgument, "{bad:?}");
        assert_eq!(
            code(t.host.delete_disk("web01", bad, &Force::default())),
            ErrorCode::InvalidArgument,
            "{bad:?}"
        );
        let attach = t.host.attach_disk("web01", bad, &AttachDisk::default());
        assert_eq!(code(attach), ErrorCode::InvalidArgument, "{bad:?}");
    }
    assert_eq!(code(create(&t, "web01")), ErrorCode::AlreadyExists);
    std::fs::create_dir(t.store().join("foreign")).unwrap();
    let foreign = refused(create(&t, "foreign"));
    assert_eq!(foreign.code, ErrorCode::AlreadyExists);
    assert!(foreign.remedy.contains("rmdir"), "{}", foreign.remedy);
    std::fs::write(t.store().join("foreign/file"), "x").unwrap();
    assert!(!refused(create(&t, "foreign")).remedy.contains("rmdir"));
    let elsewhere = CreateVm {
        name: "web02".into(),
        datastore: Some("nowhere".into()),
        names: HomeNames::Plain,
        key_id: None,
    };
    assert_eq!(code(t.host.create_vm(&elsewhere)), ErrorCode::NotFound);
    assert_eq!(entries(&t.store()), [".coffer-lock", "foreign", "web01"], "nothing is left");
}

#[test]
fn things_that_are_not_there_are_not_found() {
    let t = TestHost::new();
    t.vm("web01");
    assert_eq!(code(t.host.show_vm("web02")), ErrorCode::NotFound);
    assert_eq!(code(t.host.mount_vm("web02", &MountVm::default())), ErrorCode::NotFound);
    assert_eq!(code(t.host.show_disk("web01", "root")), ErrorCode::NotFound);
    assert_eq!(code(t.host.delete_disk("web01", "root", &Force::default())), ErrorCode::NotFound);
    assert_eq!(code(t.host.disk_ready("web01", "root")), ErrorCode::NotFound);
    let size = ResizeDisk { size: 512, shrink: false, force: false };
    assert_eq!(code(t.host.resize_disk("web01", "root", &size)), ErrorCode::NotFound);
    let attach = t.host.attach_disk("web01", "root", &AttachDisk::default());
    assert_eq!(code(attach), ErrorCode::NotFound);
}

#[test]
fn what_does_not_run_cannot_be_taken_back() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "root");
    assert_eq!(code(t.host.detach_disk("web01", "root", &GENTLE)), ErrorCode::WrongState);
    assert_eq!(
        code(t.host.umount_vm("web01", &UmountVm { force: true, lazy: false })),
        ErrorCode::WrongState
    );
}

#[test]
fn a_vmd_that_cannot_start_leaves_nothing() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "root");
    let error = refused(t.host.attach_disk("web01", "root", &AttachDisk::default()));
    assert!(error.message.contains("no-vmd-here"), "{}", error.message);
    assert!(t.host.mount_vm("web01", &MountVm::default()).is_err());
    assert!(entries(&t.host.config.vm_runs()).is_empty());
    assert_eq!(t.host.show_vm("web01").unwrap().state, VmState::Unlocked);
    t.host.delete_vm("web01", &GENTLE).unwrap();
}

#[test]
fn deleting_removes_the_folder_and_the_name() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "root");
    let info = t.host.delete_vm("web01", &GENTLE).unwrap();
    assert_eq!(info.disks.len(), 1);
    assert_eq!(entries(&t.store()), [".coffer-lock"]);
    assert_eq!(code(t.host.show_vm("web01")), ErrorCode::NotFound);
    t.vm("web01");
}

/// The leases of a VM as a host of another name has them.
fn leases_of(t: &TestHost, name: &str) -> Leases {
    let vm = t.host.inventory.get(name).unwrap();
    let mut inner = vm.enter().unwrap();
    let opened = t.host.open_safe(&vm, &mut inner).unwrap();
    Leases::new(&vm.folder, vm.id, &opened.key, t.host.keyring.arena()).unwrap()
}

fn other_host() -> Holder {
    Holder { id: uuid::Uuid::from_u128(2), name: "node2".into() }
}

#[test]
fn a_vm_whose_home_another_host_has_is_deleted_by_force_only() {
    let t = TestHost::new();
    t.vm("web01");
    let leases = leases_of(&t, "web01");
    for how in [Use::Exclusive, Use::Shared] {
        let claim = leases.take(&other_host(), how, false, 1).unwrap().claim;
        let error = refused(t.host.delete_vm("web01", &GENTLE));
        assert_eq!(error.code, ErrorCode::InUse);
        assert!(error.message.contains("node2"), "{}", error.message);
        assert!(error.remedy.contains("coffer vm delete web01 --force"), "{}", error.remedy);
        leases.release(&claim, 2).unwrap();
    }
    let mut claim = leases.take(&other_host(), Use::Exclusive, false, 3).unwrap().claim;
    std::thread::scope(|scope| {
        let deleted = scope.spawn(|| t.host.delete_vm("web01", &FORCE));
        // The other host finds out and stops.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while leases.renew(&mut claim, 4).is_ok_and(|renewal| renewal == Renewal::Stands) {
            assert!(std::time::Instant::now() < end, "it is not taken over");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let _gone_already = leases.yield_to(&claim, 5);
        deleted.join().unwrap().unwrap();
    });
    assert_eq!(entries(&t.store()), [".coffer-lock"]);
    assert!(t.host.list_vms().is_empty());
}

#[test]
fn a_vm_that_this_host_had_mounted_is_deleted_without_force() {
    let t = TestHost::new();
    t.vm("web01");
    let own = Holder { id: t.host.state.host(), name: "here".into() };
    leases_of(&t, "web01").take(&own, Use::Exclusive, false, 1).unwrap();
    t.host.delete_vm("web01", &GENTLE).unwrap();
    assert_eq!(entries(&t.store()), [".coffer-lock"]);
}

#[test]
fn leases_that_nobody_can_read_need_force_to_delete() {
    let t = TestHost::new();
    for name in ["web01", "web02", "web03"] {
        t.vm(name);
    }
    for name in ["web01", "web02"] {
        let leases = leases_of(&t, name);
        let claim = leases.take(&other_host(), Use::Exclusive, false, 1).unwrap().claim;
        leases.release(&claim, 2).unwrap();
    }
    let record = t.store().join("web02/leases/exclusive.0000000000000001");
    std::fs::write(&record, "{}").unwrap();
    assert!(t.host.delete_vm("web02", &GENTLE).is_err());
    t.host.delete_vm("web02", &FORCE).unwrap();
    let t = t.restarted_without_keys();
    let error = refused(t.host.delete_vm("web01", &GENTLE));
    assert_eq!(error.code, ErrorCode::InUse);
    assert!(error.remedy.contains("--force"), "{}", error.remedy);
    t.host.delete_vm("web01", &FORCE).unwrap();
    // Never mounted: there is nothing to be told.
    t.host.delete_vm("web03", &GENTLE).unwrap();
    assert_eq!(entries(&t.store()), [".coffer-lock"]);
}

#[test]
fn another_process_that_serves_the_vm_is_respected() {
    let t = TestHost::new();
    t.vm("web01");
    t.disk("web01", "root");
    let lock = crate::files::lock(&t.store().join("web01/.lock")).unwrap();
    let error = refused(t.host.delete_vm("web01", &GENTLE));
    assert_eq!(error.code, ErrorCode::InUse);
    assert!(error.message.contains("not under this hostd"), "{}", error.message);
    assert_eq!(code(t.host.delete_disk("web01", "root", &Force::default())), ErrorCode::InUse);
    let attach = t.host.attach_disk("web01", "root", &AttachDisk::default());
    assert_eq!(code(attach), ErrorCode::InUse);
    drop(lock);
    t.host.delete_vm("web01", &GENTLE).unwrap();
}

#[test]
fn register_takes_folders_inside_a_datastore_once() {
    let t = TestHost::new();
    t.vm("web01");
    let outside = tempfile::tempdir().unwrap();
    let register = |path: PathBuf| t.host.register_vm(&RegisterVm { path });
    assert_eq!(code(register(outside.path().into())), ErrorCode::InvalidArgument);
    assert_eq!(code(register(t.store())), ErrorCode::InvalidArgument);
    assert_eq!(code(register(t.store().join("web01/../../ds"))), ErrorCode::InvalidArgument);
    assert_eq!(code(register(t.store().join("gone"))), ErrorCode::NotFound);
    assert_eq!(code(register(t.store().join("web01"))), ErrorCode::AlreadyExists);
    std::fs::create_dir(t.store().join("empty")).unwrap();
    assert_eq!(code(register(t.store().join("empty"))), ErrorCode::NotFound);

    std::fs::create_dir(t.store().join("copy")).unwrap();
    std::fs::copy(t.store().join("web01/vm.safe"), t.store().join("copy/vm.safe")).unwrap();
    assert_eq!(code(register(t.store().join("copy"))), ErrorCode::AlreadyExists);
}

#[test]
fn a_registered_folder_is_known_after_a_restart() {
    let t = TestHost::new();
    t.vm("web01");
    let deep = t.store().join("tenant/web01");
    std::fs::create_dir(t.store().join("tenant")).unwrap();
    std::fs::rename(t.store().join("web01"), &deep).unwrap();
    let leftovers = [deep.join(".vm.safe.00.coffer-tmp"), deep.join("disks/.a.disk.00.coffer-tmp")];
    leftovers.iter().for_each(|path| std::fs::write(path, "half").unwrap());
    let t = t.restarted();
    assert!(t.host.list_vms().is_empty());
    t.host.register_vm(&RegisterVm { path: deep.clone() }).unwrap();
    let t = t.restarted();
    assert_eq!(t.host.show_vm("web01").unwrap().path, deep.canonicalize().unwrap());
    assert!(leftovers.iter().all(|path| !path.exists()), "leftovers of a crash are removed");
    t.host.delete_vm("web01", &GENTLE).unwrap();
    let t = t.restarted();
    assert!(t.host.list_vms().is_empty());
}

#[test]
fn a_lock_survives_a_restart_and_names_the_key() {
    let t = TestHost::new();
    t.vm("web01");
    t.vm("web02");
    let key = t.host.show_vm("web01").unwrap().key_ids[0].clone();
    let info = t.host.lock_vm("web01", &GENTLE).unwrap();
    assert_eq!(info.state, VmState::Locked);
    assert_eq!(t.host.keyring.state(&key.parse().unwrap()), KeyringState::Evicted);
    t.host.lock_vm("web01", &GENTLE).unwrap();

    let t = t.restarted();
    let error = refused(t.host.create_disk("web01", &create_disk("root", 4096)));
    assert_eq!(error.code, ErrorCode::VmLocked);
    assert!(error.remedy.contains("coffer vm unlock web01"), "{}", error.remedy);
    let reason = error.lock.unwrap();
    assert_eq!((reason.code, reason.key_id), (LockCode::LockedByOperator, Some(key.clone())));
    let info = t.host.show_vm("web01").unwrap();
    assert_eq!(info.lock.unwrap().key_id, Some(key));
    assert_eq!(code(t.host.mount_vm("web01", &MountVm::default())), ErrorCode::VmLocked);
    assert_eq!(code(t.host.delete_vm("web01", &GENTLE)), ErrorCode::VmLocked);
    t.disk("web02", "root");

    assert_eq!(t.host.unlock_vm("web01").unwrap().state, VmState::Unlocked);
    t.disk("web01", "root");
    let t = t.restarted();
    assert_eq!(t.host.show_vm("web01").unwrap().state, VmState::Unlocked);
}

#[test]
fn a_lock_leaves_no_key_of_the_vm_in_memory() {
    let t = TestHost::new();
    let used = || t.host.keyring.arena().usage().used;
    let before = used();
    t.vm("web01");
    t.disk("web01", "root");
    assert!(used() > before);
    t.host.lock_vm("web01", &GENTLE).unwrap();
    assert_eq!(used(), before);
}

fn lock_code(t: &TestHost) -> LockCode {
    let error = refused(t.host.create_disk("web01", &create_disk("root", 4096)));
    assert_eq!(error.code, ErrorCode::VmLocked, "{error:?}");
    let info = t.host.show_vm("web01").unwrap();
    assert_eq!(info.state, VmState::Locked);
    assert_eq!(info.lock.unwrap().code, error.lock.as_ref().unwrap().code);
    error.lock.unwrap().code
}

#[test]
fn the_reason_of_a_lock_is_told() {
    let t = TestHost::new();
    t.vm("web01");
    let t = t.restarted_without_keys();
    assert_eq!(t.host.show_vm("web01").unwrap().state, VmState::Locked);
    assert_eq!(lock_code(&t), LockCode::ProviderUnavailable);
    assert_eq!(code(create(&t, "web02")), ErrorCode::ProviderUnavailable);

    let t = t.restarted_with_other_keys();
    assert_eq!(lock_code(&t), LockCode::WrongKey);

    let safe = t.store().join("web01/vm.safe");
    let text = std::fs::read_to_string(&safe).unwrap();
    std::fs::write(&safe, text.replace("native/", "other/")).unwrap();
    assert_eq!(lock_code(&t), LockCode::ProviderNotConfigured);

    std::fs::write(&safe, &text[..text.len() - 3]).unwrap();
    assert_eq!(lock_code(&t), LockCode::SafeDamaged);
}

#[test]
fn an_edited_safe_locks_the_vm() {
    let t = TestHost::new();
    t.vm("web01");
    let safe = t.store().join("web01/vm.safe");
    let text = std::fs::read_to_string(&safe).unwrap();
    std::fs::write(&safe, text.replace("\"keep\"", "\"fail\"")).unwrap();
    assert_eq!(lock_code(&t), LockCode::SafeDamaged);
    std::fs::write(&safe, text).unwrap();
    t.disk("web01", "root");
    assert_eq!(t.host.show_vm("web01").unwrap().state, VmState::Unlocked, "and heals");
}

/// A small file system, unmounted at the end.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None`, with a line on standard error, when this process may not mount.
    fn new(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let data = std::ffi::CString::new(options).unwrap();
        let mounted =
            rustix::mount::mount("t", dir.path(), "tmpfs", MountFlags::empty(), data.as_c_str());
        if let Err(e) = mounted {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: this process may not mount ({e})\n"),
            );
            return None;
        }
        Some(Self(dir))
    }

    fn read_only(&self) {
        rustix::mount::mount_remount(self.0.path(), MountFlags::RDONLY, c"").unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _gone = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_datastore_is_no_space_and_leaves_nothing() {
    let Some(tmpfs) = Tmpfs::new("size=64k,nr_inodes=64") else { return };
    let t = TestHost::over(tmpfs.0.path());
    let filler = tmpfs.0.path().join("filler");
    let _full = std::fs::write(&filler, vec![1; 1 << 20]);
    assert_eq!(code(create(&t, "web01")), ErrorCode::NoSpace);
    assert_eq!(entries(tmpfs.0.path()), [".coffer-lock", "filler"]);
    std::fs::remove_file(&filler).unwrap();
    t.vm("web01");
    let _full = std::fs::write(&filler, vec![1; 1 << 20]);
    let disk = t.host.create_disk("web01", &create_disk("root", 1 << 20));
    assert_eq!(code(disk), ErrorCode::NoSpace);
    assert!(entries(&tmpfs.0.path().join("web01/disks")).is_empty(), "the payload is gone too");
}

#[test]
fn a_read_only_datastore_is_shown_and_refused() {
    let Some(tmpfs) = Tmpfs::new("size=1m") else { return };
    let t = TestHost::over(tmpfs.0.path());
    t.vm("web01");
    t.disk("web01", "root");
    // A file system with a file open for writing cannot be made read-only, hence the restart.
    let t = t.restarted_after(|| tmpfs.read_only());
    let error = refused(create(&t, "web02"));
    assert_eq!(error.code, ErrorCode::Storage);
    assert!(error.message.contains("read-only"), "{}", error.message);
    assert_eq!(code(t.host.delete_vm("web01", &GENTLE)), ErrorCode::Storage);
    assert_eq!(code(t.host.create_disk("web01", &create_disk("x", 512))), ErrorCode::Storage);
    let info = t.host.status();
    assert_eq!(info.datastores[0].state, hostd_api::types::DatastoreState::ReadOnly);
    assert_eq!(t.host.show_vm("web01").unwrap().disks.len(), 1, "it is still listed");
}

#[test]
fn a_link_in_the_place_of_the_disks_reaches_nobody_elses() {
    let t = TestHost::new();
    for vm in ["web01", "web02"] {
        t.vm(vm);
    }
    t.disk("web02", "root");
    let (own, other) = (t.store().join("web01/disks"), t.store().join("web02/disks"));
    std::fs::remove_dir(&own).unwrap();
    std::os::unix::fs::symlink(&other, &own).unwrap();
    std::fs::write(other.join(".x.disk.00.coffer-tmp"), "half").unwrap();
    let before = entries(&other);
    let size = other.join("root.data").metadata().unwrap().len();
    assert_eq!(code(t.host.delete_disk("web01", "root", &Force::default())), ErrorCode::Damaged);
    assert_eq!(code(t.host.create_disk("web01", &create_disk("more", 4096))), ErrorCode::Damaged);
    let resize = ResizeDisk { size: 64 << 20, shrink: false, force: false };
    assert!(t.host.resize_disk("web01", "root", &resize).is_err());
    assert_eq!(entries(&other), before);
    assert_eq!(other.join("root.data").metadata().unwrap().len(), size);
}
