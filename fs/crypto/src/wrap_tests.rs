//! Tests of key wrap: RFC 3394 section 4, CAVP, Wycheproof, and every way to be refused.

use super::{unwrap_into, wrap_into};
use crate::keys::sealed::Bytes;
use crate::keys::{DataKey, Dek, HomeKey, Kek, RootKey};
use crate::support::{arena, counting, hex, key, records, vectors};
use crate::{Arena, OpenError};

fn kek(arena: &Arena, bytes: &[u8]) -> Kek {
    // A KEK has no public way in for bytes; an unwrapped root key of those bytes derives another key,
    // so the tests build it from its slot.
    let mut slot = arena.slot(32).unwrap();
    slot.bytes_mut().copy_from_slice(bytes);
    Kek::from_test_slot(slot)
}

/// RFC 3394 sections 4.3, 4.5 and 4.6: the cases with a 256-bit KEK.
#[test]
fn rfc_3394_section_4() {
    let data = hex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f");
    let cases = [
        (16, "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7"),
        // 4.5 has the first 24 bytes of the data of 4.6.
        (24, "a8f9bc1612c68b3ff6e6f4fbe30e71e4769c8b80a32cb8958cd5d17d6b254da1"),
        (32, "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"),
    ];
    for (len, wrapped) in cases {
        let mut blob = vec![0; len + 8];
        wrap_into(&counting(), &data[..len], &mut blob).unwrap();
        assert_eq!(blob, hex(wrapped));
        let mut back = vec![0; len];
        unwrap_into(&counting(), &blob, &mut back).unwrap();
        assert_eq!(back, data[..len]);
    }
}

#[test]
fn rfc_3394_section_4_6_through_the_key_types() {
    let arena = arena();
    let kek = kek(&arena, &counting::<32>());
    let data = hex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f");
    let home: HomeKey = key(&arena, &data);
    let blob = kek.wrap(&home).unwrap();
    assert_eq!(
        blob,
        hex("28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21")
    );
    assert_eq!(kek.open::<HomeKey>(&arena, &blob).unwrap().bytes(), data);
}

fn refuses_other_lengths<K: DataKey>(arena: &Arena) {
    let kek = Kek::generate(arena).unwrap();
    for length in (0..200).filter(|length| *length != K::WRAPPED_LEN) {
        // All 0xa6: the 8-byte blob of this is what `aes-kw` takes for the wrap of an empty key.
        match kek.open::<K>(arena, &vec![0xa6; length]) {
            Err(OpenError::WrongLength { expected, found }) => {
                assert_eq!((expected, found), (K::WRAPPED_LEN, length));
            }
            other => panic!("{length}: {:?}", other.map(drop)),
        }
    }
    assert!(matches!(kek.open::<K>(arena, &vec![0xa6; K::WRAPPED_LEN]), Err(OpenError::Damaged)));
}

#[test]
fn refuses_every_other_length() {
    let arena = arena();
    refuses_other_lengths::<Dek>(&arena);
    refuses_other_lengths::<HomeKey>(&arena);
    refuses_other_lengths::<RootKey>(&arena);
}

#[test]
fn refuses_every_flipped_bit() {
    let arena = arena();
    let kek = Kek::generate(&arena).unwrap();
    let blob = kek.wrap(&Dek::generate(&arena).unwrap()).unwrap();
    assert_eq!(blob.len(), Dek::WRAPPED_LEN);
    for bit in 0..blob.len() * 8 {
        let mut changed = blob.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(kek.open::<Dek>(&arena, &changed), Err(OpenError::Damaged)), "bit {bit}");
    }
    assert!(matches!(
        Kek::generate(&arena).unwrap().open::<Dek>(&arena, &blob),
        Err(OpenError::Damaged)
    ));
    assert_eq!(arena.usage().used, 64, "only the first KEK is left");
}

#[test]
fn refuses_a_wrapped_disk_key_with_equal_halves() {
    let arena = arena();
    let kek = Kek::generate(&arena).unwrap();
    let mut blob = vec![0; 72];
    wrap_into(kek.bytes().try_into().unwrap(), &[7; 64], &mut blob).unwrap();
    assert!(matches!(kek.open::<Dek>(&arena, &blob), Err(OpenError::EqualHalves)));
}

#[test]
fn cavp() {
    for file in ["keywrap/KW_AE_256.txt", "keywrap/KW_AD_256.txt"] {
        let Some(text) = vectors(file) else { return };
        let text = text.replace('\r', "");
        let (mut good, mut bad) = (0, 0);
        for record in records(&text) {
            let (Some(kek), Some(blob)) = (record.get("K"), record.get("C")) else { continue };
            let (kek, blob): ([u8; 32], _) = (hex(kek).try_into().unwrap(), hex(blob));
            let mut back = vec![0; blob.len() - 8];
            let opened = unwrap_into(&kek, &blob, &mut back);
            let Some(plain) = record.get("P").map(|plain| hex(plain)) else {
                assert!(opened.is_err() && back.iter().all(|byte| *byte == 0));
                bad += 1;
                continue;
            };
            opened.unwrap();
            assert_eq!(back, plain);
            let mut again = vec![0; blob.len()];
            wrap_into(&kek, &plain, &mut again).unwrap();
            assert_eq!(again, blob);
            good += 1;
        }
        assert!(good > 100 && (bad > 50 || file.contains("AE")), "{file}: {good} good, {bad} bad");
    }
}

/// Wycheproof's 256-bit cases through the key type that has the length, as far as one has.
#[test]
fn wycheproof() {
    let Some(text) = vectors("keywrap/wycheproof_aes_wrap.json") else { return };
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let arena = arena();
    let (mut opened, mut refused) = (0, 0);
    for group in
        all["testGroups"].as_array().unwrap().iter().filter(|group| group["keySize"] == 256)
    {
        for test in group["tests"].as_array().unwrap() {
            let field = |name: &str| hex(test[name].as_str().unwrap());
            let kek = kek(&arena, &field("key"));
            let valid = test["result"] == "valid" && field("msg").len() == 32;
            match kek.open::<HomeKey>(&arena, &field("ct")) {
                Ok(home) => {
                    assert!(valid, "{test}");
                    assert_eq!(home.bytes(), field("msg"));
                    opened += 1;
                }
                Err(_) => {
                    assert!(!valid, "{test}");
                    refused += 1;
                }
            }
        }
    }
    assert!(opened > 0 && refused > 40, "{opened} opened, {refused} refused");
}
