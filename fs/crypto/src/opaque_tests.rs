//! Tests of keys without their kind: RFC 4648 texts, every character, and every way to be refused.

use super::{OpaqueKey, decode, encode};
use crate::support::{arena, counting};
use crate::{Dek, HomeKey, Kek, KeyError, OpenError};

fn opaque(bytes: &[u8]) -> OpaqueKey {
    OpaqueKey::copied(bytes, &arena()).unwrap()
}

fn text(key: &OpaqueKey) -> String {
    let mut text = vec![0; OpaqueKey::base64_len(key.key_len())];
    key.write_base64(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn rfc_4648_section_10() {
    for (plain, coded) in [
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
    ] {
        assert_eq!(text(&opaque(plain.as_bytes())), coded);
        let back = OpaqueKey::from_base64(&arena(), coded.as_bytes(), plain.len()).unwrap();
        assert_eq!(back.slot.bytes(), plain.as_bytes());
    }
}

#[test]
fn every_character_stands_for_its_bits() {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for character in 0..=255 {
        let place = alphabet.iter().position(|c| *c == character);
        let expected = place.map(|place| u32::try_from(place).unwrap());
        let got = decode(character);
        assert_eq!((got & 64 == 0).then_some(got), expected, "{character}");
        if let Some(bits) = expected {
            assert_eq!(encode(bits), character);
        }
    }
}

#[test]
fn a_key_comes_back_as_the_kind_that_it_is() {
    let arena = arena();
    for _ in 0..20 {
        let dek = Dek::generate(&arena).unwrap();
        let opaque = OpaqueKey::of(&dek, &arena).unwrap();
        let back = OpaqueKey::from_base64(&arena, text(&opaque).as_bytes(), 64).unwrap();
        assert_eq!(back.check_value().unwrap(), opaque.check_value().unwrap());
        let copy = back.copy_to(&arena).unwrap();
        assert!(matches!(
            copy.into_key::<HomeKey>(),
            Err(OpenError::WrongLength { expected: 32, found: 64 })
        ));
        assert_eq!(back.into_key::<Dek>().unwrap().halves(), dek.halves());
    }
    assert!(matches!(opaque(&[7; 64]).into_key::<Dek>(), Err(OpenError::EqualHalves)));
}

#[test]
fn other_texts_are_refused() {
    let arena = arena();
    let good = text(&opaque(&counting::<32>()));
    let refused = |text: &str| OpaqueKey::from_base64(&arena, text.as_bytes(), 32).unwrap_err();
    for other in [
        "",
        "AAAA",
        &good[..40],
        &text(&opaque(&counting::<31>())),
        &text(&opaque(&counting::<64>())),
    ] {
        assert!(matches!(refused(other), KeyError::WireLength { expected: 32, .. }), "{other}");
    }
    for (from, to) in [("A", "\n"), ("A", "-"), ("A", "\u{7f}"), ("8=", "9="), ("A", "=")] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(matches!(refused(&bad), KeyError::WireText), "{bad}");
    }
    assert!(matches!(refused(&text(&opaque(&[0; 32]))), KeyError::WireZero));
    assert_eq!(arena.usage().used, 0, "what was refused took no key memory");
}

#[test]
fn a_request_of_another_length_is_left_alone() {
    let mut room = [b'x'; 43];
    assert!(matches!(
        opaque(&[1; 32]).write_base64(&mut room),
        Err(KeyError::WireLength { expected: 44, found: 43 })
    ));
    assert_eq!(room, [b'x'; 43]);
}

#[test]
fn a_kek_wraps_without_knowing_the_kind() {
    let arena = arena();
    let kek = Kek::generate(&arena).unwrap();
    let home = HomeKey::generate(&arena).unwrap();
    let mut wrapped = kek.wrap_opaque(&OpaqueKey::of(&home, &arena).unwrap()).unwrap();
    assert_eq!(wrapped.blob, kek.wrap(&home).unwrap());
    let opened = kek.open_opaque(&arena, &wrapped).unwrap();
    assert_eq!(kek.wrap(&opened.into_key::<HomeKey>().unwrap()).unwrap(), wrapped.blob);
    wrapped.blob[3] ^= 1;
    assert!(matches!(kek.open_opaque(&arena, &wrapped), Err(OpenError::Damaged)));
    wrapped.blob.pop();
    assert!(matches!(kek.open_opaque(&arena, &wrapped), Err(OpenError::WrongLength { .. })));
}

#[test]
fn it_prints_its_name_only() {
    assert_eq!(format!("{:?}", opaque(&[9; 32])), "OpaqueKey(secret)");
}
