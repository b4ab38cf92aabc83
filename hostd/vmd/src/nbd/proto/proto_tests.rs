//! The wire format: fixed examples from the protocol text, round trips, and garbage.

use super::negotiation::{
    ClientFlags, ExportQuery, OPTION_HEADER_LEN, OPTION_MAGIC, OptionHeader, ReplyKind, greeting,
    reply, reply_block_size, text,
};
use super::transmission::{
    Action, REQUEST_LEN, Request, Shape, command, command_flag, simple_reply,
};
use super::*;
use proptest::prelude::*;

const DISK: Shape = Shape { size: 1 << 20, read_only: false };

fn request(command: u16, flags: u16, offset: u64, length: u32) -> Request {
    Request { flags, command, cookie: 7, offset, length }
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
    let check = |c, f| request(c, f, 0, 512).check(DISK);
    for (flags, durable) in [(0, false), (fua, true)] {
        assert_eq!(check(command::READ, flags), Ok(Action::Read));
        assert_eq!(check(command::FLUSH, flags), Ok(Action::Flush));
        assert_eq!(check(command::WRITE, flags), Ok(Action::Write { durable }));
        assert_eq!(check(command::TRIM, flags), Ok(Action::Trim { durable }));
        let zeroes = Action::WriteZeroes { durable, may_punch: true };
        assert_eq!(check(command::WRITE_ZEROES, flags), Ok(zeroes));
        let zeroes = Action::WriteZeroes { durable, may_punch: false };
        assert_eq!(check(command::WRITE_ZEROES, flags | command_flag::NO_HOLE), Ok(zeroes));
    }
    // DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN and unknown flags; NO_HOLE where it does not belong.
    for flag in [4, 8, 16, 32, 1 << 15] {
        for c in [command::READ, command::WRITE, command::TRIM, command::WRITE_ZEROES] {
            assert_eq!(check(c, flag), Err(WireError::Invalid), "{c} {flag}");
        }
    }
    assert_eq!(check(command::WRITE, command_flag::NO_HOLE), Err(WireError::Invalid));
    // CACHE, BLOCK_STATUS and RESIZE are not advertised; the rest does not exist.
    for c in [5, 7, 8, 9, u16::MAX] {
        assert_eq!(check(c, 0), Err(WireError::Invalid));
        assert_eq!(check(c, fua), Err(WireError::Invalid));
    }
    let odd = Request { flags: u16::MAX, ..request(command::DISC, 0, u64::MAX, u32::MAX) };
    assert_eq!(odd.check(DISK), Ok(Action::Disconnect));
}

#[test]
fn ranges_outside_get_the_code_of_their_command() {
    for (offset, length) in
        [(DISK.size, 1), (DISK.size - 1, 2), (u64::MAX, 1), (u64::MAX - 4095, 8192)]
    {
        let check = |c| request(c, 0, offset, length).check(DISK);
        assert_eq!(check(command::READ), Err(WireError::Invalid));
        assert_eq!(check(command::TRIM), Err(WireError::Invalid));
        assert_eq!(check(command::WRITE), Err(WireError::NoSpace));
        assert_eq!(check(command::WRITE_ZEROES), Err(WireError::NoSpace));
    }
    assert!(request(command::READ, 0, DISK.size, 0).check(DISK).is_ok());
}

#[test]
fn payloads_have_a_limit_and_ranges_without_payload_have_none() {
    let huge = Shape { size: 1 << 40, read_only: false };
    let check = |c, length| request(c, 0, 0, length).check(huge);
    for c in [command::READ, command::WRITE] {
        assert!(check(c, MAX_PAYLOAD).is_ok());
        assert_eq!(check(c, MAX_PAYLOAD + 1), Err(WireError::Invalid));
    }
    assert!(check(command::TRIM, u32::MAX).is_ok());
    assert!(check(command::WRITE_ZEROES, u32::MAX).is_ok());
}

#[test]
fn read_only_exports_refuse_changes_and_say_so() {
    let shape = Shape { read_only: true, ..DISK };
    for c in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
        assert_eq!(request(c, 0, 0, 512).check(shape), Err(WireError::Perm));
    }
    assert!(request(command::READ, 0, 0, 512).check(shape).is_ok());
    assert!(request(command::FLUSH, 0, 0, 0).check(shape).is_ok());
    assert_eq!(shape.flags(), 0b1_0000_1111);
    assert_eq!(DISK.flags(), 0b1_0110_1101);
}

#[test]
fn simple_replies_echo_the_cookie() {
    assert_eq!(
        simple_reply(0x0102_0304_0506_0708, None),
        *b"gDf\x98\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08"
    );
    assert_eq!(simple_reply(u64::MAX, Some(WireError::Shutdown))[4..8], 108u32.to_be_bytes());
}

#[test]
fn a_write_that_is_too_long_to_skip_is_a_violation() {
    let parse = |length| Request::parse(&request(command::WRITE, 0, 0, length).encode());
    assert!(parse(MAX_DISCARDED).is_ok());
    assert_eq!(parse(MAX_DISCARDED + 1), Err(Violation::WriteLength(MAX_DISCARDED + 1)));
    assert!(Request::parse(&request(command::TRIM, 0, 0, u32::MAX).encode()).is_ok());
    assert_eq!(Request::parse(&[0; REQUEST_LEN]), Err(Violation::RequestMagic));
}

proptest! {
    #[test]
    fn requests_round_trip(flags: u16, command: u16, cookie: u64, offset: u64, length in 0..MAX_DISCARDED) {
        let request = Request { flags, command, cookie, offset, length };
        prop_assert_eq!(Request::parse(&request.encode()), Ok(request));
    }

    #[test]
    fn what_is_allowed_lies_inside(flags: u16, command in 0u16..10, offset: u64, length: u32, size: u64, read_only: bool) {
        let request = Request { flags, command, cookie: 0, offset, length };
        match request.check(Shape { size, read_only }) {
            Ok(Action::Disconnect | Action::Flush) | Err(_) => {}
            Ok(action) => {
                prop_assert!(offset.checked_add(u64::from(length)).unwrap() <= size);
                prop_assert!(action == Action::Read || !read_only);
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
        if let Some(request) = bytes.first_chunk() {
            let _ = Request::parse(request);
        }
    }
}
