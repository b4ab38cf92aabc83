use super::*;
use std::os::unix::fs::PermissionsExt;

const LIMIT: usize = 100;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn puts_and_replaces_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.safe");
    put(&path, b"one", Put::New).unwrap();
    assert_eq!(read(&path, LIMIT).unwrap(), b"one");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let error = put(&path, b"two", Put::New).unwrap_err();
    assert!(matches!(error, SealError::Exists { .. }), "{error}");
    assert_eq!(read(&path, LIMIT).unwrap(), b"one");
    put(&path, b"three", Put::Over).unwrap();
    assert_eq!(read(&path, LIMIT).unwrap(), b"three");
    assert_eq!(names(folder.path()), ["vm.safe"]);
}

#[test]
fn a_full_disk_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.safe");
    put(&path, b"old", Put::New).unwrap();
    let error = put_by(
        &path,
        Put::Over,
        |mut file| {
            file.write_all(b"ne")?;
            Err(io::Error::from_raw_os_error(28))
        },
        |folder| sync_folder(folder),
    )
    .unwrap_err();
    let SealError::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert_eq!(read(&path, LIMIT).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["vm.safe"]);
}

#[test]
fn a_real_full_disk_is_reported_as_such() {
    // /dev/full takes the place of the file's data: its write fails as on a full file system.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.safe");
    let full = |_: &File| File::options().write(true).open("/dev/full")?.write_all(b"x");
    let error = put_by(&path, Put::New, full, |folder| sync_folder(folder)).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_crash_in_the_middle_leaves_a_file_that_is_cleaned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.safe");
    put(&path, b"old", Put::New).unwrap();
    let opened = open_folder(folder.path()).unwrap();
    let (temporary, mut file) = Temporary::create(&opened, OsStr::new("vm.safe")).unwrap();
    file.write_all(b"half").unwrap();
    // A process that dies runs no destructor.
    std::mem::forget(temporary);
    std::fs::write(folder.path().join(".lock"), b"").unwrap();
    assert_eq!(names(folder.path()).len(), 3);
    assert_eq!(read(&path, LIMIT).unwrap(), b"old");
    assert_eq!(clean(folder.path()).unwrap(), 1);
    assert_eq!(names(folder.path()), [".lock", "vm.safe"]);
    assert_eq!(clean(folder.path()).unwrap(), 0);
}

#[test]
fn reading_is_bounded_and_takes_regular_files_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let error = read(&path, LIMIT).unwrap_err();
    assert!(matches!(error, SealError::Missing { .. }), "{error}");
    std::fs::write(&path, [b'x'; LIMIT]).unwrap();
    assert_eq!(read(&path, LIMIT).unwrap().len(), LIMIT);
    let error = read(&path, LIMIT - 1).unwrap_err();
    assert!(matches!(error, SealError::TooLarge { .. }), "{error}");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(read(&link, LIMIT), Err(SealError::Io { .. })));
    assert!(matches!(read(folder.path(), LIMIT), Err(SealError::Io { .. })));
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert!(matches!(read(&pipe, LIMIT), Err(SealError::Io { .. })));
}

#[test]
fn a_folder_that_is_gone_is_an_error_with_its_name() {
    let error = put(Path::new("/nonexistent/vm.safe"), b"x", Put::New).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/vm.safe"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_flushed_is_an_error_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.safe");
    for (how, content) in [(Put::New, b"one"), (Put::Over, b"two")] {
        let failing = |_: &OwnedFd| Err(io::Error::from_raw_os_error(5));
        let error = put_by(&path, how, |mut file| file.write_all(content), failing).unwrap_err();
        assert!(error.is_in_place(), "{error}");
        assert!(error.to_string().contains("in place"), "{error}");
        assert_eq!(read(&path, LIMIT).unwrap(), content);
        assert_eq!(names(folder.path()), ["vm.safe"]);
    }
}

/// Whoever can write to the storage could put a link where a folder is, and lead changes out of it.
#[test]
fn a_link_in_place_of_the_folder_leads_nowhere() {
    let scratch = tempfile::tempdir().unwrap();
    let (real, link) = (scratch.path().join("real"), scratch.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let remains = ".vm.safe.0011.coffer-tmp";
    std::fs::write(real.join(remains), b"not ours").unwrap();
    for how in [Put::New, Put::Over] {
        let error = put(&link.join("vm.safe"), b"x", how).unwrap_err();
        assert!(matches!(error, SealError::Io { .. }), "{error}");
    }
    assert!(matches!(read(&link.join(remains), LIMIT), Err(SealError::Io { .. })));
    assert!(
        clean(&link).is_err() && list(&link, 9).is_err() && remove(&link.join(remains)).is_err()
    );
    assert_eq!(names(&real), [remains]);
    assert_eq!(list(&real, 9).unwrap(), [remains]);
    assert_eq!(list(&real, 0).unwrap().len(), 0);
    remove(&real.join(remains)).unwrap();
    remove(&real.join(remains)).unwrap();
    assert_eq!(list(&scratch.path().join("gone"), 9).unwrap().len(), 0);
}
