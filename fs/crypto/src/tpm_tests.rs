//! The numbers are from a script of its own, written from the standard on top of Python's `cryptography`; a TPM (swtpm)
//! took and gave what the same script made.

use super::{TpmPoint, TpmSalt, TpmSession};
use crate::support::{arena, counting, hex};
use crate::{Arena, Kek, KeyError};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};

/// The public point of the private key 01 02 ... 20.
fn parent() -> TpmPoint {
    point(
        "515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f",
        "4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354",
    )
}

fn point(x: &str, y: &str) -> TpmPoint {
    [x, y].map(|half| hex(half).try_into().unwrap())
}

/// With the private key 21 22 ... 40 on our side, and nonces of the letters `t` and `c`.
fn session(arena: &Arena) -> TpmSession {
    let ours: Vec<u8> = (33..65).collect();
    let ours = PrivateKey::from_private_key(&ECDH_P256, &ours).unwrap();
    let salt = TpmSalt::agree_with(arena, &parent(), &ours).unwrap();
    let expected = point(
        "1f140146bfb1b251f84f4ddbe0d4cdcfd77afd984a9520e35794021f8312bb9e",
        "ec995a08b1fa7704df3dcc0b50a9665263fb7711f95f9f8a449c5096e47c892b",
    );
    assert_eq!(*salt.point(), expected);
    salt.session(arena, &[b't'; 32], &[b'c'; 32]).unwrap()
}

#[test]
fn a_session_is_that_of_the_standard() {
    let arena = arena();
    let session = session(&arena);
    let tag = hex("c68bc0e51c0350cd07514a5d527ee357c523198ccca7adc5d83fdde07bd571aa");
    assert_eq!(session.tag(&[b"cp", b"hash"])[..], tag);
    assert!(session.verify(&[b"cphash"], &tag));
    assert!(!session.verify(&[b"cphask"], &tag) && !session.verify(&[b"cphash"], &tag[..31]));

    let kek = Kek::from_wire(&arena, &counting::<32>()).unwrap();
    let nonces = (&[b'n'; 32][..], &[b't'; 32][..]);
    let concealed = session.conceal(&arena, nonces, &[0, 0, 0, 32], &kek).unwrap();
    let expected = "76c04e98e4b5dff9a4d8fdb03c67da2443b5add9c42dc71445adc4e578c35f8d016c8fcf";
    assert_eq!(concealed, hex(expected));
    let sent = hex("76c14cbbe0b1dbfda8d4f1bc3863de20f9acb3cd8c8c4a88eada3b6f2e375030");
    let back = session.reveal(&arena, nonces, &sent).unwrap();
    assert_eq!(back.check_value(), kek.check_value());
    let other = session.reveal(&arena, (nonces.1, nonces.0), &sent).unwrap();
    assert_ne!(other.check_value(), kek.check_value(), "the nonces count, and their order");
}

#[test]
fn what_is_no_point_or_no_kek_is_refused() {
    let arena = arena();
    for bad in [[[0; 32]; 2], [[0xff; 32]; 2], [parent()[1], parent()[0]]] {
        let error = TpmSalt::agree(&arena, &bad).unwrap_err();
        assert!(matches!(error, KeyError::TpmPoint), "{error}");
    }
    let session = session(&arena);
    for length in [0, 31, 33, 64] {
        let error = session.reveal(&arena, (b"a", b"b"), &vec![1; length]).unwrap_err();
        assert!(matches!(error, KeyError::WireLength { expected: 32, .. }), "{error}");
    }
}

#[test]
fn every_salt_is_another_one_and_nothing_stays() {
    let arena = arena();
    let salts = [(); 2].map(|()| TpmSalt::agree(&arena, &parent()).unwrap());
    assert_ne!(salts[0].point(), salts[1].point());
    let tags = salts.map(|salt| salt.session(&arena, b"t", b"c").unwrap().tag(&[b"x"]));
    assert_ne!(tags[0], tags[1]);
    assert_eq!(arena.usage().used, 0);
    assert_eq!(format!("{:?}", session(&arena)), "TpmSession(secret)");
}
