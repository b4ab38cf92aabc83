//! Keys go in and come out again, or not.

use crate::software_tpm::SoftwareTpm;
use crypto::{Arena, CheckValue, Kek};
use kms_client::native::tpm::{Address, PcrSet, Sealed, TpmFault};
use rustix::process::{Signal, kill_process};
use std::time::{Duration, Instant};

fn arena() -> Arena {
    Arena::new(64 << 10).unwrap()
}

fn seal(tpm: &SoftwareTpm, pcrs: &[u8]) -> Result<(Sealed, CheckValue), TpmFault> {
    let arena = arena();
    let kek = Kek::generate(&arena).unwrap();
    let keeper = tpm.keeper();
    let sealed =
        keeper.address.open(keeper.wait)?.seal(&arena, &kek, PcrSet::new(pcrs).unwrap())?;
    Ok((sealed, kek.check_value()))
}

fn unseal(tpm: &SoftwareTpm, sealed: &Sealed) -> Result<CheckValue, TpmFault> {
    let keeper = tpm.keeper();
    Ok(keeper.address.open(keeper.wait)?.unseal(&arena(), sealed)?.check_value())
}

#[test]
fn a_key_comes_back_as_it_was_also_after_a_reboot() {
    let Some(mut tpm) = SoftwareTpm::start() else { return };
    let all: Vec<u8> = (0..24).collect();
    for pcrs in [&[][..], &[7], &[0, 7, 23], &all] {
        let (sealed, check) = seal(&tpm, pcrs).unwrap();
        assert_eq!(sealed.pcrs.iter().map(|value| value.pcr).collect::<Vec<_>>(), pcrs);
        // More often than it has room for: nothing is left behind.
        for _ in 0..5 {
            assert_eq!(unseal(&tpm, &sealed).unwrap(), check);
        }
        tpm.reboot();
        assert_eq!(unseal(&tpm, &sealed).unwrap(), check);
    }
}

#[test]
fn a_changed_pcr_keeps_the_key_inside() {
    let Some(mut tpm) = SoftwareTpm::start() else { return };
    let (sealed, check) = seal(&tpm, &[7, 11]).unwrap();
    tpm.extend(12);
    assert_eq!(unseal(&tpm, &sealed).unwrap(), check, "another PCR does not matter");
    tpm.extend(11);
    let error = unseal(&tpm, &sealed).unwrap_err();
    assert!(matches!(&error, TpmFault::PcrsChanged(pcrs) if *pcrs == [11]), "{error}");
    // What the file says of the PCRs does not matter to the TPM: the policy is in the object.
    let mut edited = sealed.clone();
    edited.pcrs.clear();
    let error = unseal(&tpm, &edited).unwrap_err();
    assert!(matches!(error, TpmFault::Damaged), "{error}");
    let (again, check_again) = seal(&tpm, &[7, 11]).unwrap();
    assert_eq!(unseal(&tpm, &again).unwrap(), check_again);
    tpm.reboot();
    assert_eq!(unseal(&tpm, &sealed).unwrap(), check, "started as before");
}

#[test]
fn another_tpm_does_not_open_it_nor_does_the_same_once_cleared() {
    let (Some(ours), Some(other)) = (SoftwareTpm::start(), SoftwareTpm::start()) else { return };
    let (sealed, check) = seal(&ours, &[]).unwrap();
    let error = unseal(&other, &sealed).unwrap_err();
    assert!(matches!(error, TpmFault::OtherTpm), "{error}");
    // Claiming to be of the other one does not help.
    let mut claimed = sealed.clone();
    claimed.parent = seal(&other, &[]).unwrap().0.parent;
    let error = unseal(&other, &claimed).unwrap_err();
    assert!(matches!(error, TpmFault::Damaged), "{error}");
    assert_eq!(unseal(&ours, &sealed).unwrap(), check);
    ours.clear();
    let error = unseal(&ours, &sealed).unwrap_err();
    assert!(matches!(error, TpmFault::OtherTpm), "{error}");
}

#[test]
fn a_damaged_object_is_not_taken_back() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    let (sealed, check) = seal(&tpm, &[]).unwrap();
    for at in (0..sealed.private.len()).step_by(17) {
        let mut bad = sealed.clone();
        bad.private[at] ^= 1;
        let error = unseal(&tpm, &bad).unwrap_err();
        assert!(matches!(error, TpmFault::Damaged), "private {at}: {error}");
    }
    for at in (0..sealed.public.len()).step_by(11) {
        let mut bad = sealed.clone();
        bad.public[at] ^= 1;
        let error = unseal(&tpm, &bad).unwrap_err();
        assert!(matches!(error, TpmFault::Damaged), "public {at}: {error}");
    }
    for length in [1, 40, sealed.private.len() - 1] {
        let mut bad = sealed.clone();
        bad.private.truncate(length);
        assert!(matches!(unseal(&tpm, &bad).unwrap_err(), TpmFault::Damaged));
    }
    assert_eq!(unseal(&tpm, &sealed).unwrap(), check);
}

#[test]
fn lockout_by_other_programs_does_not_touch_us() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    let (sealed, check) = seal(&tpm, &[7]).unwrap();
    tpm.lock_out();
    assert_eq!(unseal(&tpm, &sealed).unwrap(), check);
    seal(&tpm, &[]).unwrap();
}

#[test]
fn a_password_of_the_owner_is_told() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    let (sealed, _) = seal(&tpm, &[]).unwrap();
    tpm.protect_owner();
    for error in [unseal(&tpm, &sealed).unwrap_err(), seal(&tpm, &[]).unwrap_err()] {
        assert!(matches!(error, TpmFault::OwnerPassword), "{error}");
        assert!(error.to_string().contains("tpm2_changeauth"), "{error}");
    }
}

#[test]
fn a_silent_tpm_is_not_waited_for_for_ever_and_none_is_told_at_once() {
    let Some(mut tpm) = SoftwareTpm::start() else { return };
    let (sealed, check) = seal(&tpm, &[]).unwrap();
    kill_process(tpm.pid(), Signal::STOP).unwrap();
    let address = Address::Socket(tpm.socket());
    let start = Instant::now();
    let mut opened = address.open(Duration::from_secs(1)).unwrap();
    let error = opened.unseal(&arena(), &sealed).unwrap_err();
    assert!(matches!(error, TpmFault::Silent(1)), "{error}");
    assert!(start.elapsed() >= Duration::from_secs(1));
    drop(opened);
    kill_process(tpm.pid(), Signal::CONT).unwrap();
    assert_eq!(unseal(&tpm, &sealed).unwrap(), check);
    tpm.down();
    let error = unseal(&tpm, &sealed).unwrap_err();
    assert!(matches!(error, TpmFault::Missing(_)), "{error}");
    let device = Address::Device("/dev/there-is-no-tpm".into()).open(Duration::from_secs(1));
    assert!(matches!(device.err().unwrap(), TpmFault::Missing(_)));
}
