//! The text of a seal: what is refused, and that nothing of it passes that was changed. A real TPM is in `tests/tpm`.

use super::seal_file::{self, Parts, Seal};
use super::testing::Fixture;
use super::tpm::{Address, PcrValue, Sealed, TpmFault};
use super::{Keeper, NativeProvider, remove_seal, seal_path, seal_status};
use crate::KmsError;
use crypto::{Arena, Kek, RootKey};
use std::fs;
use std::time::Duration;

fn sealed() -> Sealed {
    let pcrs = [7, 11].map(|pcr| PcrValue { pcr, value: [pcr; 32] });
    Sealed { parent: [1; 32], public: vec![2; 78], private: vec![3; 158], pcrs: pcrs.to_vec() }
}

/// A seal that no TPM has made, and the KEK that one would keep.
fn text(arena: &Arena) -> (String, Kek) {
    let (kek, root) = (Kek::generate(arena).unwrap(), RootKey::generate(arena).unwrap());
    let sealed = sealed();
    let parts = Parts { provider: "native", sealed_at: 5, sealed: &sealed };
    (seal_file::write(&parts, &kek, &root, arena).unwrap(), kek)
}

fn open(text: &str, kek: &Kek, arena: &Arena) -> Result<RootKey, KmsError> {
    Seal::read(text, "native.keys.tpm")?.root(kek, arena)
}

#[test]
fn a_seal_says_what_the_tpm_needs() {
    let f = Fixture::new();
    let (text, kek) = text(&f.arena);
    let seal = Seal::read(&text, "seal").unwrap();
    assert_eq!((&seal.sealed, seal.sealed_at()), (&sealed(), 5));
    seal.root(&kek, &f.arena).unwrap();
    assert_eq!(text.lines().count(), 2);
}

/// The golden seal was made from docs/format.md by a script of its own. No TPM has made its object; the KEK is 00 01 ... 1f.
#[test]
fn a_golden_seal_opens_the_golden_key_file() {
    let f = Fixture::new();
    let text = include_str!("../../tests/golden/keys-v1.keys.tpm");
    let seal = Seal::read(text, "seal").unwrap();
    assert_eq!(seal.sealed.pcrs, [PcrValue { pcr: 7, value: [0x11; 32] }]);
    assert_eq!((seal.sealed.parent, seal.sealed_at()), ([0x33; 32], 1_764_037_900));
    let kek =
        Kek::from_wire(&f.arena, &std::array::from_fn::<u8, 32, _>(|i| i.try_into().unwrap()));
    let root = seal.root(&kek.unwrap(), &f.arena).unwrap();
    let check = root.derive_kek(&f.arena, "0bff9539-6256-42d2-a215-3868128499b8").unwrap();
    assert_eq!(check.check_value().to_string(), "bed65f5ece0dcdbe");
    let key_file = include_str!("../../tests/golden/keys-v1.keys");
    let opened = super::format::unseal_with(key_file, "keys", root, &f.arena).unwrap();
    assert!(opened.is_some_and(|opened| opened.body.keys.len() == 2));
}

#[test]
fn every_flipped_byte_and_every_truncation_is_refused() {
    let f = Fixture::new();
    let (good, kek) = text(&f.arena);
    for at in 0..good.len() {
        let mut bad = good.clone().into_bytes();
        bad[at] ^= 1;
        // A byte that is no text at all is refused when the file is read.
        if let Ok(bad) = String::from_utf8(bad) {
            let error = open(&bad, &kek, &f.arena).unwrap_err();
            let fits = matches!(error, KmsError::SealDamaged { .. } | KmsError::Unsupported { .. });
            assert!(fits, "byte {at}: {error}");
        }
        let error = open(&good[..at], &kek, &f.arena).unwrap_err();
        assert!(matches!(error, KmsError::SealDamaged { .. }), "{at} bytes: {error}");
        assert!(error.to_string().contains("passphrase still opens"), "{error}");
    }
    let other = Kek::generate(&f.arena).unwrap();
    assert!(matches!(open(&good, &other, &f.arena), Err(KmsError::SealDamaged { .. })));
}

#[test]
fn what_no_seal_has_is_refused() {
    let f = Fixture::new();
    let (good, kek) = text(&f.arena);
    for (from, to) in [
        ("\"pcr\":7", "\"pcr\":24"),
        ("\"pcr\":7", "\"pcr\":12"),
        ("\"pcr\":7", "\"pcr\":11"),
        ("\"public\":\"02", "\"public\":\""),
        ("\"version\":1", "\"version\":2"),
        ("\"features\":[]", "\"features\":[\"nv\"]"),
        ("coffer-tpm-seal", "coffer-keys"),
        ("\"sealed_at\"", "\"more\":1,\"sealed_at\""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        open(&bad, &kek, &f.arena).unwrap_err();
    }
    let long = format!("{good}{}", " ".repeat(65 << 10));
    assert!(open(&long, &kek, &f.arena).unwrap_err().to_string().contains("64 KiB"));
}

fn nowhere() -> Keeper {
    let address = Address::Socket("/nonexistent/tpm".into());
    Keeper { address, wait: Duration::from_secs(1) }
}

#[test]
fn without_a_seal_nobody_asks_the_tpm() {
    let f = Fixture::new();
    let open =
        || NativeProvider::open_sealed(&f.path(), &nowhere(), "native", false, || 1, &f.arena);
    assert!(open().unwrap().is_none());
    assert!(seal_status(&f.path(), &nowhere(), &f.arena).unwrap().is_none());
    let error = remove_seal(&f.path()).unwrap_err();
    assert!(matches!(error, KmsError::NotSealed { .. }), "{error}");
    let error = f.open().remove_seal().unwrap_err();
    assert!(matches!(error, KmsError::NotSealed { .. }), "{error}");
}

#[test]
fn without_a_tpm_nothing_is_sealed_and_a_seal_says_what_is_missing() {
    let f = Fixture::new();
    let provider = f.open();
    let pcrs = super::tpm::PcrSet::default();
    let error = provider.seal_to_tpm(&nowhere(), pcrs, &f.arena).unwrap_err();
    assert!(matches!(error, KmsError::Tpm { fault: TpmFault::Missing(_), .. }), "{error}");
    assert!(error.to_string().contains("unix:/nonexistent/tpm"), "{error}");
    assert!(!seal_path(&f.path()).exists());
    drop(provider);

    super::testing::put(&seal_path(&f.path()), text(&f.arena).0);
    let opened =
        NativeProvider::open_sealed(&f.path(), &nowhere(), "native", false, || 1, &f.arena);
    let error = opened.err().unwrap();
    assert!(matches!(error, KmsError::SealClosed { .. }), "{error}");
    let status = seal_status(&f.path(), &nowhere(), &f.arena).unwrap().unwrap();
    assert_eq!((status.sealed_at, status.pcrs), (Some(5), vec![7, 11]));
    assert!(status.fault.unwrap().to_string().contains("the passphrase still opens"));
    f.open();
    remove_seal(&f.path()).unwrap();
    assert!(!seal_path(&f.path()).exists() && f.path().exists());
}

#[test]
fn a_seal_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let f = Fixture::new();
    let path = seal_path(&f.path());
    super::testing::put(&path, text(&f.arena).0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let opened =
        NativeProvider::open_sealed(&f.path(), &nowhere(), "native", false, || 1, &f.arena);
    assert!(matches!(opened.err().unwrap(), KmsError::Config { .. }));
}
