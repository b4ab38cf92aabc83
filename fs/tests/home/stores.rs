//! Homes on storages that are not like a local ext4, and a home as the storage of something else.

use super::mounted::{Store, eventually, pattern, skip};
use cryptfs::door::Caching;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const BOTH: [Caching; 2] = [Caching::Shared, Caching::Exclusive];

/// Mounts of a test beside the home, unmounted in reverse.
struct Mounts(Vec<PathBuf>);

impl Mounts {
    fn add(&mut self, kind: &str, point: &Path, options: &str) -> Result<(), Errno> {
        fs::create_dir_all(point).unwrap();
        let options = CString::new(options).unwrap();
        rustix::mount::mount("coffer-test", point, kind, MountFlags::NODEV, options.as_c_str())?;
        self.0.push(point.to_path_buf());
        Ok(())
    }

    /// Unmounts all, as an operator does.
    fn end(mut self) {
        for point in self.0.drain(..).rev() {
            eventually(|| rustix::mount::unmount(&point, UnmountFlags::empty())).unwrap();
        }
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for point in self.0.iter().rev() {
            let _ = rustix::mount::unmount(point, UnmountFlags::DETACH);
        }
    }
}

#[test]
fn holes_are_found_whatever_block_size_the_storage_tells() {
    let mut offered = true;
    let store = Store::over(|path| {
        let mut mounts = Mounts(Vec::new());
        offered = mounts.add("tmpfs", path, "huge=always,size=64m,mode=755").is_ok();
        // The store takes it away.
        mounts.0.clear();
    });
    let Some(store) = store else { return };
    let Some(mount) = store.mount() else { return };
    let file = File::create_new(mount.at("f")).unwrap();
    file.set_len(32 << 20).unwrap();
    file.write_all_at(&pattern(5000), 16 << 20).unwrap();
    if offered {
        assert!(fs::metadata(store.below("f")).unwrap().blksize() > 4096);
    }
    // What the header takes may be the first 2 MiB.
    let data = seek(&file, SeekFrom::Data(4 << 20)).unwrap();
    assert!(((4 << 20) + 1..=16 << 20).contains(&data), "the hole before {data} is not found");
    let hole = seek(&file, SeekFrom::Hole(16 << 20)).unwrap();
    assert!(((16 << 20) + 5000..32 << 20).contains(&hole), "the hole at {hole} is not found");
    drop(file);
    mount.unmount();
}

#[test]
fn a_storage_that_cannot_reserve_room_takes_all_writes() {
    for caching in BOTH {
        let store = Store::over(|path| {
            let mut mounts = Mounts(Vec::new());
            mounts.add("ramfs", path, "mode=755").unwrap();
            mounts.0.clear();
        });
        let Some(store) = store else { return };
        let Some(mount) = store.mount_as(caching) else { return };
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(mount.at("f"));
        let file = file.unwrap();
        for (at, len) in [(0, 5), (4000, 200), (100_000, 70_001), (3, 20_000)] {
            file.write_all_at(&pattern(len), at).unwrap();
        }
        let told = fallocate(&file, FallocateFlags::empty(), 0, 1 << 20);
        assert_eq!(told, Err(Errno::OPNOTSUPP));
        file.set_len(200_000).unwrap();
        let expected = fs::read(mount.at("f")).unwrap();
        assert_eq!(expected.len(), 200_000);
        assert!(
            expected[3..20_003] == pattern(20_000) && expected[100_000..170_001] == pattern(70_001)
        );
        file.sync_all().unwrap();
        drop(file);
        mount.unmount();
        let mount = store.mount().unwrap();
        assert!(fs::read(mount.at("f")).unwrap() == expected);
        mount.unmount();
    }
}

#[test]
fn equal_inode_numbers_of_two_storages_are_two_files() {
    let store = Store::new();
    let mut mounts = Mounts(Vec::new());
    if !rustix::process::geteuid().is_root() {
        assert!(store.mount().is_none());
        return;
    }
    for name in ["one", "two"] {
        mounts.add("tmpfs", &store.below(name), "size=1m").unwrap();
    }
    for caching in BOTH {
        let mount = store.mount_as(caching).unwrap();
        for name in ["one", "two"] {
            fs::create_dir(mount.at(name).join("d")).unwrap();
            fs::write(mount.at(name).join("d/f"), name).unwrap();
        }
        let below =
            ["one/d/f", "two/d/f"].map(|name| fs::metadata(store.below(name)).unwrap().ino());
        assert_eq!(below[0], below[1], "they are to be equal");
        let shown = ["one/d/f", "two/d/f"].map(|name| fs::metadata(mount.at(name)).unwrap().ino());
        assert_ne!(shown[0], shown[1]);
        for name in ["one", "two"] {
            assert_eq!(fs::read_to_string(mount.at(name).join("d/f")).unwrap(), name);
            assert_eq!(fs::read_dir(mount.at(name)).unwrap().count(), 1);
        }
        let across = fs::rename(mount.at("one/d/f"), mount.at("two/d/g")).unwrap_err();
        assert_eq!(across.raw_os_error(), Some(Errno::XDEV.raw_os_error()));
        for name in ["one", "two"] {
            fs::remove_dir_all(mount.at(name).join("d")).unwrap();
        }
        mount.unmount();
    }
    mounts.end();
}

/// An overlay of three file systems tells inode numbers of the upper half, as some network file systems do.
#[test]
fn inode_numbers_of_the_upper_half_are_served() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    fs::write(mount.at("f"), pattern(10_000)).unwrap();
    mount.unmount();
    let layers = tempfile::tempdir().unwrap();
    let mut mounts = Mounts(Vec::new());
    for name in ["a", "b", "c"] {
        mounts.add("tmpfs", &layers.path().join(name), "size=1m").unwrap();
    }
    let [upper, work, second, third] =
        ["a/up", "a/work", "b", "c"].map(|name| layers.path().join(name));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let stored = store.below("f");
    fs::copy(&stored, third.join(stored.file_name().unwrap())).unwrap();
    let (second, third) = (second.display(), third.display());
    let options = format!(
        "lowerdir={second}:{third},upperdir={},workdir={},xino=on",
        upper.display(),
        work.display()
    );
    if mounts.add("overlay", store.folder.path(), &options) == Err(Errno::NODEV) {
        skip("no overlay file system");
        return;
    }
    assert!(fs::metadata(store.below("f")).unwrap().ino() >= 1 << 63, "it is to be large");
    let mount = store.mount().unwrap();
    assert!(fs::read(mount.at("f")).unwrap() == pattern(10_000));
    let listed = fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(listed.collect::<Vec<_>>(), ["f"]);
    let mut file = OpenOptions::new().append(true).open(mount.at("f")).unwrap();
    std::io::Write::write_all(&mut file, b"more").unwrap();
    assert_eq!(fs::metadata(mount.at("f")).unwrap().len(), 10_004);
    drop(file);
    mount.unmount();
    mounts.end();
}

/// Another home below makes every call of the storage a slow one.
#[test]
fn a_file_keeps_its_size_through_a_rename_on_a_slow_storage() {
    for caching in BOTH {
        let below = Store::new();
        let Some(slow) = below.mount() else { return };
        let store = Store::over(|path| {
            rustix::mount::mount_bind(slow.path(), path).unwrap();
        });
        let store = store.unwrap();
        let mount = store.mount_as(caching).unwrap();
        for round in 1..=50_usize {
            fs::write(mount.at("a"), pattern(round * 100)).unwrap();
            fs::rename(mount.at("a"), mount.at("b")).unwrap();
            assert_eq!(fs::metadata(mount.at("b")).unwrap().len(), round as u64 * 100);
            assert!(fs::read(mount.at("b")).unwrap() == pattern(round * 100));
        }
        mount.unmount();
        drop(store);
        slow.unmount();
    }
}

/// An overlay whose changes are in the home: whiteouts, attributes of its own, and files that are copied up.
#[test]
fn an_overlay_keeps_its_upper_layer_in_a_home() {
    for caching in BOTH {
        let store = Store::new();
        let Some(mut mount) = store.mount_as(caching) else { return };
        let outside = tempfile::tempdir().unwrap();
        let lower = outside.path().join("lower");
        fs::create_dir_all(lower.join("folder")).unwrap();
        for name in ["gone", "changed", "folder/moved"] {
            fs::write(lower.join(name), b"lower").unwrap();
        }
        for name in ["up", "work"] {
            fs::create_dir(mount.at(name)).unwrap();
        }
        for round in 0..2 {
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                lower.display(),
                mount.at("up").display(),
                mount.at("work").display()
            );
            let mut mounts = Mounts(Vec::new());
            let merged = outside.path().join("merged");
            if mounts.add("overlay", &merged, &options) == Err(Errno::NODEV) {
                skip("no overlay file system");
                return;
            }
            if round == 0 {
                fs::remove_file(merged.join("gone")).unwrap();
                fs::write(merged.join("changed"), pattern(9000)).unwrap();
                fs::rename(merged.join("folder/moved"), merged.join("here")).unwrap();
            }
            assert!(!merged.join("gone").exists() && !merged.join("folder/moved").exists());
            assert!(fs::read(merged.join("changed")).unwrap() == pattern(9000));
            assert_eq!(fs::read(merged.join("here")).unwrap(), b"lower");
            mounts.end();
            mount.unmount();
            mount = store.mount_as(caching).unwrap();
        }
        mount.unmount();
    }
}
