//! What becomes of a key file that was touched, and of one that is not the file it should be.

use super::NativeProvider;
use super::testing::{Fixture, NOW};
use crate::{KeyProvider, KmsError};
use crypto::Passphrase;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn a_wrong_passphrase_is_told_apart_from_damage() {
    let f = Fixture::new();
    let wrong = Passphrase::read(&f.arena, &b"correct horse battery"[..]).unwrap();
    let opened = NativeProvider::open(&f.path(), &wrong, "native", false, || NOW, &f.arena);
    let error = opened.err().unwrap();
    assert!(matches!(error, KmsError::WrongPassphrase { .. }), "{error}");
    assert!(error.to_string().contains("native.keys"), "{error}");
}

#[test]
fn every_flipped_byte_is_refused() {
    let f = Fixture::new();
    f.ready().create_key().unwrap();
    let good = fs::read(f.path()).unwrap();
    let (line, _) = f.text().split_once('\n').map(|(l, m)| (l.to_owned(), m.to_owned())).unwrap();
    let field = |from: &str, to: &str| line.find(from).unwrap()..line.find(to).unwrap();
    let (kdf, version) = (field("\"kdf\"", "\"check\""), field("\"version\"", "\"features\""));
    let provider_is_safe = |error: &KmsError, at: usize| match error {
        KmsError::Damaged { .. } => true,
        // Another salt or cost gives another KEK: nothing tells that from another passphrase.
        KmsError::WrongPassphrase { .. } => kdf.contains(&at),
        KmsError::Unsupported { .. } => version.contains(&at),
        _ => false,
    };
    for mask in [0x01, 0x20, 0x80] {
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= mask;
            f.put(&bad);
            let error = f.error();
            assert!(provider_is_safe(&error, at), "byte {at} ^ {mask:#x}: {error}");
        }
    }
    f.put(&good);
    f.open();
}

#[test]
fn every_truncation_and_any_addition_is_refused() {
    let f = Fixture::new();
    let good = f.text();
    for length in 0..good.len() {
        f.put(&good[..length]);
        let error = f.error();
        assert!(matches!(error, KmsError::Damaged { .. }), "{length} bytes: {error}");
    }
    for added in ["\n", " ", "x", "\0"] {
        f.put(format!("{good}{added}"));
        let error = f.error();
        assert!(matches!(error, KmsError::Damaged { .. }), "added {added:?}: {error}");
    }
    f.put(vec![b' '; 9 << 20]);
    assert!(f.error().to_string().contains("larger than 8 MiB"));
}

#[test]
fn later_versions_and_features_are_unsupported_not_damaged() {
    let f = Fixture::new();
    let good = f.text();
    let later = good.replacen("\"version\":1", "\"version\":2", 1);
    let feature = good.replacen("\"features\":[]", "\"features\":[\"tpm\"]", 1);
    let unknown = good.replacen("{\"format\"", "{\"more\":1,\"format\"", 1);
    let foreign = good.replacen("coffer-keys", "coffer-safe", 1);
    for (text, needle) in [(later, "version is 2"), (feature, "\"tpm\"")] {
        assert_ne!(text, good);
        f.put(text);
        let error = f.error();
        assert!(matches!(error, KmsError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(needle), "{error}");
    }
    for (text, needle) in [(unknown, "more"), (foreign, "coffer-safe")] {
        assert_ne!(text, good);
        f.put(text);
        let error = f.error();
        assert!(matches!(error, KmsError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(needle), "{error}");
    }
}

#[test]
fn a_file_that_others_can_use_is_refused() {
    let f = Fixture::new();
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(f.path(), Permissions::from_mode(mode)).unwrap();
        let error = f.error();
        assert!(matches!(error, KmsError::Config { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("chmod 600") && text.contains(&format!("{mode:04o}")), "{text}");
    }
    fs::set_permissions(f.path(), Permissions::from_mode(0o600)).unwrap();
    f.open();
}

#[test]
fn links_folders_and_pipes_are_refused() {
    let f = Fixture::new();
    let real = f.folder.path().join("real");
    fs::rename(f.path(), &real).unwrap();
    symlink(&real, f.path()).unwrap();
    assert!(f.error().to_string().contains("symbolic link"), "{}", f.error());
    fs::remove_file(f.path()).unwrap();
    fs::create_dir(f.path()).unwrap();
    assert!(f.error().to_string().contains("not a regular file"), "{}", f.error());
    fs::remove_dir(f.path()).unwrap();
    let cwd = rustix::fs::CWD;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(cwd, f.path(), kind, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(f.error().to_string().contains("not a regular file"), "{}", f.error());
}

#[test]
fn a_missing_file_is_an_io_error_of_that_kind() {
    let f = Fixture::new();
    fs::remove_file(f.path()).unwrap();
    match f.error() {
        KmsError::Io { source, path, .. } => {
            assert_eq!((source.kind(), path), (std::io::ErrorKind::NotFound, f.path()));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn costs_beyond_the_bounds_are_refused_before_they_are_paid() {
    let f = Fixture::new();
    let good = f.text();
    for (from, to) in [
        ("\"memory_kib\":32", "\"memory_kib\":1048577"),
        ("\"memory_kib\":32", "\"memory_kib\":4294967295"),
        ("\"passes\":1", "\"passes\":17"),
        ("\"passes\":1", "\"passes\":0"),
        ("\"lanes\":1", "\"lanes\":0"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        f.put(bad);
        let error = f.error();
        assert!(matches!(error, KmsError::Damaged { .. }), "{to}: {error}");
    }
}
