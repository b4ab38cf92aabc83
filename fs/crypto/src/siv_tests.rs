//! Tests of AES-SIV: values computed elsewhere, Wycheproof, changes, agreement with NIST on CMAC.

use super::{BLOCK, Schedules, SivKey};
use crate::keys::HomeKey;
use crate::support::{arena, counting, hex, key, vectors};

fn counted() -> SivKey {
    SivKey::expand(&arena(), &counting()).unwrap()
}

fn message(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 7 % 256).unwrap()).collect()
}

#[test]
fn agrees_with_another_implementation() {
    // AESSIV of Python's cryptography 48, which is that of OpenSSL.
    let nonce: [u8; 16] = counting();
    let cases: [(usize, &[&[u8]], &str); 7] = [
        (0, &[], "d4fc53b9c44c2aeea87bfb8c983b136c"),
        (0, &[b"name"], "ad8bf037a750e341d1893422746d4c38"),
        (1, &[b"name", &nonce], "8515be1bcd6b8b0df5b2c40a46c8cf6555"),
        (15, &[b""], "c0806418d0b7fcfe77000bc8ef40c5d0585bb6986bb035a0256091910b5eb4"),
        (16, &[b"name"], "43437dcdcc4cbc4b771ebf97012fe4f4044de5c6857f9d9e9c59f9506833aa5f"),
        (17, &[b"name", b""], "5563a8c75d97cfb97e40312efbafaf9a03e7f8f62bde718aef6f110b59a2202e63"),
        (
            40,
            &[&[b'x'; 33]],
            "f115a146deab00480d6bdd56c2b6dbb429401fd7a28aecf76f4cae519a20d89ffc785c41e245ef32e78f\
             47595810fa7ad4880e464eb67bbb",
        ),
    ];
    for (len, associated, expected) in cases {
        let mut data = message(len);
        let vector = counted().seal(associated, &mut data);
        assert_eq!([&vector[..], &data].concat(), hex(expected), "{len} bytes");
        assert!(counted().open(associated, &vector, &mut data));
        assert_eq!(data, message(len));
    }
}

/// NIST SP 800-38B, examples of CMAC with AES-256.
#[test]
fn cmac_gives_the_answers_of_nist() {
    let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
    let key: [u8; 32] = key.try_into().unwrap();
    let schedules = Schedules::new(&key, &key);
    let text = hex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc119\
         1a0a52eff69f2445df4f9b17ad2b417be66c3710",
    );
    for (len, tag) in [
        (0, "028962f61b7bf89efc6b551f4667d983"),
        (16, "28a7023f452e8f82bd4bf28d8c37c35c"),
        (40, "aaf3d8f1de5640c232f5b169b9c911e6"),
        (64, "e1992190549f6ed5696a2c056c315410"),
    ] {
        assert_eq!(schedules.cmac(&[&text[..len]]).to_be_bytes(), hex(tag)[..], "{len} bytes");
        let (front, back) = text[..len].split_at(len / 3);
        assert_eq!(schedules.cmac(&[front, back]).to_be_bytes(), hex(tag)[..], "in two parts");
    }
}

#[test]
fn nothing_that_was_changed_opens() {
    let siv = SivKey::derive(&HomeKey::generate(&arena()).unwrap(), &arena(), "a").unwrap();
    for len in [0, 1, 16, 33] {
        let (associated, mut sealed): ([&[u8]; 2], _) = ([b"name", b"nonce"], message(len));
        let vector = siv.seal(&associated, &mut sealed);
        let opens = |associated: &[&[u8]], vector: &[u8; BLOCK], data: &[u8]| {
            let mut data = data.to_vec();
            let opened = siv.open(associated, vector, &mut data);
            assert!(opened || data.iter().all(|&byte| byte == 0), "what does not open is wiped");
            opened
        };
        assert!(opens(&associated, &vector, &sealed));
        for bit in 0..8 * BLOCK {
            let mut changed = vector;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&associated, &changed, &sealed));
        }
        for bit in 0..8 * len {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&associated, &vector, &changed));
        }
        let others: [&[&[u8]]; 4] =
            [&[], &[b"name"], &[b"nonce", b"name"], &[b"name", b"nonce", b""]];
        for other in others {
            assert!(!opens(other, &vector, &sealed));
        }
        let other = SivKey::derive(&HomeKey::generate(&arena()).unwrap(), &arena(), "a").unwrap();
        assert!(!other.open(&associated, &vector, &mut sealed));
    }
}

#[test]
fn keys_of_different_labels_and_keys_differ() {
    let arena = arena();
    let home: HomeKey = key(&arena, &counting::<32>());
    let sealed = |label| {
        let mut data = *b"value";
        SivKey::derive(&home, &arena, label).unwrap().seal(&[], &mut data);
        data
    };
    assert_eq!(sealed("a"), sealed("a"));
    assert_ne!(sealed("a"), sealed("b"));
}

#[test]
fn wycheproof() {
    let Some(text) = vectors("kdf/wycheproof_aes_siv_cmac.json") else { return };
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut done = 0;
    let groups = all["testGroups"].as_array().unwrap();
    for group in groups.iter().filter(|group| group["keySize"] == 512) {
        for test in group["tests"].as_array().unwrap() {
            let field = |name: &str| hex(test[name].as_str().unwrap());
            let (sealed, valid) = (field("ct"), test["result"] == "valid");
            let key: [u8; 64] = field("key").try_into().unwrap();
            let siv = SivKey::expand(&arena(), &key).unwrap();
            let (vector, data) = sealed.split_first_chunk().unwrap();
            let (aad, mut data) = (field("aad"), data.to_vec());
            assert_eq!(siv.open(&[&aad], vector, &mut data), valid, "{}", test["tcId"]);
            if valid {
                assert_eq!(data, field("msg"));
                assert_eq!(siv.seal(&[&aad], &mut data), *vector);
                assert_eq!(data, sealed[BLOCK..]);
            }
            done += 1;
        }
    }
    assert!(done > 100, "{done} tests");
}
