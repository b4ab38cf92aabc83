//! Tests of HKDF: RFC 5869 appendix A, Wycheproof.

use hkdf::Hkdf;
use sha2::Sha256;

use super::{hkdf_sha256, hkdf_sha512};
use crate::support::{arena, hex, vectors};

/// RFC 5869 A.3 has neither salt nor info: our call as it is.
#[test]
fn rfc_5869_a3() {
    let slot = hkdf_sha256(&arena(), &[0x0b; 22], &[], 42).unwrap();
    let expected =
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
    assert_eq!(slot.bytes(), hex(expected));
}

/// A.1 and A.2 have a salt, which we never use: they test the primitive.
#[test]
fn rfc_5869_a1_and_a2() {
    let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    let cases = [
        (
            vec![0x0b; 22],
            range(0x00, 0x0c),
            range(0xf0, 0xf9),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            range(0x00, 0x4f),
            range(0x60, 0xaf),
            range(0xb0, 0xff),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
    ];
    for (ikm, salt, info, okm) in cases {
        let expected = hex(okm);
        let mut out = vec![0; expected.len()];
        Hkdf::<Sha256>::new(Some(&salt), &ikm).expand(&info, &mut out).unwrap();
        assert_eq!(out, expected);
    }
}

#[test]
fn info_parts_are_one_string() {
    let arena = arena();
    let whole = hkdf_sha256(&arena, b"key", &[b"abcd"], 32).unwrap();
    let parts = hkdf_sha256(&arena, b"key", &[b"ab", b"", b"cd"], 32).unwrap();
    assert_eq!(whole.bytes(), parts.bytes());
}

#[test]
fn wycheproof() {
    for (file, sha512) in [
        ("kdf/wycheproof_hkdf_sha256_test.json", false),
        ("kdf/wycheproof_hkdf_sha512_test.json", true),
    ] {
        let Some(text) = vectors(file) else { return };
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut run = 0;
        for test in all["testGroups"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["tests"].as_array().unwrap())
        {
            let field = |name: &str| hex(test[name].as_str().unwrap());
            let len = usize::try_from(test["size"].as_u64().unwrap()).unwrap();
            if !field("salt").is_empty() {
                continue;
            }
            let derive = if sha512 { hkdf_sha512 } else { hkdf_sha256 };
            let arena = crate::Arena::new(128 * 1024).unwrap();
            match derive(&arena, &field("ikm"), &[&field("info")], len) {
                Ok(slot) => {
                    assert_eq!(test["result"], "valid", "{test}");
                    assert_eq!(slot.bytes(), field("okm"), "{test}");
                }
                Err(_) => assert_eq!(test["result"], "invalid", "{test}"),
            }
            run += 1;
        }
        assert!(run >= 5, "{file}: only {run} cases without salt");
    }
}
