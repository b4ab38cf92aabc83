//! A home served by the confined binary on a real mount.

use super::process::{Host, Process, ok};
use crypto::{HomeKey, KeySheet, SheetKey};
use hostd_api::error::ErrorCode;
use hostd_api::link::{Request, Response, ServeHome};
use hostd_api::types::{HomeMode, HomeNames};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mount that ends with the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // The test may have unmounted it.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Mounts as hostd does, and hands the home to the vmd.
fn serve(host: &Host, vmd: &Process, key: &HomeKey) -> Option<(Mounted, Response)> {
    serve_as(host, vmd, key, HomeMode::Shared, HomeNames::Plain)
}

fn serve_as(
    host: &Host,
    vmd: &Process,
    key: &HomeKey,
    mode: HomeMode,
    names: HomeNames,
) -> Option<(Mounted, Response)> {
    let (home, mountpoint) = (host.folder().join("home"), host.dir.path().join("mount"));
    if !home.is_symlink() {
        fs::create_dir_all(&home).unwrap();
    }
    fs::create_dir_all(&mountpoint).unwrap();
    let fuse = File::options().read(true).write(true).open("/dev/fuse");
    let (true, Ok(fuse)) = (rustix::process::geteuid().is_root(), fuse) else {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: mounting needs root and /dev/fuse\n"),
        );
        return None;
    };
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        fuse.as_raw_fd()
    );
    let options = std::ffi::CString::new(options).unwrap();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("coffer:web01", &mountpoint, "fuse.coffer", flags, &*options).unwrap();
    let mounted = Mounted(mountpoint.clone());
    let sheet = KeySheet::seal(&[SheetKey::Home(key)]).unwrap();
    let request = Request::ServeHome(ServeHome { mountpoint, mode, names });
    let fds = [fuse.as_fd(), sheet.as_fd()];
    Some((mounted, vmd.link.call(&request, &fds).unwrap().0))
}

/// Everything a VM home is used for, under the confinement of the vmd.
fn use_it(mounted: &Path) {
    let nvram = mounted.join("nvram.fd");
    fs::write(&nvram, [0xf1; 100_000]).unwrap();
    fs::create_dir_all(mounted.join("logs/old")).unwrap();
    fs::rename(&nvram, mounted.join("logs/nvram.fd")).unwrap();
    fs::hard_link(mounted.join("logs/nvram.fd"), &nvram).unwrap();
    std::os::unix::fs::symlink("logs/nvram.fd", mounted.join("link")).unwrap();
    assert_eq!(fs::read(mounted.join("link")).unwrap(), [0xf1; 100_000]);
    fs::set_permissions(&nvram, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&nvram, Some(107), Some(107)).unwrap();
    let file = File::options().read(true).write(true).open(&nvram).unwrap();
    file.set_len(50_001).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), 50_001);
    assert_eq!(fs::read_dir(mounted).unwrap().count(), 3);
    fs::remove_file(mounted.join("link")).unwrap();
    fs::remove_dir(mounted.join("logs/old")).unwrap();
    assert!(Command::new("df").arg(mounted).output().unwrap().status.success());
    // Several users at once, so that more than one thread of the server is at work.
    let writers: Vec<_> = (0..4u8)
        .map(|i| {
            let path = mounted.join(format!("file{i}"));
            std::thread::spawn(move || {
                for _ in 0..20 {
                    fs::write(&path, [i; 20_000]).unwrap();
                    assert_eq!(fs::read(&path).unwrap(), [i; 20_000]);
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn a_home_that_is_a_link_is_refused() {
    let host = Host::new();
    let vmd = host.start();
    fs::create_dir(host.folder().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", host.folder().join("home")).unwrap();
    let key = HomeKey::generate(&host.arena).unwrap();
    let Some((_mounted, response)) = serve(&host, &vmd, &key) else { return };
    match response {
        Response::Failed(failure) => {
            assert_eq!(failure.code, ErrorCode::Storage);
            assert!(failure.message.contains("home"), "{}", failure.message);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(vmd.status().home, None);
}

/// A vmd copies the host's mounts for a moment when it starts; a copy that stayed would keep the homes of others
/// mounted, and their keys in use.
#[test]
fn a_home_ends_although_another_vmd_has_started_meanwhile() {
    let (host, other) = (Host::new(), Host::new());
    let vmd = host.start();
    let key = HomeKey::generate(&host.arena).unwrap();
    let Some((mounted, response)) = serve(&host, &vmd, &key) else { return };
    ok(&response);
    let neighbour = other.start();
    fs::write(mounted.0.join("file"), "data").unwrap();
    unmount(&mounted.0, UnmountFlags::empty()).unwrap();
    ok(&vmd.ask(&Request::StopHome));
    assert_eq!(vmd.status().home, None);
    assert!(neighbour.status().id.is_some());
}

/// The key of names is one more that the confined process derives; everything that is allowed with plain names must be
/// with encrypted ones.
#[test]
fn a_home_with_encrypted_names_is_served_under_the_confinement() {
    let host = Host::new();
    let vmd = host.start();
    let key = HomeKey::generate(&host.arena).unwrap();
    let serve = |mode| serve_as(&host, &vmd, &key, mode, HomeNames::Encrypted);
    let Some((mounted, response)) = serve(HomeMode::Shared) else { return };
    ok(&response);
    use_it(&mounted.0);
    for entry in fs::read_dir(host.folder().join("home")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.len() >= 23 && !name.contains('.'), "{name} is in clear");
    }
    unmount(&mounted.0, UnmountFlags::empty()).unwrap();
    ok(&vmd.ask(&Request::StopHome));
    let (mounted, response) = serve(HomeMode::Exclusive).unwrap();
    ok(&response);
    assert_eq!(fs::metadata(mounted.0.join("logs/nvram.fd")).unwrap().len(), 50_001);
    assert_eq!(fs::read(mounted.0.join("file3")).unwrap(), [3; 20_000]);
}

#[test]
fn devices_are_refused_and_pipes_are_made() {
    let host = Host::new();
    let vmd = host.start();
    let key = HomeKey::generate(&host.arena).unwrap();
    let Some((mounted, response)) = serve(&host, &vmd, &key) else { return };
    ok(&response);
    let make =
        |name: &str, kind, number| mknodat(CWD, mounted.0.join(name), kind, Mode::RUSR, number);
    assert_eq!(make("block", FileType::BlockDevice, makedev(8, 0)), Err(Errno::PERM));
    assert_eq!(make("char", FileType::CharacterDevice, makedev(1, 3)), Err(Errno::PERM));
    make("pipe", FileType::Fifo, 0).unwrap();
    make("socket", FileType::Socket, 0).unwrap();
    assert_eq!(fs::read_dir(&mounted.0).unwrap().count(), 2);
}

#[test]
fn a_home_is_served_until_it_is_unmounted() {
    let host = Host::new();
    let vmd = host.start();
    let key = HomeKey::generate(&host.arena).unwrap();
    let Some((mounted, response)) = serve(&host, &vmd, &key) else { return };
    ok(&response);
    assert_eq!(vmd.status().home.as_ref(), Some(&mounted.0));
    use_it(&mounted.0);

    let stored = fs::read(host.folder().join("home/logs/nvram.fd")).unwrap();
    assert!(!stored.windows(64).any(|window| window == [0xf1; 64]));
    match vmd.ask(&Request::StopHome) {
        Response::Failed(failure) => assert_eq!(failure.code, ErrorCode::InUse),
        other => panic!("{other:?}"),
    }
    unmount(&mounted.0, UnmountFlags::empty()).unwrap();
    ok(&vmd.ask(&Request::StopHome));
    assert_eq!(vmd.status().home, None);

    // It comes back with the same content, also after an unmount of which nobody told the vmd.
    for mode in [HomeMode::Exclusive, HomeMode::Shared] {
        let (mounted, response) = serve_as(&host, &vmd, &key, mode, HomeNames::Plain).unwrap();
        ok(&response);
        assert_eq!(vmd.status().home_mode, Some(mode));
        assert_eq!(fs::metadata(mounted.0.join("nvram.fd")).unwrap().len(), 50_001);
        assert_eq!(fs::read(mounted.0.join("file3")).unwrap(), [3; 20_000]);
        unmount(&mounted.0, UnmountFlags::empty()).unwrap();
        let gone = std::time::Instant::now();
        while vmd.status().home.is_some() {
            assert!(gone.elapsed() < std::time::Duration::from_secs(60));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
