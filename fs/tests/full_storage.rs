//! A real file system that is full: sealed files stay whole, disks say so and keep what they have.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test does")]

use cryptfs::backing::FileBacking;
use cryptfs::safe::{Policy, Safe};
use cryptfs::seal::{SealError, Sealed, Wrap, create, replace};
use cryptfs::volume::{Fault, Geometry, Volume};
use crypto::{Arena, Dek, HomeKey, Kek, KeyId, Unit};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use uuid::Uuid;

const SIZE: u64 = 1 << 20;

/// A tmpfs of 1 MiB, gone with the value.
struct Small(tempfile::TempDir);

impl Small {
    /// `None`, said aloud, where this user may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        match mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), Some(c"size=1m")) {
            Ok(()) => Some(Self(folder)),
            Err(error) => {
                let _ = std::io::Write::write_fmt(
                    &mut std::io::stderr(),
                    format_args!("SKIPPED: cannot mount a tmpfs here: {error}\n"),
                );
                None
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Takes all space that is left.
    fn fill(&self) {
        let mut filler = File::create(self.path("filler")).unwrap();
        let full = loop {
            if let Err(error) = filler.write_all(&[1; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_safe_stays_whole_when_there_is_no_room_for_the_next() {
    let Some(small) = Small::mount() else { return };
    let arena = Arena::new(16 * 1024).unwrap();
    let (kek, id) = (Kek::generate(&arena).unwrap(), "native/k".parse::<KeyId>().unwrap());
    let key = HomeKey::generate(&arena).unwrap();
    let wraps = vec![Wrap::make(&kek, &id, &key).unwrap()];
    let name = "web01".parse().unwrap();
    let mut safe = Safe::new(Uuid::from_u128(1), name, Policy::default(), wraps);
    let path = small.path("vm.safe");
    create(&path, &mut safe, &key, &arena).unwrap();
    small.fill();
    for error in [
        replace(&path, &mut safe, &key, &arena).unwrap_err(),
        create(&small.path("other.safe"), &mut safe.clone(), &key, &arena).unwrap_err(),
    ] {
        let SealError::Io { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.kind(), ErrorKind::StorageFull, "{error}");
    }
    let (read, _) = Sealed::<Safe>::read(&path).unwrap().open(&kek, &id, &arena).unwrap();
    assert_eq!((&read, read.sequence), (&safe, 1));
    let names = fs::read_dir(small.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["filler", "vm.safe"]);
    fs::remove_file(small.path("filler")).unwrap();
    replace(&path, &mut safe, &key, &arena).unwrap();
    assert_eq!(safe.sequence, 2);
}

#[test]
fn a_sparse_disk_that_outgrows_its_storage_says_so() {
    let Some(small) = Small::mount() else { return };
    let arena = Arena::new(16 * 1024).unwrap();
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(small.path("root.data"));
    let file = file.unwrap();
    file.set_len(SIZE).unwrap();
    let geometry = Geometry { size: SIZE, unit: Unit::B4096, read_only: false };
    let key = Dek::generate(&arena).unwrap();
    let volume = Volume::open(Box::new(FileBacking::from(file)), key, geometry).unwrap();
    volume.write(0, &mut vec![7; 65_536]).unwrap();
    small.fill();
    for error in [
        volume.write(524_288, &mut vec![8; 65_536]).unwrap_err(),
        volume.write(524_288 + 5, &mut [8]).unwrap_err(),
        volume.write_zeroes(524_288, 65_536, false).unwrap_err(),
    ] {
        assert_eq!(error.fault(), Fault::NoSpace, "{error}");
    }
    let mut buf = vec![0; 131_072];
    volume.read(0, &mut buf).unwrap();
    assert!(buf[..65_536] == [7; 65_536] && buf[65_536..] == [0; 65_536]);
    // What was stored can be overwritten, and giving some of it back makes room for other parts.
    volume.write(1, &mut [9; 1000]).unwrap();
    volume.discard(32_768, 32_768).unwrap();
    volume.write(524_288, &mut vec![8; 16_384]).unwrap();
    volume.read(524_288, &mut buf[..16_384]).unwrap();
    assert!(buf[..16_384] == [8; 16_384]);
}
