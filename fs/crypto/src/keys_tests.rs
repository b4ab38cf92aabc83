//! Tests of the key types: derivations against another implementation, refusals, wiping, silence.

use super::sealed::{Bytes, FromSlot};
use super::{DataKey, Dek, HomeKey, Kek, RootKey, equal_in_constant_time};
use crate::support::{arena, counting, hex, key};
use crate::{CheckValue, KeyError};

impl Kek {
    /// A KEK of known bytes, for tests of this crate alone.
    pub(crate) fn from_test_slot(slot: crate::arena::Slot) -> Self {
        assert_eq!(slot.bytes().len(), Self::LEN);
        Self { slot }
    }
}

/// Values of Python's `cryptography` (HKDF) for the key 00 01 .. 1f.
#[test]
fn derivations_agree_with_another_implementation() {
    let arena = arena();
    let mut slot = arena.slot(32).unwrap();
    slot.bytes_mut().copy_from_slice(&counting::<32>());
    assert_eq!(Kek::from_test_slot(slot).check_value().to_string(), "92308a69c8fd2f68");

    let home: HomeKey = key(&arena, &counting::<32>());
    let nonce = std::array::from_fn(|index| u8::try_from(32 + index).unwrap());
    let file = home.file_key(&arena, &nonce).unwrap();
    let expected = "c75749dc981112378eb5f87e086caf52121d52bdb4b2eb67ab388f83c913e040e73c848108608d843a0f26bcdc75c1d90cfa3b0281a2c72e20f31237994a5037";
    assert_eq!(file.bytes(), hex(expected));

    let root: RootKey = key(&arena, &counting::<32>());
    let kek = root.derive_kek(&arena, "0001").unwrap();
    assert_eq!(
        kek.bytes(),
        hex("7ef634f7e6e82672809307182334cd6ca921405c6e07bcd01e919d2df65f6c04")
    );
    assert_eq!(kek.check_value().to_string(), "704086984f9ca15b");
}

#[test]
fn check_values_are_hex_in_text_and_json() {
    let value: CheckValue = "92308a69c8fd2f68".parse().unwrap();
    assert_eq!(serde_json::to_string(&value).unwrap(), "\"92308a69c8fd2f68\"");
    assert_eq!(serde_json::from_str::<CheckValue>("\"92308a69c8fd2f68\"").unwrap(), value);
    for text in ["", "92308a69c8fd2f", "92308a69c8fd2f6800", "92308a69c8fd2f6g"] {
        assert!(text.parse::<CheckValue>().is_err(), "{text}");
    }
}

#[test]
fn generated_keys_differ() {
    let arena = arena();
    let (first, second) = (Dek::generate(&arena).unwrap(), Dek::generate(&arena).unwrap());
    assert_ne!(first.bytes(), second.bytes());
    assert_ne!(first.halves().0, first.halves().1);
    assert_eq!(first.bytes().len(), Dek::LEN);
    assert_ne!(Kek::generate(&arena).unwrap().bytes(), Kek::generate(&arena).unwrap().bytes());
}

#[test]
fn equal_halves_are_refused() {
    let arena = arena();
    let mut slot = arena.slot(64).unwrap();
    slot.bytes_mut().fill(9);
    assert!(matches!(Dek::from_slot(slot), Err(KeyError::EqualHalves)));
    let mut slot = arena.slot(64).unwrap();
    slot.bytes_mut().fill(9);
    slot.bytes_mut()[63] = 8;
    assert!(Dek::from_slot(slot).is_ok());
}

#[test]
fn the_constant_time_comparison_compares() {
    assert!(equal_in_constant_time(b"", b""));
    assert!(equal_in_constant_time(b"abc", b"abc"));
    for other in [b"abd", b"bbc", b"Abc"] {
        assert!(!equal_in_constant_time(b"abc", other));
    }
    assert!(!equal_in_constant_time(b"abc", b"abcd"));
}

#[test]
fn keys_do_not_show_themselves() {
    let arena = arena();
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        Kek::generate(&arena).unwrap(),
        Dek::generate(&arena).unwrap(),
        HomeKey::generate(&arena).unwrap(),
        RootKey::generate(&arena).unwrap()
    );
    assert_eq!(shown, "Kek(secret) Dek(secret) HomeKey(secret) RootKey(secret)");
}

#[test]
fn keys_give_their_room_back() {
    let arena = arena();
    let keys = (Kek::generate(&arena).unwrap(), Dek::generate(&arena).unwrap());
    assert_eq!(arena.usage().used, 128);
    drop(keys);
    assert_eq!(arena.usage().used, 0);
}

impl Dek {
    /// A key without the check of its halves, to see that the engine has one of its own.
    #[cfg(feature = "aws-lc")]
    pub(crate) fn from_test_bytes(bytes: [u8; 64]) -> Self {
        let mut slot = arena().slot(64).unwrap();
        slot.bytes_mut().copy_from_slice(&bytes);
        Self { slot }
    }
}
