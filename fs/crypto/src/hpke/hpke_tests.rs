//! Against the vector of RFC 9180 and an independent implementation (the `hpke` crate), both ways, and with what must not
//! open.

use aws_lc_sys::EVP_hpke_aes_128_gcm;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};

use super::{HostKey, HostPublicKey, INFO, PushContext, SealedKek, X25519, aws_lc};
use crate::keys::sealed::Bytes;
use crate::support::{arena, counting, hex};
use crate::{Arena, Kek, KeyError, KeyId};

type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Private = <X25519HkdfSha256 as Kem>::PrivateKey;
type Encapped = <X25519HkdfSha256 as Kem>::EncappedKey;

fn id(text: &str) -> KeyId {
    text.parse().unwrap()
}

fn context(key: &KeyId) -> PushContext<'_> {
    PushContext { host: [7; 16], start: [9; 16], key, generation: 3 }
}

fn kek(arena: &Arena) -> Kek {
    Kek::from_wire(arena, &counting::<32>()).unwrap()
}

/// RFC 9180 appendix A.1.1.1, the first message. The appendix has X25519 with AES-128-GCM and ChaCha20Poly1305 only; the
/// calls differ by the cipher, so what the vector shows of them (encapsulation, key schedule, arguments) holds for ours.
#[test]
fn the_vector_of_the_standard_opens() {
    let private = hex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8");
    let message = aws_lc::Message {
        info: &hex("4f6465206f6e2061204772656369616e2055726e"),
        aad: &hex("436f756e742d30"),
        enc: &hex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"),
        text: &hex(
            "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
        ),
    };
    let plain = hex("4265617574792069732074727574682c20747275746820626561757479");
    let mut out = vec![0; plain.len()];
    // SAFETY: takes nothing, returns a static table.
    let aead = unsafe { EVP_hpke_aes_128_gcm() };
    aws_lc::open(aead, &private, &message, &mut out).unwrap();
    assert_eq!(out, plain);
    let other = aws_lc::open(aws_lc::aes_256_gcm(), &private, &message, &mut out);
    assert_eq!(other, Err(aws_lc::Fault::Refused), "the cipher is part of the key schedule");
}

#[test]
fn a_key_comes_out_as_it_went_in() {
    let arena = arena();
    let key = id("kmip/1");
    let host = HostKey::generate(&arena).unwrap();
    let sealed = host.public().seal(&kek(&arena), &context(&key)).unwrap();
    let opened = host.open(&arena, &context(&key), &sealed).unwrap();
    assert_eq!(opened.bytes(), counting::<32>());
    assert_eq!(opened.check_value(), kek(&arena).check_value());
    let again = host.public().seal(&kek(&arena), &context(&key)).unwrap();
    assert!(sealed != again, "each sealing has a key of its own");
}

#[test]
fn another_implementation_opens_what_is_sealed_here() {
    let arena = arena();
    let key = id("kmip/1");
    let host = HostKey::generate(&arena).unwrap();
    let sealed = host.public().seal(&kek(&arena), &context(&key)).unwrap();
    let private = Private::from_bytes(host.private.bytes()).unwrap();
    let (enc, text) = sealed.0.split_at(X25519);
    let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private,
        &Encapped::from_bytes(enc).unwrap(),
        INFO,
        text,
        &context(&key).bytes(),
    )
    .unwrap();
    assert_eq!(opened, counting::<32>());
}

#[test]
fn what_another_implementation_sealed_opens_here() {
    let arena = arena();
    let key = id("kmip/1");
    let host = HostKey::generate(&arena).unwrap();
    let seal = |plain: &[u8]| {
        let public = Public::from_bytes(&host.public().0).unwrap();
        let (enc, text) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            INFO,
            plain,
            &context(&key).bytes(),
        )
        .unwrap();
        let mut sealed = [0; SealedKek::LEN];
        sealed[..X25519].copy_from_slice(&enc.to_bytes());
        sealed[X25519..][..text.len()].copy_from_slice(&text);
        SealedKek(sealed)
    };
    let opened = host.open(&arena, &context(&key), &seal(&counting::<32>())).unwrap();
    assert_eq!(opened.bytes(), counting::<32>());
    let zeros = host.open(&arena, &context(&key), &seal(&[0; 32]));
    assert!(matches!(zeros, Err(KeyError::WireZero)));
    let short = host.open(&arena, &context(&key), &seal(&counting::<31>()));
    assert!(matches!(short, Err(KeyError::SealedElsewhere)));
}

#[test]
fn nothing_else_opens() {
    let arena = arena();
    let (host, other) = (HostKey::generate(&arena).unwrap(), HostKey::generate(&arena).unwrap());
    let (key, key_2) = (id("kmip/1"), id("kmip/2"));
    let sealed = host.public().seal(&kek(&arena), &context(&key)).unwrap();
    let used = arena.usage().used;
    let refused = |host: &HostKey, context: PushContext<'_>, sealed: &SealedKek| {
        let outcome = host.open(&arena, &context, sealed);
        assert!(matches!(outcome, Err(KeyError::SealedElsewhere)), "{outcome:?}");
    };
    let right = context(&key);
    refused(&other, right, &sealed);
    refused(&host, PushContext { host: [8; 16], ..right }, &sealed);
    refused(&host, PushContext { start: [8; 16], ..right }, &sealed);
    refused(&host, PushContext { generation: 4, ..right }, &sealed);
    refused(&host, PushContext { key: &key_2, ..right }, &sealed);
    for at in 0..SealedKek::LEN {
        for bit in 0..8 {
            // The highest bit of an X25519 key counts for nothing (RFC 7748 section 5), but for the key schedule it does.
            let mut changed = sealed.clone();
            changed.0[at] ^= 1 << bit;
            refused(&host, right, &changed);
        }
    }
    assert_eq!(arena.usage().used, used, "what was refused took no key memory");
}

#[test]
fn a_public_key_of_low_order_is_refused() {
    // RFC 7748 section 6.1 and RFC 9180 section 7.1.4: the shared secret would be zero.
    let arena = arena();
    let key = id("kmip/1");
    for low in [[0; 32], std::array::from_fn(|at| u8::from(at == 0))] {
        let outcome = HostPublicKey(low).seal(&kek(&arena), &context(&key));
        assert!(matches!(outcome, Err(KeyError::HostKey)));
    }
}

#[test]
fn what_is_sealed_is_written_as_hex_of_one_length() {
    let arena = arena();
    let key = id("kmip/1");
    let host = HostKey::generate(&arena).unwrap();
    let public = host.public().to_string();
    assert_eq!((public.len(), public.parse::<HostPublicKey>().unwrap()), (64, host.public()));
    let sealed = host.public().seal(&kek(&arena), &context(&key)).unwrap();
    let text = sealed.to_string();
    assert!(text.len() == 2 * SealedKek::LEN && text.parse::<SealedKek>().unwrap() == sealed);
    let mut cut: Vec<String> = (0..text.len()).map(|len| text[..len].to_owned()).collect();
    cut.extend([format!("{text}00"), text.replace(|c: char| c.is_ascii_digit(), "g")]);
    for wrong in &cut {
        let outcome = wrong.parse::<SealedKek>();
        assert!(matches!(outcome, Err(KeyError::Hex { digits: 160, .. })), "{wrong}");
    }
    assert_eq!(format!("{host:?} {sealed:?}"), "HostKey(secret) SealedKek");
}
