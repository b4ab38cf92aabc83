//! Keys that are taken, and every way for a server to send something else.

use super::super::ttlv::Writer;
use super::*;

/// The payload of an answer to Get, as a server may get it wrong.
struct Sent {
    object: u32,
    uid: &'static str,
    format: u32,
    bytes: Vec<u8>,
    algorithm: Option<u32>,
    bits: Option<i32>,
    wrapped: bool,
}

impl Sent {
    fn good() -> Self {
        Self {
            object: 2,
            uid: "7",
            format: only::RAW,
            bytes: (1..=32).collect(),
            algorithm: Some(only::AES),
            bits: Some(256),
            wrapped: false,
        }
    }

    fn read(&self, arena: &Arena) -> Result<Kek, KeyFault> {
        let mut writer = Writer::default();
        writer.structure(Tag::RESPONSE_PAYLOAD, |w| {
            w.enumeration(Tag::OBJECT_TYPE, self.object);
            w.text(Tag::UNIQUE_IDENTIFIER, self.uid);
            w.structure(Tag::SYMMETRIC_KEY, |w| w.structure(Tag::KEY_BLOCK, |w| self.block(w)));
        });
        let bytes = writer.finish().unwrap();
        read(&Item::parse(&bytes).unwrap(), "7", arena)
    }

    fn block(&self, w: &mut Writer) {
        w.enumeration(Tag::KEY_FORMAT_TYPE, self.format);
        w.structure(Tag::KEY_VALUE, |w| match self.format {
            only::TRANSPARENT_SYMMETRIC_KEY => {
                w.structure(Tag::KEY_MATERIAL, |w| w.bytes(Tag::KEY, &self.bytes));
            }
            _ => w.bytes(Tag::KEY_MATERIAL, &self.bytes),
        });
        if let Some(algorithm) = self.algorithm {
            w.enumeration(Tag::CRYPTOGRAPHIC_ALGORITHM, algorithm);
        }
        if let Some(bits) = self.bits {
            w.integer(Tag::CRYPTOGRAPHIC_LENGTH, bits);
        }
        if self.wrapped {
            w.structure(Tag::KEY_WRAPPING_DATA, |_| {});
        }
    }
}

#[test]
fn a_key_is_taken_raw_or_transparent() {
    let arena = Arena::new(64 * 1024).unwrap();
    let expected = Kek::from_wire(&arena, &Sent::good().bytes).unwrap().check_value();
    let bare = Sent { algorithm: None, bits: None, ..Sent::good() };
    let transparent = Sent { format: only::TRANSPARENT_SYMMETRIC_KEY, ..Sent::good() };
    for sent in [Sent::good(), bare, transparent] {
        assert_eq!(sent.read(&arena).unwrap().check_value(), expected);
    }
}

#[test]
fn whatever_else_comes_is_refused_by_name() {
    let arena = Arena::new(64 * 1024).unwrap();
    let cases = [
        (Sent { object: 7, ..Sent::good() }, "no symmetric key (its type is 7)"),
        (Sent { uid: "8", ..Sent::good() }, "answered with key \"8\""),
        (Sent { wrapped: true, ..Sent::good() }, "wrapped by another key"),
        (Sent { algorithm: Some(2), ..Sent::good() }, "not for AES"),
        (Sent { bits: Some(128), ..Sent::good() }, "128 bits, not 256"),
        (Sent { format: 2, ..Sent::good() }, "format 2"),
        (Sent { bytes: vec![1; 16], ..Sent::good() }, "16 bytes, not 32"),
        (Sent { bytes: vec![1; 33], ..Sent::good() }, "33 bytes, not 32"),
        (Sent { bytes: vec![], ..Sent::good() }, "0 bytes, not 32"),
        (Sent { bytes: vec![0; 32], ..Sent::good() }, "all zeros"),
    ];
    for (sent, reason) in cases {
        let error = sent.read(&arena).unwrap_err().to_string();
        assert!(error.contains(reason), "{error} is not about {reason}");
    }
    assert_eq!(arena.usage().used, 0, "nothing that was refused is kept");
}
