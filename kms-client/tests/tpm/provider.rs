//! A key file with a TPM seal: opened without its passphrase here, and with it everywhere.

use crate::software_tpm::{SoftwareTpm, WAIT};
use crypto::{Arena, Argon2Params, Passphrase};
use kms_client::native::tpm::{PcrSet, TpmFault};
use kms_client::native::{Keeper, NativeProvider, OpenedBy, remove_seal, seal_path, seal_status};
use kms_client::{KeyProvider, KmsError};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const WORDS: &[u8] = b"correct horse battery staple";

/// A host with a key file.
struct Machine {
    folder: TempDir,
    arena: Arena,
}

impl Machine {
    fn new() -> Self {
        let machine =
            Self { folder: TempDir::new().unwrap(), arena: Arena::new(64 << 10).unwrap() };
        let params = Argon2Params { memory_kib: 32, passes: 1, lanes: 1, salt: [7; 16] };
        NativeProvider::init(&machine.path(), &machine.words(), "native", params, &machine.arena)
            .unwrap();
        machine
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("native.keys")
    }

    fn words(&self) -> Passphrase {
        Passphrase::read(&self.arena, WORDS).unwrap()
    }

    fn by_passphrase(&self) -> NativeProvider {
        let words = self.words();
        patiently(|| NativeProvider::open(&self.path(), &words, "native", true, || 9, &self.arena))
            .unwrap()
    }

    fn by_tpm(&self, keeper: &Keeper) -> Result<Option<NativeProvider>, KmsError> {
        patiently(|| {
            NativeProvider::open_sealed(&self.path(), keeper, "native", true, || 9, &self.arena)
        })
    }

    #[track_caller]
    fn refused(&self, keeper: &Keeper) -> KmsError {
        match self.by_tpm(keeper) {
            Ok(_) => panic!("the key file was opened by its seal"),
            Err(error) => error,
        }
    }

    fn names(&self) -> Vec<String> {
        names(self.folder.path())
    }
}

/// Another test that starts a program holds our lock as well, for the moment between its fork and exec.
fn patiently<T>(mut open: impl FnMut() -> Result<T, KmsError>) -> Result<T, KmsError> {
    let end = Instant::now() + WAIT;
    loop {
        match open() {
            Err(KmsError::InUse { .. }) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_seal_opens_the_key_file_and_leaves_it_and_its_backups_as_they_are() {
    let Some(mut tpm) = SoftwareTpm::start() else { return };
    let machine = Machine::new();
    let provider = machine.by_passphrase();
    assert_eq!(provider.opened_by(), OpenedBy::Passphrase);
    let key = provider.create_key().unwrap();
    let check = provider.fetch(&key, &machine.arena).unwrap().check_value();
    let before = fs::read_to_string(machine.path()).unwrap();
    provider.raise("something".to_owned());
    provider.seal_to_tpm(&tpm.keeper(), PcrSet::new(&[7]).unwrap(), &machine.arena).unwrap();
    assert!(provider.status().alarms.is_empty(), "a new seal answers them");
    assert_eq!(provider.backup(), before);
    assert_eq!(fs::read_to_string(machine.path()).unwrap(), before);
    drop(provider);

    tpm.reboot();
    let opened = machine.by_tpm(&tpm.keeper()).unwrap().unwrap();
    assert_eq!(opened.opened_by(), OpenedBy::Tpm);
    assert_eq!(opened.fetch(&key, &machine.arena).unwrap().check_value(), check);
    // It is the same provider in everything: keys are made, and it can be sealed again, otherwise.
    opened.create_key().unwrap();
    opened.seal_to_tpm(&tpm.keeper(), PcrSet::default(), &machine.arena).unwrap();
    let status = seal_status(&machine.path(), &tpm.keeper(), &machine.arena).unwrap().unwrap();
    assert_eq!((status.sealed_at, status.pcrs), (Some(9), vec![]));
    assert!(status.fault.is_none(), "{:?}", status.fault);
    drop(opened);
    machine.by_passphrase();
    assert_eq!(machine.names(), ["native.keys", "native.keys.lock", "native.keys.tpm"]);
}

#[test]
fn what_keeps_the_tpm_from_it_leaves_the_passphrase() {
    let (Some(tpm), Some(other)) = (SoftwareTpm::start(), SoftwareTpm::start()) else { return };
    let machine = Machine::new();
    let pcrs = PcrSet::new(&[16]).unwrap();
    machine.by_passphrase().seal_to_tpm(&tpm.keeper(), pcrs, &machine.arena).unwrap();
    let error = machine.refused(&other.keeper());
    assert!(matches!(error, KmsError::SealClosed { fault: TpmFault::OtherTpm, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("another TPM") && text.contains("passphrase still opens"), "{text}");

    tpm.extend(16);
    let text = machine.refused(&tpm.keeper()).to_string();
    assert!(text.contains("PCR 16 is not what it was"), "{text}");
    assert!(text.contains("coffer key tpm seal --pcrs"), "{text}");
    let status = seal_status(&machine.path(), &tpm.keeper(), &machine.arena).unwrap().unwrap();
    assert_eq!(status.fault.unwrap().to_string(), text);
    let provider = machine.by_passphrase();
    provider.seal_to_tpm(&tpm.keeper(), pcrs, &machine.arena).unwrap();
    drop(provider);
    machine.by_tpm(&tpm.keeper()).unwrap().unwrap();
}

#[test]
fn an_edited_seal_is_refused_whatever_was_edited() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    let machine = Machine::new();
    let provider = machine.by_passphrase();
    provider.seal_to_tpm(&tpm.keeper(), PcrSet::new(&[7]).unwrap(), &machine.arena).unwrap();
    drop(provider);
    let path = seal_path(&machine.path());
    let good = fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("\"sealed_at\":9", "\"sealed_at\":8"),
        ("\"provider\":\"native\"", "\"provider\":\"nativ3\""),
        ("\"check\":\"", "\"check\":\"0000000000000000\",\"check\":\""),
        ("\"pcr\":7", "\"pcr\":8"),
        ("\"mac\":\"", "\"mac\":\"0"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        fs::write(&path, &bad).unwrap();
        let text = machine.refused(&tpm.keeper()).to_string();
        assert!(text.contains("native.keys.tpm") && text.contains("passphrase"), "{text}");
    }
    for length in [0, 100, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        let error = machine.refused(&tpm.keeper());
        assert!(matches!(error, KmsError::SealDamaged { .. }), "{error}");
    }
    fs::write(&path, &good).unwrap();
    machine.by_tpm(&tpm.keeper()).unwrap().unwrap();
}

#[test]
fn a_seal_of_another_key_file_is_told_and_removed_without_harm() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    let (machine, other) = (Machine::new(), Machine::new());
    other.by_passphrase().seal_to_tpm(&tpm.keeper(), PcrSet::default(), &other.arena).unwrap();
    fs::copy(seal_path(&other.path()), seal_path(&machine.path())).unwrap();
    let error = machine.refused(&tpm.keeper());
    assert!(matches!(error, KmsError::SealOfAnother { .. }), "{error}");
    let provider = machine.by_passphrase();
    provider.remove_seal().unwrap();
    assert!(matches!(provider.remove_seal().unwrap_err(), KmsError::NotSealed { .. }));
    drop(provider);
    assert!(machine.by_tpm(&tpm.keeper()).unwrap().is_none());
    machine.by_passphrase();
    patiently(|| remove_seal(&other.path())).unwrap();
    other.by_passphrase();
}

#[test]
fn a_seal_that_fails_leaves_the_older_one() {
    let Some(mut tpm) = SoftwareTpm::start() else { return };
    let machine = Machine::new();
    let provider = machine.by_passphrase();
    provider.seal_to_tpm(&tpm.keeper(), PcrSet::default(), &machine.arena).unwrap();
    let good = fs::read(seal_path(&machine.path())).unwrap();
    tpm.down();
    let error = provider.seal_to_tpm(&tpm.keeper(), PcrSet::default(), &machine.arena).unwrap_err();
    assert!(matches!(error, KmsError::Tpm { fault: TpmFault::Missing(_), .. }), "{error}");
    assert_eq!(fs::read(seal_path(&machine.path())).unwrap(), good);
    drop(provider);
    tpm.reboot();
    machine.by_tpm(&tpm.keeper()).unwrap().unwrap();
}
