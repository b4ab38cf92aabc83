//! Files that are of no use, each by its name and reason, and files that change.

use super::*;
use crate::pki::Authority;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const HOST: &str = "coffer://prod/host/h1";

fn clock() -> u64 {
    1_800_000_000
}

fn load(files: &TlsFiles) -> Result<Identity, FileError> {
    Identity::load(files.clone(), Role::Host, clock)
}

fn refused(files: &TlsFiles) -> String {
    load(files).err().unwrap().to_string()
}

fn authority(folder: &Path, name: &str) -> Authority {
    Authority::new(&folder.join(name))
}

#[test]
fn what_is_wrong_with_a_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path(), "a");
    let good = authority.member(Some(HOST));
    assert_eq!(load(&good).unwrap().now().member().to_string(), HOST);
    let other = authority.member(Some("coffer://prod/controld/c1"));
    assert!(
        refused(&other).contains("coffer://prod/controld/c1 is not a host"),
        "{}",
        refused(&other)
    );
    let nobody = authority.member(None);
    assert!(refused(&nobody).contains("no name of the form"), "{}", refused(&nobody));
    let mixed = TlsFiles { key: other.key.clone(), ..good.clone() };
    assert!(refused(&mixed).contains("is not the key of"), "{}", refused(&mixed));
    let absent = TlsFiles { ca: dir.path().join("none.pem"), ..good.clone() };
    assert!(refused(&absent).contains("none.pem cannot be read"), "{}", refused(&absent));
    let swapped = TlsFiles { ca: good.key.clone(), ..good.clone() };
    assert!(refused(&swapped).contains("no certificate in PEM form"), "{}", refused(&swapped));
    let folder = TlsFiles { certificate: dir.path().to_owned(), ..good.clone() };
    assert!(refused(&folder).contains("is not a regular file"), "{}", refused(&folder));
    fs::set_permissions(&good.key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refused(&good).contains("mode 0640"), "{}", refused(&good));
}

#[test]
fn changed_files_count_when_they_fit_together_and_are_ours() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (authority(dir.path(), "a"), authority(dir.path(), "b"));
    let files = first.member(Some(HOST));
    let identity = load(&files).unwrap();
    let before = identity.now();
    assert!(Arc::ptr_eq(&before, &identity.now()), "nothing is read twice");

    // A key that does not belong to the certificate yet.
    let new = second.member(Some(HOST));
    fs::copy(&new.key, &files.key).unwrap();
    assert!(Arc::ptr_eq(&before, &identity.now()));
    fs::copy(&new.certificate, &files.certificate).unwrap();
    fs::copy(&new.ca, &files.ca).unwrap();
    let after = identity.now();
    assert!(!Arc::ptr_eq(&before, &after));
    assert_eq!(after.member(), before.member());

    let another = second.member(Some("coffer://prod/host/h2"));
    fs::copy(&another.key, &files.key).unwrap();
    fs::copy(&another.certificate, &files.certificate).unwrap();
    assert!(
        Arc::ptr_eq(&after, &identity.now()),
        "another host's certificate makes no other host of us"
    );
}
