//! The negotiation, message by message, without a socket.

use super::super::proto::Framing;
use super::super::proto::negotiation::{OPTION_MAGIC, REPLY_MAGIC};
use super::*;
use proptest::prelude::*;

const OFFER: Offer<'_> = Offer {
    name: "root",
    description: "disk root",
    shape: Shape { size: 0x1234, read_only: false, fast_zero: false },
    stopping: false,
};

fn opt(option: u32, data: &[u8]) -> Vec<u8> {
    let mut out = OPTION_MAGIC.to_be_bytes().to_vec();
    out.extend(option.to_be_bytes());
    out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
    out
}

fn go_data(name: &str, infos: &[u16]) -> Vec<u8> {
    let mut out = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    out.extend(name.as_bytes());
    out.extend(u16::try_from(infos.len()).unwrap().to_be_bytes());
    out.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    out
}

/// Option, kind and data of an option reply.
type Said = (u32, u32, Vec<u8>);

/// Feeds everything at once after client flags of 3, and returns what came back.
fn talk(input: &[u8]) -> (Result<(usize, Verdict), Violation>, Vec<Said>) {
    let (result, out) = talk_raw(3, OFFER, input);
    (result, replies(&out))
}

fn talk_raw(
    flags: u32,
    offer: Offer<'_>,
    input: &[u8],
) -> (Result<(usize, Verdict), Violation>, Vec<u8>) {
    let mut bytes = flags.to_be_bytes().to_vec();
    bytes.extend(input);
    let mut out = Vec::new();
    let result = Negotiation::new().feed(&bytes, &[offer], &mut out);
    (result.map(|(used, verdict)| (used - 4, verdict)), out)
}

/// Cuts a stream of option replies into (option, kind, data).
fn replies(mut out: &[u8]) -> Vec<Said> {
    let mut found = Vec::new();
    while !out.is_empty() {
        let be32 = |at: usize| u32::from_be_bytes(out[at..at + 4].try_into().unwrap());
        assert_eq!(out[..8], REPLY_MAGIC.to_be_bytes());
        let len = usize::try_from(be32(16)).unwrap();
        found.push((be32(8), be32(12), out[20..20 + len].to_vec()));
        out = &out[20 + len..];
    }
    found
}

const ACK: u32 = 1;
const UNSUP: u32 = 0x8000_0001;
const INVALID: u32 = 0x8000_0003;
const UNKNOWN: u32 = 0x8000_0006;
const SHUTDOWN: u32 = 0x8000_0007;
const TOO_BIG: u32 = 0x8000_0009;

#[test]
fn every_unknown_option_is_refused_with_its_data_consumed() {
    for option in [0, 4, 5, 12, 999, u32::MAX] {
        let mut input = opt(option, &[0x5a; 77]);
        input.extend(opt(option, &[]));
        input.extend(opt(option::LIST, &[]));
        let (result, said) = talk(&input);
        assert_eq!(result, Ok((input.len(), Verdict::More)));
        let kinds: Vec<_> = said.iter().map(|(o, k, _)| (*o, *k)).collect();
        assert_eq!(kinds, [(option, UNSUP), (option, UNSUP), (3, 2), (3, ACK)]);
    }
}

#[test]
fn list_names_the_export_and_refuses_data() {
    let (_, said) = talk(&opt(option::LIST, &[]));
    assert_eq!(said, [(3, 2, b"\0\0\0\x04root".to_vec()), (3, ACK, vec![])]);
    let (result, said) = talk(&opt(option::LIST, b"x"));
    assert_eq!((result.unwrap().1, said[0].1), (Verdict::More, INVALID));
}

#[test]
fn abort_is_acknowledged_even_with_data() {
    for data in [&b""[..], b"bye"] {
        let input = opt(option::ABORT, data);
        let (result, said) = talk(&input);
        assert_eq!(result, Ok((input.len(), Verdict::Close)));
        assert_eq!(said, [(2, ACK, vec![])]);
    }
}

#[test]
fn info_then_go_say_the_same_and_transmission_begins_at_once() {
    let data = go_data("root", &[3, 0x7777, 1, 2]);
    let mut input = opt(option::INFO, &data);
    input.extend(opt(option::GO, &data));
    let used = input.len();
    input.extend([0x25, 0x60]); // the first bytes of a request
    let (result, said) = talk(&input);
    assert_eq!(result, Ok((used, Verdict::Transmit(0, Terms::default()))));
    let strip = |o: u32| -> Vec<_> {
        said.iter().filter(|r| r.0 == o).map(|(_, k, d)| (*k, d.clone())).collect()
    };
    assert_eq!(strip(option::INFO), strip(option::GO));
    let export = b"\0\0\0\0\0\0\0\0\x12\x34\x05\x6d".to_vec();
    let sizes = b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0".to_vec();
    let name = b"\0\x01root".to_vec();
    let description = b"\0\x02disk root".to_vec();
    let want = [(3, export), (3, name), (3, description), (3, sizes), (ACK, vec![])];
    assert_eq!(strip(option::GO), want);
}

#[test]
fn only_the_export_is_told_when_nothing_is_asked_for_and_empty_means_default() {
    let (result, said) = talk(&opt(option::GO, &go_data("", &[])));
    assert_eq!(result.unwrap().1, Verdict::Transmit(0, Terms::default()));
    assert_eq!(said.iter().map(|r| r.1).collect::<Vec<_>>(), [3, ACK]);
}

#[test]
fn an_unknown_export_is_refused_and_negotiation_goes_on() {
    for name in ["other", "/root", "root/", "roo", "ROOT", " "] {
        let mut input = opt(option::GO, &go_data(name, &[0, 1, 2, 3]));
        input.extend(opt(option::GO, &go_data("root", &[])));
        let (result, said) = talk(&input);
        assert_eq!(result, Ok((input.len(), Verdict::Transmit(0, Terms::default()))), "{name}");
        assert_eq!(said.iter().map(|r| r.1).collect::<Vec<_>>(), [UNKNOWN, 3, ACK]);
    }
}

#[test]
fn malformed_queries_are_invalid_and_consumed() {
    for data in [&b""[..], b"\0\0\0\x05ab\0\0", b"\0\0\0\0\0\x02\0\x01", b"\0\0\0\x01\xff\0\0"] {
        for option in [option::INFO, option::GO] {
            let mut input = opt(option, data);
            input.extend(opt(option::ABORT, &[]));
            let (result, said) = talk(&input);
            assert_eq!(result, Ok((input.len(), Verdict::Close)));
            assert_eq!(said.iter().map(|r| r.1).collect::<Vec<_>>(), [INVALID, ACK]);
        }
    }
}

#[test]
fn export_name_pads_unless_both_agreed_not_to() {
    for (flags, length) in [(1, 10 + 124), (0, 10 + 124), (3, 10), (2, 10)] {
        for name in ["root", ""] {
            let input = opt(option::EXPORT_NAME, name.as_bytes());
            let (result, out) = talk_raw(flags, OFFER, &input);
            assert_eq!(result, Ok((input.len(), Verdict::Transmit(0, Terms::default()))));
            assert_eq!(out.len(), length);
            assert_eq!(&out[..10], b"\0\0\0\0\0\0\x12\x34\x05\x6d");
            assert!(out[10..].iter().all(|byte| *byte == 0));
        }
    }
    for name in [&b"other"[..], b"\xff", b"ro\0t"] {
        let (result, out) = talk_raw(3, OFFER, &opt(option::EXPORT_NAME, name));
        assert_eq!((result, out), (Err(Violation::UnknownExport), vec![]));
    }
}

#[test]
fn an_export_that_stops_turns_clients_away() {
    let offer = Offer { stopping: true, ..OFFER };
    let mut input = opt(option::LIST, &[]);
    input.extend(opt(option::GO, &go_data("root", &[])));
    input.extend(opt(77, b"x"));
    input.extend(opt(option::ABORT, &[]));
    let (result, out) = talk_raw(3, offer, &input);
    assert_eq!(result, Ok((input.len(), Verdict::Close)));
    let kinds: Vec<_> = replies(&out).iter().map(|r| r.1).collect();
    assert_eq!(kinds, [SHUTDOWN, SHUTDOWN, SHUTDOWN, ACK]);
    let (result, _) = talk_raw(3, offer, &opt(option::EXPORT_NAME, b"root"));
    assert_eq!(result, Err(Violation::UnknownExport));
}

#[test]
fn long_options_are_skipped_longer_ones_and_endless_ones_end_the_session() {
    let long = vec![0; usize::try_from(MAX_SKIPPED_OPTION).unwrap()];
    let mut input = opt(option::GO, &long);
    input.extend(opt(option::LIST, &[]));
    let (result, said) = talk(&input);
    assert_eq!(result, Ok((input.len(), Verdict::More)));
    assert_eq!(said.iter().map(|r| r.1).collect::<Vec<_>>(), [TOO_BIG, 2, ACK]);

    let longer = vec![0; long.len() + 1];
    let (result, _) = talk(&opt(option::GO, &longer));
    assert_eq!(result, Err(Violation::OptionLength(MAX_SKIPPED_OPTION + 1)));

    let many = opt(99, &[]).repeat(usize::try_from(MAX_OPTIONS).unwrap() + 1);
    let (result, said) = talk(&many);
    assert_eq!(result, Err(Violation::TooManyOptions(MAX_OPTIONS)));
    assert_eq!(said.len(), usize::try_from(MAX_OPTIONS).unwrap());
}

#[test]
fn broken_framing_ends_the_session_without_a_reply() {
    let (result, said) = talk(&[0; 16]);
    assert_eq!((result, said), (Err(Violation::OptionMagic), vec![]));
    let (result, out) = talk_raw(7, OFFER, &[]);
    assert_eq!((result, out), (Err(Violation::ClientFlags(7)), vec![]));
}

fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut out = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    out.extend(name.as_bytes());
    out.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    for query in queries {
        out.extend(u32::try_from(query.len()).unwrap().to_be_bytes());
        out.extend(query.as_bytes());
    }
    out
}

/// The terms that a session of these options ends with.
fn terms(options: &[(u32, Vec<u8>)]) -> Terms {
    let mut input: Vec<u8> = options.iter().flat_map(|(o, data)| opt(*o, data)).collect();
    input.extend(opt(option::GO, &go_data("root", &[])));
    match talk(&input).0 {
        Ok((_, Verdict::Transmit(0, terms))) => terms,
        other => panic!("{other:?}"),
    }
}

#[test]
fn framing_and_context_are_what_was_asked_for_last() {
    let structured = (option::STRUCTURED_REPLY, vec![]);
    let extended = (option::EXTENDED_HEADERS, vec![]);
    let set = |name: &str, queries: &[&str]| (option::SET_META_CONTEXT, contexts(name, queries));
    let select = set("root", &["base:allocation"]);
    let yes = |framing| Terms { framing, allocation: true };
    let no = |framing| Terms { framing, allocation: false };
    let s = || structured.clone();
    assert_eq!(terms(&[]), no(Framing::Simple));
    assert_eq!(terms(std::slice::from_ref(&select)), no(Framing::Simple));
    assert_eq!(terms(&[s(), select.clone()]), yes(Framing::Structured));
    assert_eq!(terms(&[extended.clone(), s(), select.clone()]), yes(Framing::Extended));
    assert_eq!(terms(&[s(), select.clone(), extended]), yes(Framing::Extended));
    for later in [
        set("root", &[]),
        set("root", &["base:"]),
        set("root", &["base:other", "qemu:allocation-depth"]),
        set("", &["base:allocation"]),
        set("other", &["base:allocation"]),
        (option::SET_META_CONTEXT, b"x".to_vec()),
    ] {
        assert_eq!(terms(&[s(), select.clone(), later]), no(Framing::Structured));
    }
}

/// A session of sensible and senseless options.
fn session() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![
        Just(go_data("root", &[0, 3])),
        Just(go_data("nobody", &[])),
        Just(contexts("root", &["base:allocation"])),
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec((0u32..12, data), 0..8).prop_map(|options| {
        let mut bytes = vec![0, 0, 0, 3];
        bytes.extend(options.into_iter().flat_map(|(option, data)| opt(option, &data)));
        bytes
    })
}

proptest! {
    #[test]
    fn it_does_not_matter_how_the_bytes_are_cut(bytes in session(), step in 1usize..50) {
        let mut whole = Vec::new();
        let at_once = Negotiation::new().feed(&bytes, &[OFFER], &mut whole);

        let (mut pieces, mut negotiation) = (Vec::new(), Negotiation::new());
        let (mut used, mut have) = (0, 0);
        let mut verdict = Ok(Verdict::More);
        while verdict == Ok(Verdict::More) && have < bytes.len() {
            have = (have + step).min(bytes.len());
            verdict = negotiation.feed(&bytes[used..have], &[OFFER], &mut pieces).map(|(n, v)| { used += n; v });
        }
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(at_once.map(|(_, v)| v), verdict);
        if let Ok((n, _)) = at_once {
            prop_assert_eq!(n, used);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut out = Vec::new();
        if let Ok((used, _)) = Negotiation::new().feed(&bytes, &[OFFER], &mut out) {
            prop_assert!(used <= bytes.len());
        }
    }
}
