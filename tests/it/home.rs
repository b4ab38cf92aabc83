//! The home of a VM: mount, files, umount, and what the datastore sees.

use rustix::fs::{CWD, FileType, Mode, XattrFlags, getxattr, makedev, mknodat, setxattr};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use tests::host::{Host, pattern};
use tests::needs;
use tests::scratch::mounts_below;

fn host_with_home() -> Host {
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    mount(&host);
    host
}

fn mount(host: &Host) {
    let shown = host.json(&["vm", "mount", "web01"]);
    assert_eq!(shown["home"].as_str().unwrap(), host.home("web01").to_str().unwrap());
}

fn umount(host: &Host) {
    host.coffer(&["vm", "umount", "web01"]).ok();
    assert!(mounts_below(&host.run_dir()).is_empty());
}

#[test]
fn files_and_folders_survive_a_new_mount() {
    needs!(Root, Fuse);
    let host = host_with_home();
    let home = host.home("web01");
    fs::create_dir_all(home.join("snapshots/old")).unwrap();
    let sizes = [0, 1, 511, 512, 4095, 4096, 4097, 65_536, 1_000_001];
    for size in sizes {
        let seed = u32::try_from(size).unwrap();
        fs::write(home.join(format!("snapshots/f{size}")), pattern(size, seed)).unwrap();
    }
    fs::rename(home.join("snapshots/f512"), home.join("web01.vmx")).unwrap();
    fs::remove_file(home.join("snapshots/f511")).unwrap();
    symlink("web01.vmx", home.join("current")).unwrap();
    fs::set_permissions(home.join("web01.vmx"), fs::Permissions::from_mode(0o640)).unwrap();
    umount(&host);
    assert!(!home.join("web01.vmx").exists());

    mount(&host);
    for size in sizes.into_iter().filter(|size| ![511, 512].contains(size)) {
        let path = home.join(format!("snapshots/f{size}"));
        let seed = u32::try_from(size).unwrap();
        assert!(fs::read(&path).unwrap() == pattern(size, seed), "{size} differs");
        assert_eq!(fs::metadata(&path).unwrap().len(), u64::from(seed));
    }
    assert!(!home.join("snapshots/f511").exists());
    assert_eq!(fs::read(home.join("current")).unwrap(), pattern(512, 512));
    assert_eq!(fs::metadata(home.join("web01.vmx")).unwrap().mode() & 0o777, 0o640);
    assert!(home.join("snapshots/old").is_dir());
}

#[test]
fn writes_anywhere_and_truncation_keep_the_rest() {
    needs!(Root, Fuse);
    let host = host_with_home();
    let path = host.home("web01").join("nvram");
    let mut expected = pattern(20_000, 1);
    fs::write(&path, &expected).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for (offset, length) in [(0, 1), (4095, 2), (5000, 4096), (19_999, 1), (8191, 1)] {
        let data = pattern(length, 77);
        file.write_all_at(&data, u64::try_from(offset).unwrap()).unwrap();
        expected[offset..offset + length].copy_from_slice(&data);
    }
    file.set_len(9000).unwrap();
    expected.truncate(9000);
    file.set_len(30_000).unwrap();
    expected.resize(30_000, 0);
    file.write_all_at(b"end", 40_000).unwrap();
    expected.resize(40_000, 0);
    expected.extend(b"end");
    file.sync_all().unwrap();
    drop(file);
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(b"appended").unwrap();
    expected.extend(b"appended");
    drop(log);
    umount(&host);
    mount(&host);
    assert!(fs::read(&path).unwrap() == expected, "content differs");
    let mut file = File::open(&path).unwrap();
    file.seek(SeekFrom::Start(39_998)).unwrap();
    let mut tail = String::new();
    file.read_to_string(&mut tail).unwrap();
    assert_eq!(tail, "\0\0endappended");
}

#[test]
fn the_datastore_holds_no_plain_byte_of_a_file() {
    needs!(Root, Fuse);
    let host = host_with_home();
    fs::write(host.home("web01").join("web01.vmx"), pattern(10_000, 5)).unwrap();
    umount(&host);
    let stored = fs::read(host.file("web01", "home/web01.vmx")).unwrap();
    let plain = pattern(64, 5);
    assert!(stored.len() >= 10_000);
    assert!(!stored.windows(16).any(|piece| piece == &plain[..16]), "plain bytes at rest");
}

#[test]
fn a_home_with_open_files_is_unmounted_only_by_force() {
    needs!(Root, Fuse);
    let host = host_with_home();
    let file = File::create(host.home("web01").join("open")).unwrap();
    host.coffer(&["vm", "umount", "web01"]).refused(6, &["web01", "--force"]);
    assert!(host.home("web01").join("open").exists());
    host.coffer(&["vm", "umount", "web01", "--force"]).ok();
    assert!(mounts_below(&host.run_dir()).is_empty());
    drop(file);
    host.coffer(&["vm", "umount", "web01"]).refused(6, &["web01"]);
    mount(&host);
    assert!(host.home("web01").join("open").exists());
}

#[test]
fn mounting_twice_is_told() {
    needs!(Root, Fuse);
    let host = host_with_home();
    host.coffer(&["vm", "mount", "web01"]).refused(6, &["web01", "mounted"]);
    assert_eq!(mounts_below(&host.run_dir()).len(), 1);
}

#[test]
fn a_confined_vmd_keeps_attributes_and_makes_no_devices() {
    needs!(Root, Fuse);
    let host = host_with_home();
    let home = host.home("web01");
    let (file, folder) = (home.join("f"), home.join("d"));
    fs::write(&file, b"x").unwrap();
    fs::create_dir(&folder).unwrap();
    let set =
        |path: &Path, name: &str, value: &[u8]| setxattr(path, name, value, XattrFlags::empty());
    for name in ["user.note", "trusted.note", "security.note"] {
        set(&file, name, b"kept").unwrap();
        set(&folder, name, b"kept").unwrap();
    }
    // Owner and group everything, the user 1234 reads, others nothing (acl(5)).
    let entries = [
        (1_u16, 7_u16, u32::MAX),
        (2, 4, 1234),
        (4, 7, u32::MAX),
        (16, 7, u32::MAX),
        (32, 0, u32::MAX),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(
            tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()),
        );
    }
    set(&folder, "system.posix_acl_default", &list).unwrap();
    fs::write(folder.join("inherits"), b"x").unwrap();
    let mode = Mode::from_raw_mode(0o600);
    let device = mknodat(CWD, home.join("null"), FileType::CharacterDevice, mode, makedev(1, 3));
    assert_eq!(device, Err(Errno::PERM));
    mknodat(CWD, home.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    umount(&host);
    mount(&host);
    let get = |path: &Path, name: &str| {
        let mut room = [0_u8; 100];
        getxattr(path, name, &mut room[..]).map(|len| room[..len].to_vec())
    };
    for name in ["user.note", "trusted.note", "security.note"] {
        assert_eq!(
            (get(&file, name).unwrap(), get(&folder, name).unwrap()),
            (b"kept".into(), b"kept".into())
        );
    }
    assert_eq!(get(&folder, "system.posix_acl_default").unwrap(), list);
    assert!(get(&folder.join("inherits"), "system.posix_acl_access").is_ok());
    umount(&host);
}
