//! The wire format: fixed examples from the protocol text, round trips, and garbage.

use super::negotiation::{
    ClientFlags, ExportQuery, OPTION_HEADER_LEN, OPTION_MAGIC, OptionHeader, ReplyKind, greeting,
    reply, reply_block_size, text,
};
use super::transmission::{
    Action, EXTENDED_REQUEST_LEN, REQUEST_LEN, Request, Shape, command, command_flag, flag,
};
use super::*;
use proptest::prelude::*;

const DISK: Shape = Shape { size: 1 << 20, read_only: false, fast_zero: false };
const PLAIN: Terms = Terms { framing: Framing::Simple, allocation: false };
const STRUCTURED: Terms = Terms { framing: Framing::Structured, allocation: true };
const EXTENDED: Terms = Terms { framing: Framing::Extended, allocation: true };

fn request(command: u16, flags: u16, offset: u64, length: u64) -> Request {
    Request { extended: false, flags, command, cookie: 7, offset, length }
}

#[test]
fn the_greeting_offers_fixed_newstyle_and_no_zeroes_only() {
    assert_eq!(&greeting(), b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn client_flags_that_were_not_offered_are_a_violation() {
    for (flags, zeroes) in [(0u32, true), (1, true), (2, false), (3, false)] {
        assert_eq!(ClientFlags::parse(flags.to_be_bytes()).unwrap().no_zeroes, !zeroes);
    }
    for flags in [4u32, 1 << 31, u32::MAX] {
        let parsed = ClientFlags::parse(flags.to_be_bytes());
        assert_eq!(parsed, Err(Violation::ClientFlags(flags)));
    }
}

#[test]
fn option_headers_need_their_magic() {
    let mut bytes = [0; OPTION_HEADER_LEN];
    assert_eq!(OptionHeader::parse(&bytes), Err(Violation::OptionMagic));
    bytes[..8].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    bytes[8..].copy_from_slice(&[0, 0, 0, 7, 0, 0, 1, 2]);
    assert_eq!(OptionHeader::parse(&bytes), Ok(OptionHeader { option: 7, length: 258 }));
}

#[test]
fn replies_carry_their_exact_length() {
    let mut out = Vec::new();
    reply(&mut out, 9, ReplyKind::Unsupported, &[b"ab", b"c"]);
    let want =
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x09\x80\x00\x00\x01\x00\x00\x00\x03abc";
    assert_eq!(out, want);
    out.clear();
    reply_block_size(&mut out, 7);
    assert_eq!(
        &out[16..],
        b"\x00\x00\x00\x0e\x00\x03\x00\x00\x00\x01\x00\x00\x10\x00\x02\x00\x00\x00"
    );
}

#[test]
fn strings_are_utf8_without_nul_and_of_4096_bytes_at_most() {
    assert_eq!(text("gr\u{fc}n /%".as_bytes()), Some("gr\u{fc}n /%"));
    assert!(text(&[b'x'; MAX_STRING]).is_some());
    assert!(text(&[b'x'; MAX_STRING + 1]).is_none());
    assert!(text(b"a\0b").is_none());
    assert!(text(b"\xff").is_none());
}

#[test]
fn export_queries_whose_lengths_do_not_fit_are_refused() {
    let good = b"\x00\x00\x00\x02hi\x00\x03\x00\x03\xff\xff\x00\x01";
    let query = ExportQuery::parse(good).unwrap();
    assert_eq!(query.name, "hi");
    assert!(query.wants_block_size && query.wants_name && !query.wants_description);
    for cut in 0..good.len() {
        assert_eq!(ExportQuery::parse(&good[..cut]), None, "cut at {cut}");
    }
    for bad in [
        &b"\x00\x00\x00\x02hi\x00\x00\x00"[..], // a byte too many
        b"\x00\x00\x00\x02hi\x00\x01",          // an information request too few
        b"\xff\xff\xff\xffhi\x00\x00",          // a name that reaches outside
        b"\x00\x00\x00\x02\xff\xfe\x00\x00",    // no UTF-8
    ] {
        assert_eq!(ExportQuery::parse(bad), None, "{bad:?}");
    }
}

#[test]
fn commands_and_their_flags() {
    let fua = command_flag::FUA;
    let check = |c, f| request(c, f, 0, 512).check(DISK, PLAIN);
    for (flags, durable) in [(0, false), (fua, true)] {
        assert_eq!(check(command::READ, flags), Ok(Action::Read { whole: false }));
        assert_eq!(check(command::CACHE, flags), Ok(Action::Cache));
        assert_eq!(check(command::FLUSH, flags), Ok(Action::Flush));
        assert_eq!(check(command::WRITE, flags), Ok(Action::Write { durable }));
        assert_eq!(check(command::TRIM, flags), Ok(Action::Trim { durable }));
        let zeroes = Action::WriteZeroes { durable, may_punch: true, fast: false };
        assert_eq!(check(command::WRITE_ZEROES, flags), Ok(zeroes));
        let zeroes = Action::WriteZeroes { durable, may_punch: false, fast: false };
        assert_eq!(check(command::WRITE_ZEROES, flags | command_flag::NO_HOLE), Ok(zeroes));
    }
    // DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN and unknown flags; NO_HOLE where it does not belong.
    for flag in [4, 8, 16, 32, 1 << 15] {
        for c in [command::READ, command::WRITE, command::TRIM, command::WRITE_ZEROES] {
            assert_eq!(check(c, flag), Err(WireError::Invalid), "{c} {flag}");
        }
    }
    assert_eq!(check(command::WRITE, command_flag::NO_HOLE), Err(WireError::Invalid));
    // BLOCK_STATUS without a context, RESIZE, and the rest that does not exist.
    for c in [7, 8, 9, u16::MAX] {
        assert_eq!(check(c, 0), Err(WireError::Invalid));
        assert_eq!(check(c, fua), Err(WireError::Invalid));
    }
    let odd = Request { flags: u16::MAX, ..request(command::DISC, 0, u64::MAX, u64::MAX) };
    assert_eq!(odd.check(DISK, PLAIN), Ok(Action::Disconnect));
}

#[test]
fn ranges_outside_get_the_code_of_their_command() {
    for (offset, length) in
        [(DISK.size, 1), (DISK.size - 1, 2), (u64::MAX, 1), (u64::MAX - 4095, 8192)]
    {
        let check = |c| request(c, 0, offset, length).check(DISK, PLAIN);
        assert_eq!(check(command::READ), Err(WireError::Invalid));
        assert_eq!(check(command::TRIM), Err(WireError::Invalid));
        assert_eq!(check(command::CACHE), Err(WireError::Invalid));
        assert_eq!(check(command::WRITE), Err(WireError::NoSpace));
        assert_eq!(check(command::WRITE_ZEROES), Err(WireError::NoSpace));
    }
    assert!(request(command::READ, 0, DISK.size, 0).check(DISK, PLAIN).is_ok());
}

#[test]
fn payloads_have_a_limit_and_ranges_without_payload_have_none() {
    let huge = Shape { size: 1 << 40, ..DISK };
    let check = |c, length| request(c, 0, 0, length).check(huge, PLAIN);
    for c in [command::READ, command::WRITE] {
        assert!(check(c, u64::from(MAX_PAYLOAD)).is_ok());
        assert_eq!(check(c, u64::from(MAX_PAYLOAD) + 1), Err(WireError::Invalid));
    }
    assert!(check(command::TRIM, u64::from(u32::MAX)).is_ok());
    assert!(check(command::WRITE_ZEROES, u64::from(u32::MAX)).is_ok());
}

#[test]
fn read_only_exports_refuse_changes_and_say_so() {
    let shape = Shape { read_only: true, ..DISK };
    for c in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
        assert_eq!(request(c, 0, 0, 512).check(shape, PLAIN), Err(WireError::Perm));
    }
    assert!(request(command::READ, 0, 0, 512).check(shape, PLAIN).is_ok());
    assert!(request(command::FLUSH, 0, 0, 0).check(shape, PLAIN).is_ok());
    assert_eq!(shape.flags(PLAIN), 0b101_0000_1111);
    assert_eq!(DISK.flags(PLAIN), 0b101_0110_1101);
}

#[test]
fn flags_follow_what_was_agreed_on() {
    let fast = Shape { fast_zero: true, ..DISK };
    let extra = |shape: Shape, terms| shape.flags(terms) & !DISK.flags(PLAIN);
    assert_eq!(extra(fast, PLAIN), flag::SEND_FAST_ZERO);
    assert_eq!(extra(Shape { read_only: true, ..fast }, PLAIN), flag::READ_ONLY);
    assert_eq!(extra(DISK, STRUCTURED), flag::SEND_DF);
    assert_eq!(extra(DISK, EXTENDED), flag::SEND_DF | flag::BLOCK_STATUS_PAYLOAD);
    assert_eq!(extra(DISK, Terms { allocation: false, ..EXTENDED }), flag::SEND_DF);
}

#[test]
fn newer_commands_and_flags_need_their_terms() {
    let fast = Shape { fast_zero: true, ..DISK };
    let one = command_flag::REQ_ONE;
    let dont_fragment = request(command::READ, command_flag::DF, 0, 512);
    assert_eq!(dont_fragment.check(DISK, STRUCTURED), Ok(Action::Read { whole: true }));
    assert_eq!(dont_fragment.check(DISK, EXTENDED), Ok(Action::Read { whole: true }));
    let status = |flags, length| request(command::BLOCK_STATUS, flags, 0, length);
    let answer = Ok(Action::BlockStatus { one: true });
    assert_eq!(status(one, 512).check(DISK, STRUCTURED), answer);
    assert_eq!(status(one, 512).check(DISK, PLAIN), Err(WireError::Invalid));
    assert_eq!(status(0, 0).check(DISK, STRUCTURED), Err(WireError::Invalid));
    assert_eq!(status(0, DISK.size + 1).check(DISK, STRUCTURED), Err(WireError::Invalid));
    let zeroes = request(command::WRITE_ZEROES, command_flag::FAST_ZERO, 0, 512);
    let action = Action::WriteZeroes { durable: false, may_punch: true, fast: true };
    assert_eq!(zeroes.check(fast, PLAIN), Ok(action));
    assert_eq!(zeroes.check(DISK, PLAIN), Err(WireError::Invalid));
}

#[test]
fn extended_requests_say_whether_a_payload_follows() {
    let with = command_flag::PAYLOAD_LEN;
    let request =
        |command, flags, length| Request { extended: true, ..request(command, flags, 0, length) };
    let check = |c, f, length| request(c, f, length).check(DISK, EXTENDED);
    assert_eq!(check(command::WRITE, with, 512), Ok(Action::Write { durable: false }));
    // As QEMU sends it.
    assert_eq!(check(command::WRITE, 0, 512), Ok(Action::Write { durable: false }));
    assert_eq!(request(command::WRITE, 0, 512).payload(), 512);
    for c in [command::READ, command::TRIM, command::WRITE_ZEROES, command::CACHE, command::FLUSH] {
        assert_eq!(request(c, with, 512).payload(), 512);
        assert_eq!(check(c, with, 512), Err(WireError::Invalid));
    }
    let filtered = Ok(Action::FilteredStatus { one: false });
    assert_eq!(check(command::BLOCK_STATUS, with, 12), filtered);
    for length in [0, 8, 11, 13, 16] {
        assert_eq!(check(command::BLOCK_STATUS, with, length), Err(WireError::Invalid));
    }
    let parse = |r: Request| Request::parse(&r.encode(), Framing::Extended);
    assert!(parse(request(command::TRIM, 0, u64::MAX)).is_ok());
    let payload = request(command::TRIM, with, u64::MAX);
    assert_eq!(parse(payload), Err(Violation::PayloadLength(u64::MAX)));
}

#[test]
fn a_payload_that_is_too_long_to_skip_is_a_violation() {
    let parse = |length| {
        let bytes = request(command::WRITE, 0, 0, length).encode();
        Request::parse(&bytes, Framing::Simple)
    };
    let longest = u64::from(MAX_DISCARDED);
    assert!(parse(longest).is_ok());
    assert_eq!(parse(longest + 1), Err(Violation::PayloadLength(longest + 1)));
    let trim = request(command::TRIM, 0, 0, u64::from(u32::MAX)).encode();
    assert!(Request::parse(&trim, Framing::Structured).is_ok());
    for framing in [Framing::Simple, Framing::Extended] {
        assert_eq!(Request::parse(&[0; REQUEST_LEN], framing), Err(Violation::RequestMagic));
        let short = request(command::READ, 0, 0, 1).encode();
        let cut = short.get(..REQUEST_LEN - 1).unwrap();
        assert_eq!(Request::parse(cut, framing), Err(Violation::RequestMagic));
    }
    assert_eq!(Request::parse(&trim, Framing::Extended), Err(Violation::RequestMagic));
    assert!(EXTENDED_REQUEST_LEN > trim.len());
}

proptest! {
    #[test]
    fn requests_round_trip(extended: bool, flags: u16, command: u16, cookie: u64, offset: u64, length in 0..MAX_DISCARDED) {
        let request = Request { extended, flags, command, cookie, offset, length: u64::from(length) };
        let framing = if extended { Framing::Extended } else { Framing::Structured };
        prop_assert_eq!(Request::parse(&request.encode(), framing), Ok(request));
    }

    #[test]
    fn what_is_allowed_lies_inside(extended: bool, flags in 0u16..64, command in 0u16..10, offset in 0u64..3000, length in 0u64..3000, size in 0u64..4000, read_only: bool, far: bool, fast_zero: bool) {
        let offset = if far { u64::MAX - offset } else { offset };
        let request = Request { extended, flags, command, cookie: 0, offset, length };
        let terms = if extended { EXTENDED } else { STRUCTURED };
        match request.check(Shape { size, read_only, fast_zero }, terms) {
            Ok(Action::Disconnect | Action::Flush | Action::FilteredStatus { .. }) | Err(_) => {}
            Ok(action) => {
                prop_assert!(offset.checked_add(length).unwrap() <= size);
                let reads = matches!(action, Action::Read { .. } | Action::Cache | Action::BlockStatus { .. });
                prop_assert!(reads || !read_only);
            }
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ExportQuery::parse(&bytes);
        let _ = text(&bytes);
        if let Some(header) = bytes.first_chunk() {
            let _ = OptionHeader::parse(header);
        }
        let _ = Request::parse(&bytes, Framing::Simple);
        let _ = Request::parse(&bytes, Framing::Extended);
        let _ = super::meta::ContextQuery::parse(&bytes);
    }
}
