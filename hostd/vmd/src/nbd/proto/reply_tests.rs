//! Replies and queries of contexts: fixed examples from the protocol text.

use super::chunk::{
    Head, Kind, MAX_ERROR_BODY, MAX_HEAD, MAX_TEXT, error, error_len, head, head_len,
};
use super::meta::ContextQuery;
use super::status::{self, Filter};
use super::{Framing, WireError};

const ALL: [Framing; 3] = [Framing::Simple, Framing::Structured, Framing::Extended];
const ERRORS: [WireError; 8] = [
    WireError::Perm,
    WireError::Io,
    WireError::NoMemory,
    WireError::Invalid,
    WireError::NoSpace,
    WireError::Overflow,
    WireError::NotSupported,
    WireError::Shutdown,
];

const OF: Head = Head { cookie: 0x0102_0304_0506_0708, offset: 0x1112_1314_1516_1718 };

fn written(write: impl FnOnce(&mut [u8]) -> usize) -> Vec<u8> {
    let mut out = vec![0xEE; 100];
    let length = write(&mut out);
    assert!(out[length..].iter().all(|byte| *byte == 0xEE));
    out.truncate(length);
    out
}

#[test]
fn headers_are_laid_out_as_the_protocol_says() {
    let simple = written(|to| head(to, Framing::Simple, OF, Kind::None, true, 0));
    assert_eq!(simple, b"gDf\x98\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08");
    let structured =
        written(|to| head(to, Framing::Structured, OF, Kind::OffsetData, false, 0x0102));
    let want = b"\x66\x8e\x33\xef\0\0\0\x01\x01\x02\x03\x04\x05\x06\x07\x08\0\0\x01\x02";
    assert_eq!(structured, want);
    let extended = written(|to| head(to, Framing::Extended, OF, Kind::OffsetHole, true, 12));
    let want = b"\x6e\x8a\x27\x8c\0\x01\0\x02\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18\0\0\0\0\0\0\0\x0c";
    assert_eq!(extended, want);
    for framing in ALL {
        assert!(head_len(framing) <= MAX_HEAD);
        let len = written(|to| head(to, framing, OF, Kind::None, true, 0)).len();
        assert_eq!(len, head_len(framing));
    }
}

#[test]
fn errors_carry_their_code_a_text_and_where() {
    let simple = written(|to| error(to, Framing::Simple, OF, WireError::Shutdown, Some(1)));
    assert_eq!(simple[..8], *b"gDf\x98\0\0\0\x6c");
    let chunk = written(|to| error(to, Framing::Structured, OF, WireError::Io, Some(0x0a0b)));
    assert_eq!(chunk[4..8], *b"\0\x01\x80\x02");
    assert_eq!(chunk[20..26], *b"\0\0\0\x05\0\x12");
    assert_eq!(chunk[26..], *b"the storage failed\0\0\0\0\0\0\x0a\x0b");
    for (framing, wire) in ALL.into_iter().flat_map(|f| ERRORS.map(|e| (f, e))) {
        assert!(wire.text().len() <= MAX_TEXT && wire.code() != 0);
        let whole = written(|to| error(to, framing, OF, wire, None));
        assert_eq!(whole.len(), error_len(framing, wire));
        let longest = written(|to| error(to, framing, OF, wire, Some(0))).len();
        assert!(longest <= head_len(framing) + MAX_ERROR_BODY);
        assert!(
            error(&mut [0; 3], framing, OF, wire, None) > 3,
            "too small a place does not panic"
        );
    }
}

#[test]
fn extents_have_32_or_64_bits() {
    let body = |framing| {
        let mut out = written(|to| status::start(to, framing, 2));
        out.extend(written(|to| status::extent(to, framing, 4096, true)));
        out.extend(written(|to| status::extent(to, framing, 5 << 32, false)));
        assert_eq!(out.len(), status::shape(framing, 2).1);
        out
    };
    let want = b"\0\0\0\x01\0\0\x10\0\0\0\0\x03\xff\xff\xff\xff\0\0\0\0";
    assert_eq!(body(Framing::Structured), want);
    let want = b"\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\x03\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0";
    assert_eq!(body(Framing::Extended), want);
    let filter = Filter::parse(b"\0\0\0\x01\0\0\0\x02\0\0\0\x01");
    assert_eq!(filter, Some(Filter { length: (1 << 32) + 2, context: 1 }));
}

fn query(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut out = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    out.extend(name.as_bytes());
    out.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    for query in queries {
        out.extend(u32::try_from(query.len()).unwrap().to_be_bytes());
        out.extend(query.as_bytes());
    }
    out
}

#[test]
fn queries_list_by_wildcard_and_select_by_name_only() {
    for (queries, lists, selects) in [
        (&[][..], true, false),
        (&["base:"], true, false),
        (&["base:allocation"], true, true),
        (&["base:allocation", "base:allocation", "x:y"], true, true),
        (&["base:allocations", "base", "", ":", "qemu:", "x-y:base:allocation"], false, false),
    ] {
        let data = query("disk", queries);
        let parsed = ContextQuery::parse(&data).unwrap();
        assert_eq!((parsed.name, parsed.lists(), parsed.selects()), ("disk", lists, selects));
        for cut in 0..data.len() {
            assert_eq!(ContextQuery::parse(&data[..cut]), None, "{queries:?} cut at {cut}");
        }
        let longer = [&data[..], b"x"].concat();
        assert_eq!(ContextQuery::parse(&longer), None);
    }
    let mut many = query("", &[]);
    many[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(ContextQuery::parse(&many), None);
    let long = "x".repeat(super::MAX_STRING + 1);
    assert_eq!(ContextQuery::parse(&query("", &[&long])), None);
    assert_eq!(ContextQuery::parse(&query("a\0b", &[])), None);
}
