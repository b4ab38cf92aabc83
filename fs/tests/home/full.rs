//! A storage that is full, a tmpfs and an ext4 of a few megabytes: whatever needs room is refused with ENOSPC at the
//! call or at the sync, and nothing that was there is harmed.

use super::data::map_and_sync;
use super::mounted::{Mounted, Store, eventually, pattern, skip};
use cryptfs::door::Caching;
use cryptfs::safe::Names;
use rustix::fs::{FallocateFlags, XattrFlags, fallocate, getxattr, setxattr, statvfs};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

/// Size of the storage.
const ROOM: u64 = 8 << 20;

/// Inodes of the ext4: few, so that they can run out, too.
const INODES: u32 = 128;

/// An ext4 in a file, by a loop device. Blocks of 1 KiB: a folder needs the next one after a few long names.
fn ext4() -> Option<Store> {
    let made = Command::new("mkfs.ext4").arg("-V").output().is_ok();
    if !made || !Path::new("/dev/loop-control").exists() {
        skip("no mkfs.ext4 (e2fsprogs) or no loop devices");
        return None;
    }
    Store::over(|path| {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(ROOM).unwrap();
        let (image, inodes) = (image.path(), INODES.to_string());
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m0", "-b1024", "-N", &inodes])
            .arg(image));
        run(Command::new("mount").args(["-o", "loop,nosuid,nodev"]).arg(image).arg(path));
    })
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Storages and modes, each with a fresh store.
fn stores() -> impl Iterator<Item = (&'static str, Store, Caching)> {
    let modes = [Caching::Shared, Caching::Exclusive];
    let tmpfs = modes.map(|caching| Some(("tmpfs", Store::small(ROOM)?, caching)));
    let ext4 = modes.map(|caching| Some(("ext4", ext4()?, caching)));
    tmpfs.into_iter().chain(ext4).flatten()
}

/// Takes all room that is left, below the mount.
fn fill(store: &Store) {
    let mut filler = File::create(store.below("filler")).unwrap();
    for piece in [65_536, 1024] {
        let error = loop {
            if let Err(error) = filler.write_all(&vec![1; piece]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
    filler.sync_all().unwrap();
}

fn open(mount: &Mounted, name: &str) -> File {
    OpenOptions::new().read(true).write(true).open(mount.at(name)).unwrap()
}

/// The name of 250 bytes that starts so.
fn long(start: &str) -> String {
    let len = if crate::NAMES == Names::Encrypted { 170 } else { 250 };
    format!("{start:n<len$}")
}

/// What is there before the storage is full: a file, one with a hole, and a folder whose block has no room for another
/// long name.
fn prepare(mount: &Mounted) {
    fs::write(mount.at("old"), pattern(300_003)).unwrap();
    setxattr(mount.at("old"), "user.note", b"kept", XattrFlags::empty()).unwrap();
    let sparse = File::create_new(mount.at("sparse")).unwrap();
    sparse.write_all_at(&pattern(10_000), 0).unwrap();
    sparse.set_len(1 << 20).unwrap();
    fs::create_dir(mount.at("d")).unwrap();
    for number in 0..3 {
        fs::write(mount.at("d").join(long(&number.to_string())), b"entry").unwrap();
    }
    fs::write(mount.at(&long("source")), b"source").unwrap();
    for name in ["old", "sparse", "d"] {
        File::open(mount.at(name)).unwrap().sync_all().unwrap();
    }
}

/// What was there is still there. A file that was to grow may have whole sectors of what did not fit.
fn check(mount: &Mounted, when: &str) {
    let old = fs::read(mount.at("old")).unwrap();
    assert!(old.starts_with(&pattern(300_003)), "{when}: old bytes of a file");
    let sparse = fs::read(mount.at("sparse")).unwrap();
    assert_eq!(sparse.len(), 1 << 20, "{when}");
    assert!(sparse.starts_with(&pattern(10_000)), "{when}: bytes before the hole");
    for (number, sector) in sparse[512 * 20..].chunks(512).enumerate() {
        let whole = [0, 0xee].iter().any(|byte| sector.iter().all(|found| found == byte));
        assert!(whole, "{when}: sector {number} behind the data");
    }
    let mut note = [0; 4];
    getxattr(mount.at("old"), "user.note", &mut note).unwrap();
    assert_eq!(&note, b"kept", "{when}");
    for number in 0..3 {
        let entry = mount.at("d").join(long(&number.to_string()));
        assert_eq!(fs::read(entry).unwrap(), b"entry", "{when}");
    }
}

/// Must be refused for want of room.
fn refused<T, E: Into<io::Error>>(result: Result<T, E>, what: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{what}: there is no room for it")).into();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{what}: {error}");
}

/// A small storage may have room left that its blocks round up to: then it is done, else it is not done at all.
fn done_or_refused<T, E: Into<io::Error>>(result: Result<T, E>, there: &Path, what: &str) {
    match result {
        Ok(_) => assert!(fs::symlink_metadata(there).is_ok(), "{what}"),
        Err(error) => {
            assert_eq!(error.into().kind(), ErrorKind::StorageFull, "{what}");
            assert!(fs::symlink_metadata(there).is_err(), "{what}: it is half there");
        }
    }
}

/// Content that needs room, in every way in which it comes.
fn grow(mount: &Mounted) {
    let mut append = OpenOptions::new().append(true).open(mount.at("old")).unwrap();
    refused(append.write_all(&pattern(500_000)).and_then(|()| append.sync_all()), "an append");
    let sparse = open(mount, "sparse");
    let mapped = map_and_sync(&sparse, 1 << 20, |bytes| bytes[1 << 19..].fill(0xee));
    refused(mapped, "a mapped write to a hole");
    let into = sparse.write_all_at(&[0xee; 512 * 200], 512 * 600).and_then(|()| sparse.sync_all());
    refused(into, "a write to a hole");
    let size = sparse.metadata().unwrap().len();
    refused(fallocate(&sparse, FallocateFlags::empty(), 0, ROOM), "fallocate");
    refused(fallocate(&sparse, FallocateFlags::KEEP_SIZE, 0, ROOM), "fallocate of the size");
    assert_eq!(sparse.metadata().unwrap().len(), size, "a refused fallocate changed the size");
    let new = File::create_new(mount.at("new"));
    refused(
        new.and_then(|mut new| new.write_all(&pattern(100_000)).and_then(|()| new.sync_all())),
        "a new file",
    );
    // What has its room can be written.
    let old = open(mount, "old");
    old.write_all_at(&pattern(300_003)[5000..9000], 5000).unwrap();
    old.sync_all().unwrap();
}

/// Names and attributes that need room.
fn make(mount: &Mounted, storage: &str) {
    let big = setxattr(mount.at("old"), "user.note", &pattern(3000), XattrFlags::empty());
    let deep = mount.at("d").join(long("renamed"));
    let moved = fs::rename(mount.at(&long("source")), &deep);
    if storage == "ext4" {
        refused(big, "an attribute that needs a block");
        refused(moved, "a name that needs a block of its folder");
        assert_eq!(fs::read(mount.at(&long("source"))).unwrap(), b"source");
        assert!(!deep.exists());
    } else {
        // tmpfs keeps attributes and names elsewhere.
        moved.unwrap();
        assert_eq!(fs::read(&deep).unwrap(), b"source");
        big.unwrap();
        setxattr(mount.at("old"), "user.note", b"kept", XattrFlags::empty()).unwrap();
    }
    done_or_refused(fs::create_dir(mount.at("folder")), &mount.at("folder"), "a folder");
    let target = "x/".repeat(300);
    done_or_refused(symlink(target, mount.at("link")), &mount.at("link"), "a link");
    let named = mount.at("d").join(long("made"));
    done_or_refused(File::create_new(&named), &named, "a name");
    // A name that needs no room is moved.
    fs::rename(mount.at("old"), mount.at("elsewhere")).unwrap();
    fs::rename(mount.at("elsewhere"), mount.at("old")).unwrap();
}

#[test]
fn nothing_is_harmed_by_what_a_full_storage_refuses() {
    for (storage, store, caching) in stores() {
        let Some(mount) = store.mount_as(caching) else { return };
        let case = format!("{storage}, {caching:?}");
        prepare(&mount);
        fill(&store);
        grow(&mount);
        check(&mount, &case);
        make(&mount, storage);
        check(&mount, &case);
        mount.unmount();

        let mount = store.mount_as(caching).unwrap();
        check(&mount, &format!("{case}, after a remount"));
        fs::remove_file(store.below("filler")).unwrap();
        eventually(|| {
            let new = File::create(mount.at("new"))?;
            new.write_all_at(&pattern(100_000), 0).and_then(|()| new.sync_all())
        })
        .unwrap();
        assert!(fs::read(mount.at("new")).unwrap() == pattern(100_000), "{case}");
        open(&mount, "sparse").write_all_at(&[0xee; 512 * 200], 512 * 600).unwrap();
        check(&mount, &format!("{case}, with room again"));
        mount.unmount();
    }
}

#[test]
fn a_storage_is_filled_to_its_end() {
    for (storage, store, caching) in stores() {
        let Some(mount) = store.mount_as(caching) else { return };
        let piece = pattern(70_001);
        let mut whole = 0;
        let error = loop {
            let path = mount.at(&format!("f{whole}"));
            let written = File::create_new(path)
                .and_then(|mut file| file.write_all(&piece).and_then(|()| file.sync_all()));
            match written {
                Ok(()) => whole += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{storage}, {caching:?}");
        let space = statvfs(store.folder.path()).unwrap();
        let left = space.f_bavail * space.f_frsize;
        assert!(left < ROOM / 20, "{storage}, {caching:?}: {left} of {ROOM} bytes are left");
        mount.unmount();
        let mount = store.mount_as(caching).unwrap();
        for number in 0..whole {
            assert!(fs::read(mount.at(&format!("f{number}"))).unwrap() == piece, "f{number}");
        }
        mount.unmount();
    }
}

#[test]
fn a_storage_without_inodes_makes_no_half_files() {
    for caching in [Caching::Shared, Caching::Exclusive] {
        let Some(store) = ext4() else { return };
        let Some(mount) = store.mount_as(caching) else { return };
        let mut made = 0;
        let error = loop {
            let name = mount.at(&format!("f{made}"));
            match File::create_new(&name).and_then(|mut file| file.write_all(b"content")) {
                Ok(()) => made += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(made > 50 && !mount.at(&format!("f{made}")).exists());
        refused(fs::create_dir(mount.at("d")), "a folder");
        refused(symlink("f0", mount.at("link")), "a link");
        // One folder came with the storage, and has a name that is not encrypted.
        let lost_and_found = usize::from(!store.is_encrypted());
        assert_eq!(fs::read_dir(mount.path()).unwrap().count(), made + lost_and_found);
        fs::remove_file(mount.at("f7")).unwrap();
        eventually(|| fs::create_dir(mount.at("d"))).unwrap();
        mount.unmount();
        let mount = store.mount_as(caching).unwrap();
        for number in (0..made).filter(|number| *number != 7) {
            assert_eq!(fs::read(mount.at(&format!("f{number}"))).unwrap(), b"content");
        }
        mount.unmount();
    }
}
