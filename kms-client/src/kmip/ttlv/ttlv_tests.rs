//! Tests of the codec: every way to break a message is refused with tag, offset and reason.

use super::*;

/// A response with a header and one item of each kind.
fn every_kind() -> Message {
    let mut writer = Writer::default();
    writer.structure(Tag::RESPONSE_MESSAGE, |w| {
        w.structure(Tag(0x54_0001), |w| {
            w.integer(Tag(1), -2);
            w.long_integer(Tag(2), i64::MIN);
            w.big_integer(Tag(3), &[0xFF; 16]);
            w.enumeration(Tag(4), 0x8000_0001);
            w.boolean(Tag(5), true);
            w.text(Tag(6), "gr\u{fc}\u{df}e");
            w.bytes(Tag(7), &[1; 9]);
            w.date_time(Tag(8), -1);
            w.interval(Tag(9), u32::MAX);
            w.structure(Tag(10), |_| {});
        });
    });
    writer.finish().unwrap()
}

fn fault(bytes: &[u8]) -> (u32, usize, Reason) {
    let error = Item::parse(bytes).unwrap_err();
    (error.tag.0, error.offset, error.reason)
}

/// One item, tag 420069, with this type, length and value.
fn one(kind: u8, length: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x42, 0x00, 0x69, kind];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(value);
    bytes
}

#[test]
fn every_kind_of_item_survives() {
    let bytes = every_kind();
    let root = Item::parse(&bytes).unwrap();
    let items: Vec<_> = root.children().next().unwrap().children().collect();
    assert!(items[0].value() == Value::Integer(-2));
    assert!(items[1].value() == Value::LongInteger(i64::MIN));
    assert!(items[2].value() == Value::BigInteger(&[0xFF; 16]));
    assert!(items[3].value() == Value::Enumeration(0x8000_0001));
    assert!(items[4].value() == Value::Boolean(true));
    assert!(items[5].value() == Value::TextString("gr\u{fc}\u{df}e"));
    assert!(items[6].value() == Value::ByteString(&[1; 9]));
    assert!(items[7].value() == Value::DateTime(-1));
    assert!(items[8].value() == Value::Interval(u32::MAX));
    assert_eq!(items[9].children().count(), 0);
    for item in &items {
        let at = item.offset();
        assert_eq!(bytes[at..at + 3], item.tag().0.to_be_bytes()[1..], "offsets name the item");
    }
    let mut again = Writer::default();
    again.copy(&root);
    assert_eq!(again.finish().unwrap()[..], bytes[..]);
}

#[test]
fn the_examples_of_the_standard() {
    // KMIP 1.4 section 9.1.2, the examples of each type.
    let cases: [(&str, Value); 8] = [
        ("42002002000000040000000800000000", Value::Integer(8)),
        ("42002003000000080 1B69B4BA5749200", Value::LongInteger(123_456_789_000_000_000)),
        ("4200200500000004000000FF00000000", Value::Enumeration(255)),
        ("42002006000000080000000000000001", Value::Boolean(true)),
        ("420020070000000B48656C6C6F20576F726C640000000000", Value::TextString("Hello World")),
        ("42002008000000030102030000000000", Value::ByteString(&[1, 2, 3])),
        ("42002009000000080000000047DA67F8", Value::DateTime(1_205_495_800)),
        ("4200200A00000004000D2F0000000000", Value::Interval(864_000)),
    ];
    for (hex, value) in cases {
        let bytes = hex::decode(hex.replace(' ', "")).unwrap();
        let item = Item::parse(&bytes).unwrap();
        assert!(item.tag() == Tag(0x42_0020) && item.value() == value, "{hex}");
    }
}

#[test]
fn malformed_items_are_named() {
    let tag = 0x42_0069;
    let beyond = |length, left| Reason::BeyondParent { length, left };
    let length = |kind, length| Reason::WrongLength { kind, length };
    let cases = [
        (one(2, 4, &[0; 4]), beyond(4, 4)),
        (one(2, 8, &[0; 8]), length(Kind::Integer, 8)),
        (one(5, 0, &[]), length(Kind::Enumeration, 0)),
        (one(10, 3, &[0; 8]), length(Kind::Interval, 3)),
        (one(6, 4, &[0; 8]), length(Kind::Boolean, 4)),
        (one(6, 0, &[]), length(Kind::Boolean, 0)),
        (one(3, 4, &[0; 8]), length(Kind::LongInteger, 4)),
        (one(9, 16, &[0; 16]), length(Kind::DateTime, 16)),
        (one(4, 0, &[]), length(Kind::BigInteger, 0)),
        (one(4, 7, &[0; 8]), length(Kind::BigInteger, 7)),
        (one(1, 4, &[0; 8]), length(Kind::Structure, 4)),
        (one(0, 4, &[0; 8]), Reason::UnknownType(0)),
        (one(11, 8, &[0; 8]), Reason::UnknownType(11)),
        (one(6, 8, &[0, 0, 0, 0, 0, 0, 0, 2]), Reason::Boolean),
        (one(6, 8, &[1, 0, 0, 0, 0, 0, 0, 1]), Reason::Boolean),
        (one(7, 2, &[0xC3, 0x28, 0, 0, 0, 0, 0, 0]), Reason::Text),
        (one(7, 2, &[65, 65, 0, 0, 0, 0, 0, 1]), Reason::Padding),
        (one(2, 4, &[0, 0, 0, 1, 9, 0, 0, 0]), Reason::Padding),
        (one(7, 2, &[65, 65]), beyond(2, 2)),
        (one(8, 0xFFFF_FFF0, &[0; 8]), beyond(0xFFFF_FFF0, 8)),
        (one(8, u32::MAX, &[0; 8]), beyond(0xFFFF_FFFF, 8)),
        (one(1, 8, &[]), beyond(8, 0)),
    ];
    for (bytes, reason) in cases {
        assert_eq!(fault(&bytes), (tag, 0, reason), "{}", hex::encode(&bytes));
    }
    assert_eq!(fault(&[0x42, 0, 0x69]), (0, 0, Reason::CutHeader { left: 3 }));
    assert_eq!(fault(&[]), (0, 0, Reason::CutHeader { left: 0 }));
    let mut two = one(2, 4, &[0; 8]);
    two.extend(one(2, 4, &[0; 8]));
    assert_eq!(fault(&two), (tag, 0, Reason::Trailing { left: 16 }));
}

#[test]
fn faults_inside_are_placed() {
    let good = one(2, 4, &[0; 8]);
    let mut bad = good.clone();
    bad.extend(one(2, 4, &[0, 0, 0, 0, 1, 0, 0, 0]));
    assert_eq!(fault(&one(1, 32, &bad)), (0x42_0069, 24, Reason::Padding));
    // A child that ends after the structure around it, though inside the message.
    let mut cut = good.clone();
    cut.extend(one(8, 17, &[]));
    let mut outer = one(1, 24, &cut);
    outer.extend([0; 32]);
    let expected = Reason::BeyondParent { length: 17, left: 0 };
    assert_eq!(fault(&outer), (0x42_0069, 24, expected));
    // Structures with a few bytes left over cannot be: lengths are whole eights.
    assert_eq!(
        fault(&one(1, 12, &[0; 16])).2,
        Reason::WrongLength { kind: Kind::Structure, length: 12 }
    );
}

#[test]
fn depth_and_items_are_limited() {
    let nested = |levels: usize| {
        let mut bytes = one(1, 0, &[]);
        for _ in 1..levels {
            let length = u32::try_from(bytes.len()).unwrap();
            bytes = one(1, length, &bytes);
        }
        bytes
    };
    assert!(Item::parse(&nested(MAX_DEPTH)).is_ok());
    let (_, offset, reason) = fault(&nested(MAX_DEPTH + 1));
    assert_eq!((offset, reason), (MAX_DEPTH * HEADER, Reason::Depth { limit: MAX_DEPTH }));
    // Ten thousand levels must not recurse anywhere.
    assert_eq!(fault(&nested(10_000)).2, Reason::Depth { limit: MAX_DEPTH });

    let many = |count: usize| {
        let inner = one(1, 0, &[]).repeat(count - 1);
        one(1, u32::try_from(inner.len()).unwrap(), &inner)
    };
    assert!(Item::parse(&many(MAX_ITEMS)).is_ok());
    assert_eq!(fault(&many(MAX_ITEMS + 1)).2, Reason::Items { limit: MAX_ITEMS });
    let large = one(1, u32::try_from(MAX_MESSAGE).unwrap(), &vec![0; MAX_MESSAGE]);
    assert_eq!(fault(&large).2, Reason::Large { length: MAX_MESSAGE + HEADER, limit: MAX_MESSAGE });
}

#[test]
fn a_header_is_judged_before_anything_is_read() {
    let length = |tag: u32, kind: u8, length: u32| {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&((tag << 8) | u32::from(kind)).to_be_bytes());
        header[4..].copy_from_slice(&length.to_be_bytes());
        frame_length(&header, Tag::RESPONSE_MESSAGE).map_err(|e| e.reason)
    };
    let limit = u32::try_from(MAX_MESSAGE - HEADER).unwrap();
    assert_eq!(length(0x42_007B, 1, 0), Ok(8));
    assert_eq!(length(0x42_007B, 1, limit), Ok(MAX_MESSAGE));
    for (tag, kind, size, reason) in [
        (0x42_0078, 1, 8, Reason::WrongTag { wanted: Tag::RESPONSE_MESSAGE }),
        (0x42_007B, 8, 8, Reason::WrongKind { wanted: Kind::Structure, found: Kind::ByteString }),
        (0x42_007B, 0, 8, Reason::UnknownType(0)),
        (0x42_007B, 1, 12, Reason::WrongLength { kind: Kind::Structure, length: 12 }),
        (0x42_007B, 1, limit + 8, Reason::Large { length: MAX_MESSAGE + 8, limit: MAX_MESSAGE }),
        (0x42_007B, 1, 0xFFFF_FFF0, Reason::Large { length: 0xFFFF_FFF8, limit: MAX_MESSAGE }),
    ] {
        assert_eq!(length(tag, kind, size), Err(reason));
    }
    // What an HTTP server says.
    assert_eq!(
        frame_length(b"HTTP/1.1", Tag::RESPONSE_MESSAGE).unwrap_err().reason,
        Reason::WrongTag { wanted: Tag::RESPONSE_MESSAGE }
    );
}

#[test]
fn fields_are_found_once_and_have_their_type() {
    let mut writer = Writer::default();
    writer.structure(Tag::RESPONSE_PAYLOAD, |w| {
        w.text(Tag::UNIQUE_IDENTIFIER, "1");
        w.integer(Tag(0x54_0001), 7);
        w.integer(Tag::OBJECT_TYPE, 2);
        w.integer(Tag::OBJECT_TYPE, 2);
    });
    let bytes = writer.finish().unwrap();
    let payload = Item::parse(&bytes).unwrap();
    assert_eq!(payload.required(Tag::UNIQUE_IDENTIFIER).unwrap().text(), Ok("1"));
    assert!(payload.optional(Tag::OPERATION).unwrap().is_none());
    let says = |error: TtlvError| error.to_string();
    assert_eq!(
        says(payload.required(Tag::OPERATION).unwrap_err()),
        "Response Payload (42007C) at byte 0: has no Operation (42005C)"
    );
    assert_eq!(
        says(payload.required(Tag::OBJECT_TYPE).unwrap_err()),
        "Response Payload (42007C) at byte 0: has more than one Object Type (420057)"
    );
    let uid = payload.required(Tag::UNIQUE_IDENTIFIER).unwrap();
    assert_eq!(
        says(uid.enumeration().unwrap_err()),
        "Unique Identifier (420094) at byte 8: is a TextString, not a Enumeration"
    );
}

#[test]
fn large_messages_are_not_made() {
    let mut writer = Writer::default();
    writer.structure(Tag::REQUEST_MESSAGE, |w| w.bytes(Tag(1), &vec![0; MAX_MESSAGE]));
    assert!(matches!(writer.finish().unwrap_err().reason, Reason::Large { .. }));
}

proptest::proptest! {
    #[test]
    fn bytes_are_refused_or_encode_to_themselves(
        mut bytes: Vec<u8>, edits in proptest::collection::vec((0usize..200, 0u8..16), 0..4)
    ) {
        let mut good = every_kind().to_vec();
        for (at, value) in edits {
            let at = at % good.len();
            good[at] = value;
        }
        bytes.splice(0..0, [0x42, 0, 0x7B, 1]);
        for candidate in [good, bytes] {
            if let Ok(root) = Item::parse(&candidate) {
                let mut again = Writer::default();
                again.copy(&root);
                assert_eq!(again.finish().unwrap()[..], candidate[..]);
            }
        }
    }
}
