//! The home of a VM between hosts: who may mount it, taking over, and what happens to the one that lost it.
//!
//! Two hosts are two hostd with folders of their own over one datastore. Where one must not see the other's locks, as
//! on a network file system that does not pass them on, the lock files are taken away: each then locks its own.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tests::host::{Host, pattern};
use tests::nbd::Nbd;
use tests::scratch::mounts_below;
use tests::{needs, wait};

pub(super) fn first() -> Host {
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    host
}

/// Another host over the same datastore with the same keys.
pub(super) fn second(first: &Host) -> Host {
    let mut host = Host::prepare(|_| first.store().to_owned());
    fs::copy(first.key_file(), host.key_file()).unwrap();
    host.up();
    host
}

/// Has locks on the datastore be seen by nobody else.
pub(super) fn hide_locks(host: &Host) {
    fs::remove_file(host.store().join(".coffer-lock")).unwrap();
    hide_vm_lock(host);
}

/// The same for the VM alone: whoever serves it next makes a new file.
fn hide_vm_lock(host: &Host) {
    fs::remove_file(host.file("web01", ".lock")).unwrap();
}

pub(super) fn host_id(host: &Host) -> String {
    fs::read_to_string(host.state_dir().join("host-id")).unwrap().trim().to_owned()
}

fn mount(host: &Host, how: &[&str]) -> serde_json::Value {
    let mut args = vec!["vm", "mount", "web01"];
    args.extend(how);
    host.json(&args)["home_mount"].clone()
}

fn lease_file(host: &Host, epoch: u64) -> PathBuf {
    host.file("web01", "leases").join(format!("exclusive.{epoch:016x}"))
}

fn is_mounted(host: &Host) -> bool {
    !mounts_below(&host.run_dir()).is_empty()
}

#[test]
fn a_home_on_a_local_file_system_is_mounted_exclusively_and_tuned() {
    needs!(Root, Fuse);
    let mut host = Host::prepare(|scratch| scratch.tmpfs("store", 16 << 20));
    host.init();
    host.up();
    host.coffer(&["vm", "create", "web01"]).ok();
    let mounted = mount(&host, &[]);
    assert_eq!((mounted["mode"].as_str(), mounted["epoch"].as_u64()), (Some("exclusive"), Some(1)));
    let limit = |name: &str| {
        let device = fs::metadata(host.home("web01")).unwrap().dev();
        let bdi = Path::new("/sys/class/bdi").join(format!("0:{}", rustix::fs::minor(device)));
        fs::read_to_string(bdi.join(name)).unwrap().trim().to_owned()
    };
    assert_eq!(limit("read_ahead_kb"), "4096");
    assert_eq!((limit("max_ratio"), limit("strict_limit")), ("100".into(), "0".into()));
    host.coffer(&["vm", "umount", "web01"]).ok();
    let record = fs::read_to_string(lease_file(&host, 1)).unwrap();
    assert!(record.contains("\"released\"") && record.contains(&host_id(&host)), "{record}");

    let mounted = mount(&host, &["--shared"]);
    assert_eq!((mounted["mode"].as_str(), mounted["epoch"].as_u64()), (Some("shared"), None));
    assert_eq!(limit("read_ahead_kb"), "4096");
    assert_eq!(limit("strict_limit"), "1");
    host.coffer(&["vm", "umount", "web01"]).ok();
    assert!(!host.file("web01", "leases").join(format!("shared.{}", host_id(&host))).exists());
}

/// Any file system but the known local ones may be elsewhere; here it is the home of another VM.
#[test]
fn a_home_on_any_other_file_system_is_shared_unless_asked_for() {
    needs!(Root, Fuse);
    let one = first();
    mount(&one, &[]);
    let mut two = Host::prepare(|_| one.home("web01").join("store"));
    two.init();
    two.up();
    two.coffer(&["vm", "create", "web01"]).ok();
    assert_eq!(mount(&two, &[])["mode"].as_str(), Some("shared"));
    fs::write(two.home("web01").join("note"), "works").unwrap();
    two.coffer(&["vm", "umount", "web01"]).ok();
    assert_eq!(mount(&two, &["--exclusive"])["mode"].as_str(), Some("exclusive"));
    assert_eq!(fs::read_to_string(two.home("web01").join("note")).unwrap(), "works");
    two.coffer(&["vm", "umount", "web01"]).ok();
    two.stop();
}

#[test]
fn a_second_host_is_told_who_has_the_home_and_takes_it_by_force_only() {
    needs!(Root, Fuse);
    let one = first();
    mount(&one, &["--exclusive"]);
    let mut unsaved = File::create(one.home("web01").join("unsaved")).unwrap();
    fs::write(one.home("web01").join("saved"), "kept").unwrap();
    File::open(one.home("web01").join("saved")).unwrap().sync_all().unwrap();
    hide_locks(&one);
    let two = second(&one);
    for how in ["--exclusive", "--shared"] {
        let words = [host_id(&one), "since 20".into(), "--force".into(), "exclusively".into()];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        two.coffer(&["vm", "mount", "web01", how]).refused(6, &words);
    }
    assert!(is_mounted(&one) && !is_mounted(&two));
    unsaved.write_all(&pattern(100_000, 3)).unwrap();

    let mounted = mount(&two, &["--exclusive", "--force"]);
    assert_eq!(mounted["epoch"].as_u64(), Some(2));
    // The first host has stopped before the second began, and says so.
    assert!(!is_mounted(&one));
    // It shows the VM as it was while it still stops it.
    let why = wait::until("the first host says why", wait::STEP, || {
        one.json(&["vm", "show", "web01"])["home_problem"].as_str().map(ToOwned::to_owned)
    });
    assert!(why.contains("taken over") && why.contains(&host_id(&two)), "{why}");
    assert!(one.coffer(&["host", "status"]).ok().contains("taken over"));
    assert!(!two.coffer(&["host", "status"]).ok().contains("did not say"));
    // What it had not written by then is lost, and never gets to the storage under the second host.
    let home = two.home("web01");
    let there = fs::read(home.join("unsaved")).unwrap();
    assert!(pattern(100_000, 3).starts_with(&there));
    assert!(unsaved.write_all(b"late").and_then(|()| unsaved.sync_all()).is_err());
    drop(unsaved);
    assert!(fs::read(home.join("unsaved")).unwrap() == there, "written by a host that was fenced");
    assert_eq!(fs::read_to_string(home.join("saved")).unwrap(), "kept");

    hide_vm_lock(&two);
    one.coffer(&["vm", "mount", "web01"]).refused(6, &[&host_id(&two)]);
    two.coffer(&["vm", "umount", "web01"]).ok();
    assert_eq!(mount(&one, &[])["epoch"].as_u64(), Some(3));
    assert!(one.json(&["vm", "show", "web01"])["home_problem"].is_null());
}

#[test]
fn a_home_that_another_host_has_is_not_checked_nor_deleted() {
    needs!(Root, Fuse);
    let one = first();
    mount(&one, &["--exclusive"]);
    hide_locks(&one);
    let two = second(&one);
    for repair in [&[][..], &["--repair"]] {
        let check = [&["vm", "fsck", "web01"], repair].concat();
        two.coffer(&check).refused(6, &[&host_id(&one), "unmount it there"]);
    }
    let delete = ["vm", "delete", "web01", "--yes"];
    two.coffer(&delete).refused(6, &[&host_id(&one), "coffer vm delete web01 --force"]);
    one.coffer(&["vm", "umount", "web01"]).ok();
    two.coffer(&["vm", "fsck", "web01", "--repair"]).ok();
    // What the check claimed is free again.
    mount(&one, &["--exclusive"]);
}

#[test]
fn two_hosts_share_a_home_that_nobody_has_alone() {
    needs!(Root, Fuse);
    let one = first();
    mount(&one, &["--shared"]);
    hide_locks(&one);
    let two = second(&one);
    two.coffer(&["vm", "mount", "web01", "--exclusive"]).refused(6, &[&host_id(&one), "shared"]);
    mount(&two, &["--shared"]);
    fs::write(one.home("web01").join("note"), "from one").unwrap();
    assert_eq!(fs::read_to_string(two.home("web01").join("note")).unwrap(), "from one");
    fs::write(two.home("web01").join("note"), "now from two, longer").unwrap();
    wait::until_true("the change is seen", || {
        fs::read_to_string(one.home("web01").join("note")).unwrap() == "now from two, longer"
    });
    // One of them goes, the other takes the home alone, and then is taken over.
    one.coffer(&["vm", "umount", "web01"]).ok();
    two.coffer(&["vm", "umount", "web01"]).ok();
    mount(&two, &["--exclusive"]);
    hide_vm_lock(&two);
    mount(&one, &["--shared", "--force"]);
    assert!(is_mounted(&one) && !is_mounted(&two));
}

#[test]
fn a_host_that_died_has_its_home_again_without_force_and_others_have_not() {
    needs!(Root, Fuse);
    let mut one = first();
    mount(&one, &["--exclusive"]);
    fs::write(one.home("web01").join("note"), "kept").unwrap();
    File::open(one.home("web01").join("note")).unwrap().sync_all().unwrap();
    one.kill();
    one.kill_vmds();
    one.up();
    assert_eq!(mount(&one, &["--exclusive"])["epoch"].as_u64(), Some(2));
    assert_eq!(fs::read_to_string(one.home("web01").join("note")).unwrap(), "kept");
    one.kill();
    one.kill_vmds();

    let two = second(&one);
    two.coffer(&["vm", "mount", "web01"]).refused(6, &[&host_id(&one), "--force"]);
    mount(&two, &["--force"]);
    assert!(two.coffer(&["host", "status"]).ok().contains("did not say that it has stopped"));
    assert_eq!(fs::read_to_string(two.home("web01").join("note")).unwrap(), "kept");
    assert!(!lease_file(&two, 2).exists() && lease_file(&two, 3).exists());
}

#[test]
fn the_mode_and_the_lease_outlive_hostd_and_vmd() {
    needs!(Root, Fuse);
    let mut host = first();
    mount(&host, &["--exclusive"]);
    let renewed = |host: &Host| fs::metadata(lease_file(host, 1)).unwrap().ino();
    let shown = |host: &Host| host.json(&["vm", "show", "web01"])["home_mount"].clone();
    let before = shown(&host);
    host.kill();
    host.up();
    assert_eq!(shown(&host), before);
    let old = renewed(&host);
    wait::until_true("the lease is renewed", || renewed(&host) != old);
    host.kill_vmds();
    wait::until_true("the home is back", || {
        fs::read_dir(host.home("web01")).is_ok_and(|_| is_mounted(&host))
    });
    assert_eq!(shown(&host), before);
    fs::write(host.home("web01").join("note"), "works").unwrap();
    host.coffer(&["vm", "umount", "web01"]).ok();
    let old = renewed(&host);
    assert!(fs::read_to_string(lease_file(&host, 1)).unwrap().contains("\"released\""));
    mount(&host, &["--shared"]);
    host.kill();
    host.up();
    assert_eq!(shown(&host)["mode"].as_str(), Some("shared"));
    assert_eq!(renewed(&host), old, "a lease that was given back is not touched");
}

#[test]
fn a_hostd_that_comes_back_stops_a_home_that_was_taken_meanwhile() {
    needs!(Root, Fuse);
    let mut one = first();
    mount(&one, &["--exclusive"]);
    one.kill();
    let (lock, kept) = (one.file("web01", ".lock"), one.file("web01", "kept"));
    fs::hard_link(&lock, &kept).unwrap();
    hide_locks(&one);
    let mut two = second(&one);
    mount(&two, &["--force"]);
    two.coffer(&["vm", "umount", "web01"]).ok();
    two.stop();
    assert!(is_mounted(&one), "nobody could tell its vmd");
    fs::rename(&kept, &lock).unwrap();
    one.up();
    assert!(!is_mounted(&one));
    let shown = one.json(&["vm", "show", "web01"]);
    assert!(shown["home_problem"].as_str().unwrap().contains("taken over"), "{shown}");
    assert!(one.vmds().is_empty());
}

#[test]
fn a_lease_that_could_not_be_taken_up_is_tried_for_again() {
    needs!(Root, Fuse);
    let mut one = first();
    mount(&one, &["--exclusive"]);
    let epoch = |host: &Host| host.json(&["vm", "show", "web01"])["home_mount"]["epoch"].as_u64();
    let spoil = |host: &mut Host| {
        host.kill();
        let record = fs::read(lease_file(host, 1)).unwrap();
        fs::write(lease_file(host, 1), "rubbish").unwrap();
        host.up();
        assert!(is_mounted(host) && epoch(host).is_none());
        record
    };
    let good = spoil(&mut one);
    assert!(one.coffer(&["host", "status"]).ok().contains("cannot be taken up"));
    fs::write(lease_file(&one, 1), &good).unwrap();
    wait::until_true("the lease is taken up", || epoch(&one) == Some(1));
    assert!(!one.coffer(&["host", "status"]).ok().contains("cannot be taken up"));

    // It is taken before the host has it again.
    let good = spoil(&mut one);
    fs::write(lease_file(&one, 1), &good).unwrap();
    hide_locks(&one);
    let two = second(&one);
    mount(&two, &["--force"]);
    assert!(!is_mounted(&one) && is_mounted(&two));
    assert!(!two.coffer(&["host", "status"]).ok().contains("did not say"));
    let shown = one.json(&["vm", "show", "web01"]);
    assert!(shown["home_problem"].as_str().unwrap().contains("taken over"), "{shown}");
}

#[test]
fn a_busy_home_names_its_users_and_leaves_lazily() {
    needs!(Root, Fuse);
    let host = first();
    mount(&host, &[]);
    let path = host.home("web01").join("open");
    let mut file = File::create(&path).unwrap();
    let own = format!("({})", std::process::id());
    host.coffer(&["vm", "umount", "web01"]).refused(6, &[&own, "--lazy", "--force"]);
    let said = host.coffer(&["vm", "umount", "web01", "--lazy"]).ok();
    assert!(said.contains("served on"), "{said}");
    assert!(!is_mounted(&host) && !path.exists());
    // Its users go on, and nobody can have the home meanwhile.
    file.write_all(b"written after the unmount").unwrap();
    file.sync_all().unwrap();
    let shown = host.json(&["vm", "show", "web01"]);
    assert_eq!(shown["home_mount"]["state"].as_str(), Some("leaving"));
    for verb in ["mount", "umount", "lock"] {
        host.coffer(&["vm", verb, "web01"]).refused(6, &["lazily", "--force"]);
    }
    drop(file);
    wait::until_true("the home has ended", || host.state("web01") == "unlocked");
    mount(&host, &[]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "written after the unmount");

    let open = File::open(&path).unwrap();
    host.coffer(&["vm", "umount", "web01", "--lazy"]).ok();
    host.coffer(&["vm", "umount", "web01", "--force"]).ok();
    assert_eq!(host.state("web01"), "unlocked");
    drop(open);
    // Nobody uses it: then lazily is at once.
    mount(&host, &[]);
    host.coffer(&["vm", "umount", "web01", "--lazy"]).ok();
    assert_eq!(host.state("web01"), "unlocked");
}

/// The kernel's switches of FUSE mounts, which systemd mounts and a bare host lacks.
struct Switches {
    own: bool,
}

const SWITCHES: &str = "/sys/fs/fuse/connections";

impl Switches {
    fn mounted() -> Self {
        let there = || fs::read_to_string("/proc/mounts").unwrap().contains(SWITCHES);
        let own = !there();
        if own {
            let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
            rustix::mount::mount("fusectl", SWITCHES, "fusectl", flags, None).unwrap();
        }
        Self { own }
    }
}

impl Drop for Switches {
    fn drop(&mut self) {
        if self.own {
            let flags = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(SWITCHES, flags).unwrap();
        }
    }
}

#[test]
fn disks_go_on_while_a_home_is_fenced_or_its_users_are_cut_off() {
    needs!(Root, Fuse);
    let _switches = Switches::mounted();
    let one = first();
    one.coffer(&["disk", "create", "web01", "root", "--size", "1M"]).ok();
    one.coffer(&["disk", "attach", "web01", "root"]).ok();
    let mut disk = Nbd::open(&one.socket("web01", "root"), "root").unwrap();
    disk.write(0, &[1; 512]).unwrap();
    let vmd = || one.json(&["vm", "show", "web01"])["vmd_pid"].as_u64().unwrap();
    let before = vmd();

    mount(&one, &["--exclusive"]);
    let mut open = File::create(one.home("web01").join("open")).unwrap();
    open.write_all(b"flushed").unwrap();
    one.coffer(&["vm", "umount", "web01", "--force"]).ok();
    assert!(open.write_all(b"late").and_then(|()| open.sync_all()).is_err());
    // Nobody waits for the program that has it open still.
    mount(&one, &["--exclusive"]);
    assert_eq!(fs::read_to_string(one.home("web01").join("open")).unwrap(), "flushed");

    hide_locks(&one);
    let two = second(&one);
    let mounted = mount(&two, &["--force"]);
    assert_eq!(mounted["epoch"].as_u64(), Some(3));
    assert!(!is_mounted(&one));
    assert!(!two.coffer(&["host", "status"]).ok().contains("did not say"));
    disk.write(512, &[2; 512]).unwrap();
    disk.flush().unwrap();
    assert_eq!(vmd(), before, "its vmd has stayed");
}

#[test]
fn a_forced_unmount_keeps_what_was_written() {
    needs!(Root, Fuse);
    let host = first();
    mount(&host, &["--exclusive"]);
    let path = host.home("web01").join("open");
    let mut file = File::create(&path).unwrap();
    file.write_all(&pattern(3_000_000, 9)).unwrap();
    host.coffer(&["vm", "umount", "web01", "--force"]).ok();
    drop(file);
    mount(&host, &["--exclusive"]);
    assert!(fs::read(&path).unwrap() == pattern(3_000_000, 9), "content differs");
}

#[test]
fn a_datastore_that_may_hold_devices_is_told_once() {
    needs!(Root);
    let mut host = Host::prepare(|scratch| scratch.tmpfs("store", 16 << 20));
    host.init();
    host.up();
    let told = |host: &Host| host.coffer(&["host", "status"]).ok().matches("nosuid,nodev").count();
    assert_eq!(told(&host), 1);
    host.stop();
    let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
    rustix::mount::mount_remount(host.store(), flags, "").unwrap();
    host.up();
    assert_eq!(told(&host), 0);
}
