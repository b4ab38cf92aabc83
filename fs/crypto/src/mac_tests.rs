//! Tests of MACs: a value computed elsewhere, Wycheproof, verification.

use super::MacKey;
use crate::keys::{HomeKey, Kek};
use crate::support::{arena, counting, hex, key, vectors};

impl MacKey {
    /// The key bytes, for the search for copies of them.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.slot.bytes()
    }
}

#[test]
fn agrees_with_another_implementation() {
    let arena = arena();
    let home: HomeKey = key(&arena, &counting::<32>());
    let mac = MacKey::derive(&home, &arena, "coffer v1 safe mac").unwrap();
    // HKDF and HMAC of Python's cryptography and hmac modules.
    let expected = hex("ccc3bc604b781b72bae8d1cfdbf733f1d906591f93d6eee0b7d584390e87c8ee");
    assert_eq!(mac.tag(&[b"two ", b"parts"]).as_slice(), expected);
    assert_eq!(mac.tag(&[b"two parts"]).as_slice(), expected);
}

#[test]
fn verification_refuses_every_change() {
    let arena = arena();
    let mac = MacKey::derive(&Kek::generate(&arena).unwrap(), &arena, "a").unwrap();
    let tag = mac.tag(&[b"message"]);
    assert!(mac.verify(&[b"message"], &tag));
    assert!(!mac.verify(&[b"messagf"], &tag));
    for length in 0..32 {
        assert!(!mac.verify(&[b"message"], &tag[..length]), "a tag cut to {length} bytes");
    }
    for bit in 0..256 {
        let mut changed = tag;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!mac.verify(&[b"message"], &changed));
    }
}

#[test]
fn half_a_tag_is_its_first_half_and_all_of_it_counts() {
    let arena = arena();
    let mac = MacKey::derive(&Kek::generate(&arena).unwrap(), &arena, "a").unwrap();
    let tag = mac.tag(&[b"message"]);
    let half: [u8; 16] = tag[..16].try_into().unwrap();
    assert!(mac.verify_half(&[b"mess", b"age"], &half));
    assert!(!mac.verify_half(&[b"messagf"], &half));
    assert!(!mac.verify_half(&[b"message"], tag[16..].try_into().unwrap()));
    for bit in 0..128 {
        let mut changed = half;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!mac.verify_half(&[b"message"], &changed), "bit {bit}");
    }
}

#[test]
fn other_labels_and_keys_give_other_tags() {
    let arena = arena();
    let (first, second) = (Kek::generate(&arena).unwrap(), Kek::generate(&arena).unwrap());
    let tag = |kek, info| MacKey::derive(kek, &arena, info).unwrap().tag(&[b"m"]);
    assert_eq!(tag(&first, "a"), tag(&first, "a"));
    assert_ne!(tag(&first, "a"), tag(&first, "b"));
    assert_ne!(tag(&first, "a"), tag(&second, "a"));
}

#[test]
fn wycheproof() {
    let Some(text) = vectors("kdf/wycheproof_hmac_sha256_test.json") else { return };
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let arena = arena();
    let mut run = 0;
    for group in
        all["testGroups"].as_array().unwrap().iter().filter(|group| group["tagSize"] == 256)
    {
        for test in group["tests"].as_array().unwrap() {
            let field = |name: &str| hex(test[name].as_str().unwrap());
            let mut slot = arena.slot(field("key").len()).unwrap();
            slot.bytes_mut().copy_from_slice(&field("key"));
            let mac = MacKey { slot };
            assert_eq!(
                mac.verify(&[&field("msg")], &field("tag")),
                test["result"] == "valid",
                "{test}"
            );
            run += 1;
        }
    }
    assert!(run > 80, "{run}");
}
