//! Names of every length, long ones most of all: where a longer name is stored in another way than a shorter one,
//! files get lost between the two. Here there is no such place.

use super::mounted::Store;
use cryptfs::door::Caching;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;

#[test]
fn a_name_of_every_length_is_made_listed_and_removed() {
    for caching in [Caching::Shared, Caching::Exclusive] {
        let store = Store::new();
        let most = store.longest();
        let Some(mount) = store.mount_as(caching) else { return };
        for len in 1..=most {
            let path = mount.at(&"n".repeat(len));
            fs::write(&path, len.to_string()).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), len.to_string().len() as u64);
        }
        let listed: BTreeSet<OsString> =
            fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let made: BTreeSet<OsString> = (1..=most).map(|len| "n".repeat(len).into()).collect();
        assert_eq!(listed, made);
        for len in 1..=most {
            let path = mount.at(&"n".repeat(len));
            assert_eq!(fs::read_to_string(&path).unwrap(), len.to_string());
            fs::remove_file(&path).unwrap();
            assert!(!path.exists());
        }
        assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
        mount.unmount();
    }
}

#[test]
fn short_and_long_names_replace_each_other() {
    let store = Store::new();
    let Some(mount) = store.mount() else { return };
    let most = store.longest();
    for (from, to) in [(1, 150), (150, 1), (174, 175), (175, 174), (1, most), (most, most - 1)] {
        let (from, to) = (mount.at(&"a".repeat(from)), mount.at(&"b".repeat(to)));
        fs::write(&from, b"moved").unwrap();
        fs::write(&to, b"replaced").unwrap();
        fs::rename(&from, &to).unwrap();
        assert!(!from.exists());
        assert_eq!(fs::read(&to).unwrap(), b"moved");
        fs::hard_link(&to, &from).unwrap();
        assert_eq!(fs::metadata(&from).unwrap().nlink(), 2);
        fs::remove_file(&from).unwrap();
        fs::remove_file(&to).unwrap();
    }
    assert_eq!(fs::read_dir(store.folder.path()).unwrap().count(), 0, "something is left below");
    mount.unmount();
}

#[test]
fn folders_with_long_names_are_moved_and_found_after_a_remount() {
    let store = Store::new();
    let most = store.longest();
    let Some(mut mount) = store.mount() else { return };
    let (one, two) = ("1".repeat(most), "2".repeat(most));
    fs::create_dir(mount.at(&one)).unwrap();
    fs::write(mount.at(&one).join(&two), b"inside").unwrap();
    for (from, to) in [(&one, &two), (&two, &one)] {
        fs::rename(mount.at(from), mount.at(to)).unwrap();
        mount.unmount();
        mount = store.mount().unwrap();
        let listed: Vec<_> =
            fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(listed, [OsString::from(to)]);
        assert_eq!(fs::read(mount.at(to).join(&two)).unwrap(), b"inside");
        let too_long = fs::rename(mount.at(to), mount.at(&"x".repeat(most + 1))).unwrap_err();
        assert_eq!(too_long.kind(), std::io::ErrorKind::InvalidFilename);
        assert!(mount.at(to).is_dir());
    }
    mount.unmount();
}
