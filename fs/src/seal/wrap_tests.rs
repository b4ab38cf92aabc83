//! Wraps of a transit engine in sealed files.

use super::*;
use crate::descriptor::Descriptor;
use crate::safe::Safe;
use crate::seal::{Body, SealError, Sealed, create, replace};
use crate::testing::{TestKek, arena, descriptor, safe};
use crypto::{Arena, Dek, HomeKey};
use std::fs;
use std::path::Path;

/// A blob as an engine gives it, with anything inside: only the engine can tell.
fn transit(len: usize) -> Wrapped {
    let code = "A".repeat(OpaqueKey::base64_len(len + GCM_BYTES) - 1);
    Wrapped { alg: WrapAlg::Transit, blob: format!("vault:v12:{code}=").into_bytes() }
}

fn wrap<K: DataKey>(key: &K, arena: &Arena) -> Wrap {
    let opaque = OpaqueKey::of(key, arena).unwrap();
    Wrap::made_elsewhere(&"bao/k1".parse().unwrap(), transit(K::LEN), &opaque).unwrap()
}

/// A safe that a transit engine and a KEK of the host open.
fn written(path: &Path, arena: &Arena) -> (Safe, HomeKey, TestKek) {
    let kek = TestKek::new(arena, "native/k1");
    let (mut body, key) = safe(arena, &[&kek]);
    body.wraps.push(wrap(&key, arena));
    create(path, &mut body, &key, arena).unwrap();
    (body, key, kek)
}

#[test]
fn a_safe_keeps_the_text_of_the_engine_and_names_the_feature() {
    let (arena, folder) = (arena(), tempfile::tempdir().unwrap());
    let path = folder.path().join("vm.safe");
    let (mut body, key, kek) = written(&path, &arena);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(r#""features":["transit"]"#), "{text}");
    assert!(text.contains(r#""alg":"transit-aes256-gcm96""#), "{text}");
    assert!(text.contains(r#""blob":"vault:v12:AAAA"#), "{text}");
    let sealed = Sealed::<Safe>::read(&path).unwrap();
    assert_eq!(sealed.wrap(&"bao/k1".parse().unwrap()).unwrap().wrapped(), transit(32));
    sealed.open(&kek.kek, &kek.id, &arena).unwrap();
    // Without such a wrap the file is as it always was, for the programs that know no features.
    body.wraps.truncate(1);
    replace(&path, &mut body, &key, &arena).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains(r#""features":[]"#));
}

#[test]
fn what_the_engine_opens_must_be_the_key_that_went_in() {
    let (arena, folder) = (arena(), tempfile::tempdir().unwrap());
    let path = folder.path().join("vm.safe");
    let (body, key, _) = written(&path, &arena);
    let id = "bao/k1".parse().unwrap();
    let sealed = Sealed::<Safe>::read(&path).unwrap();
    let right = || OpaqueKey::of(&key, &arena).unwrap();
    let (opened, _) = sealed.open_unwrapped(right(), &id, &arena).unwrap();
    assert_eq!(opened, body);
    for other in [32, 64] {
        let other = OpaqueKey::generate(other, &arena).unwrap();
        let error = sealed.open_unwrapped(other, &id, &arena).unwrap_err();
        assert!(matches!(error, SealError::WrongKey { .. }), "{error}");
    }
    // The right key, but an edited body.
    let edited = fs::read_to_string(&path).unwrap().replacen("web01", "web02", 1);
    let sealed = Sealed::<Safe>::parse(&path, edited.as_bytes()).unwrap();
    let error = sealed.open_unwrapped(right(), &id, &arena).unwrap_err();
    assert!(matches!(error, SealError::MacMismatch { .. }), "{error}");
    let stranger = "bao/k2".parse().unwrap();
    let error = sealed.open_unwrapped(right(), &stranger, &arena).unwrap_err();
    assert!(matches!(error, SealError::NoWrap { .. }), "{error}");
}

#[test]
fn a_file_that_does_not_name_the_feature_is_damaged() {
    let (arena, folder) = (arena(), tempfile::tempdir().unwrap());
    let path = folder.path().join("vm.safe");
    written(&path, &arena);
    let edited = fs::read_to_string(&path).unwrap().replacen(r#"["transit"]"#, "[]", 1);
    let error = Sealed::<Safe>::parse(&path, edited.as_bytes()).unwrap_err();
    assert!(matches!(error, SealError::Damaged { what: Flaw::Features, .. }), "{error}");
}

#[test]
fn other_blobs_are_damaged() {
    let (arena, folder) = (arena(), tempfile::tempdir().unwrap());
    let path = folder.path().join("root.disk");
    let kek = TestKek::new(&arena, "native/k1");
    let (mut body, key) = descriptor(&arena, &kek, 1 << 20);
    body.wraps = vec![wrap(&key, &arena)];
    create(&path, &mut body, &key, &arena).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(Sealed::<Descriptor>::parse(&path, text.as_bytes()).is_ok());
    for (from, to) in [
        ("vault:v12:", "vault:v:"),
        ("vault:v12:", "vault:v0:"),
        ("vault:v12:", "vault:v12345678901:"),
        ("vault:v12:", "vault:12:"),
        ("vault:v12:", "vault:v12"),
        ("vault:v12:A", "vault:v12:-"),
        ("vault:v12:A", "vault:v12:"),
        ("vault:v12:A", "vault:v12:AA"),
        ("transit-aes256-gcm96", "transit-rsa-2048"),
    ] {
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text);
        let error = Sealed::<Descriptor>::parse(&path, edited.as_bytes()).unwrap_err();
        assert!(matches!(error, SealError::Damaged { .. }), "{from} {to}: {error}");
    }
}

#[test]
fn each_file_is_bound_to_what_it_is_of() {
    let arena = arena();
    let kek = TestKek::new(&arena, "native/k1");
    let (safe, _) = safe(&arena, &[&kek]);
    let (disk, _): (_, Dek) = descriptor(&arena, &kek, 1 << 20);
    assert_eq!(safe.bound(), "coffer v1 home 00000000-0000-0000-0000-000000000007");
    let vm = "00000000-0000-0000-0000-000000000007";
    assert_eq!(disk.bound(), format!("coffer v1 disk {vm} 00000000-0000-0000-0000-000000000008"));
}
