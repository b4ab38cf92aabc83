//! Tests of passphrases: reading, bounds, Argon2id against another implementation.

use std::io::{self, Read};

use zeroize::Zeroizing;

use super::{Argon2Params, MAX_PASSPHRASE_BYTES, Passphrase};
use crate::keys::sealed::Bytes;
use crate::support::{arena, hex};
use crate::{Kek, KeyError, PassphraseError};

fn read(text: &[u8]) -> Result<Vec<u8>, PassphraseError> {
    Passphrase::read(&arena(), text).map(|phrase| phrase.slot.bytes()[..phrase.len].to_vec())
}

fn small(lanes: u32) -> Argon2Params {
    let salt = std::array::from_fn(|index| u8::try_from(index).unwrap());
    Argon2Params { memory_kib: 64, passes: 3, lanes, salt }
}

#[test]
fn cuts_one_line_end() {
    for text in [&b"secret"[..], b"secret\n", b"secret\r\n"] {
        assert_eq!(read(text).unwrap(), b"secret");
    }
    assert_eq!(read(b"secret\n\n").unwrap(), b"secret\n");
    assert_eq!(read(b"secret\r").unwrap(), b"secret\r");
    assert_eq!(read(b" \n").unwrap(), b" ");
}

#[test]
fn refuses_empty_and_long_ones() {
    for text in [&b""[..], b"\n", b"\r\n"] {
        assert!(matches!(read(text), Err(PassphraseError::Empty)));
    }
    let longest = vec![b'x'; MAX_PASSPHRASE_BYTES];
    assert_eq!(read(&longest).unwrap(), longest);
    assert_eq!(read(&[&longest[..], b"\r\n"].concat()).unwrap(), longest);
    for more in [&b"x"[..], b"x\n", b"xxxx", &[b'\n'; 5000]] {
        let text = [&longest[..], more].concat();
        assert!(matches!(read(&text), Err(PassphraseError::TooLong { max: 1024 })));
    }
}

#[test]
fn reads_in_pieces_and_passes_errors_on() {
    struct Drip(u8);
    impl Read for Drip {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => Err(io::ErrorKind::Interrupted.into()),
                2..=4 => out.first_mut().map_or(Ok(0), |byte| {
                    *byte = b'a' + self.0;
                    Ok(1)
                }),
                5 => Ok(0),
                _ => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }
    let phrase = Passphrase::read(&arena(), Drip(0)).unwrap();
    assert_eq!(&phrase.slot.bytes()[..phrase.len], b"cde");
    let failed = Passphrase::read(&arena(), Drip(9));
    assert!(
        matches!(failed, Err(PassphraseError::Read(error)) if error.kind() == io::ErrorKind::BrokenPipe)
    );
}

/// The kernel writes into secret memory for an ordinary read, from a pipe as from a file.
#[test]
fn reads_from_real_descriptors() {
    use std::io::{Seek, Write};
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"from a pipe\n").unwrap();
    drop(writer);
    let phrase = Passphrase::read(&arena(), reader).unwrap();
    assert_eq!(&phrase.slot.bytes()[..phrase.len], b"from a pipe");

    let memfd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(memfd);
    file.write_all(b"from a file\r\n").unwrap();
    file.rewind().unwrap();
    let phrase = Passphrase::read(&arena(), file).unwrap();
    assert_eq!(&phrase.slot.bytes()[..phrase.len], b"from a file");
}

/// Argon2id of Python's `cryptography` (OpenSSL): salt 00 .. 0f, 3 passes, 4 lanes, 64 KiB.
#[test]
fn agrees_with_another_implementation() {
    let arena = arena();
    let text = Zeroizing::new("correct horse battery staple".to_owned());
    let phrase = Passphrase::from_text(&arena, text).unwrap();
    let kek = Kek::from_passphrase(&arena, &phrase, &small(4)).unwrap();
    let expected = "fff8371f0247952ba584679977a86d3b7606eac6ee454ab3bbd8d1a550593c9a";
    assert_eq!(kek.bytes(), hex(expected));
    let other = Kek::from_passphrase(&arena, &phrase, &small(2)).unwrap();
    assert_ne!(kek.bytes(), other.bytes());
}

#[test]
fn refuses_parameters_out_of_bounds() {
    let arena = arena();
    let phrase = Passphrase::read(&arena, &b"x"[..]).unwrap();
    let bad = [
        ("memory_kib", Argon2Params { memory_kib: 31, ..small(4) }),
        ("memory_kib", Argon2Params { memory_kib: 1024 * 1024 + 1, ..small(4) }),
        ("passes", Argon2Params { passes: 0, ..small(4) }),
        ("passes", Argon2Params { passes: 17, ..small(4) }),
        ("lanes", small(0)),
        ("lanes", small(17)),
        ("lanes", small(u32::MAX)),
    ];
    for (field, params) in bad {
        match Kek::from_passphrase(&arena, &phrase, &params) {
            Err(KeyError::Argon2Bounds { name, .. }) => assert_eq!(name, field),
            other => panic!("{params:?}: {other:?}"),
        }
    }
}

#[test]
fn the_recommended_parameters_are_those_of_the_rfc_and_serialise() {
    let (first, second) =
        (Argon2Params::recommended().unwrap(), Argon2Params::recommended().unwrap());
    assert_eq!((first.memory_kib, first.passes, first.lanes), (65536, 3, 4));
    assert_ne!(first.salt, second.salt);
    let json = serde_json::to_value(small(4)).unwrap();
    assert_eq!(json["salt"], "000102030405060708090a0b0c0d0e0f");
    assert_eq!(serde_json::from_value::<Argon2Params>(json).unwrap(), small(4));
}
