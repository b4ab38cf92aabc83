//! Sequences of valid commands, in any pieces, against a plain array: every reply must parse, carry the cookie of a
//! request that has none yet, and hold what the array holds.

#![no_main]

use crypto::Unit;
use fuzz::session;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use std::ops::Range;
use vmd::nbd::proto::transmission::{
    REPLY_LEN, Request, SIMPLE_REPLY_MAGIC, command, command_flag,
};

const SIZE: usize = 64 * 1024;

/// Commands of one input, so that each is quick.
const MOST: usize = 64;

/// Client flags FIXED_NEWSTYLE and NO_ZEROES, then EXPORT_NAME: afterwards only simple replies are allowed.
const HANDSHAKE: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x04root";

/// Greeting, and the answer to EXPORT_NAME: size and flags.
const ANSWER_LEN: usize = 18 + 8 + 2;

const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

#[derive(Debug, Arbitrary)]
struct Input {
    small_units: bool,
    pieces: [u8; 6],
    commands: Vec<Command>,
}

#[derive(Debug, Arbitrary)]
enum Command {
    Read {
        at: Place,
        length: u16,
    },
    Write {
        at: Place,
        length: u16,
        seed: u8,
        durable: bool,
    },
    Trim {
        at: Place,
        length: u16,
        durable: bool,
    },
    Zero {
        at: Place,
        length: u16,
        durable: bool,
        no_hole: bool,
    },
    Flush,
    /// A command that does not exist.
    Odd {
        number: u8,
        flags: u8,
    },
}

/// Where a command starts: anywhere up to a little past the end, often at a sector.
#[derive(Debug, Arbitrary)]
enum Place {
    Byte(u16),
    Sector(u8),
    Beyond(u8),
    Far(u64),
}

impl Place {
    fn offset(&self) -> u64 {
        match self {
            Self::Byte(at) => u64::from(*at),
            Self::Sector(number) => u64::from(*number) * 512,
            Self::Beyond(more) => u64::try_from(SIZE).unwrap_or(0) + u64::from(*more),
            Self::Far(at) => *at,
        }
    }
}

/// What is known of the volume.
struct Model {
    bytes: Vec<u8>,
    /// Trimmed: the byte is as before, or zero.
    trimmed: Vec<bool>,
}

/// The reply that a request must get.
enum Expected {
    Done,
    Data(Vec<u8>, Vec<bool>),
    /// One of these errors; any error when there are none.
    Error(&'static [u32]),
    /// A request for no bytes, on which the protocol does not settle.
    Anything,
}

impl Model {
    fn range(&self, offset: u64, length: u16) -> Option<Range<usize>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::from(length))?;
        (end <= self.bytes.len()).then_some(start..end)
    }

    fn apply(&mut self, command: &Command) -> Expected {
        match command {
            Command::Read { length: 0, .. }
            | Command::Write { length: 0, .. }
            | Command::Trim { length: 0, .. }
            | Command::Zero { length: 0, .. } => Expected::Anything,
            Command::Read { at, length } => match self.range(at.offset(), *length) {
                Some(range) => {
                    Expected::Data(self.bytes[range.clone()].to_vec(), self.trimmed[range].to_vec())
                }
                None => Expected::Error(&[EINVAL]),
            },
            Command::Write { at, length, seed, .. } => {
                self.change(at, *length, |bytes| bytes.copy_from_slice(&data(*length, *seed)))
            }
            Command::Zero { at, length, .. } => self.change(at, *length, |bytes| bytes.fill(0)),
            Command::Trim { at, length, .. } => match self.range(at.offset(), *length) {
                Some(range) => {
                    self.trimmed[range].fill(true);
                    Expected::Done
                }
                None => Expected::Error(&[EINVAL, ENOSPC]),
            },
            Command::Flush => Expected::Done,
            Command::Odd { .. } => Expected::Error(&[]),
        }
    }

    fn change(&mut self, at: &Place, length: u16, how: impl FnOnce(&mut [u8])) -> Expected {
        let Some(range) = self.range(at.offset(), length) else {
            return Expected::Error(&[ENOSPC, EINVAL]);
        };
        how(&mut self.bytes[range.clone()]);
        self.trimmed[range].fill(false);
        Expected::Done
    }

    fn fits(data: &[u8], bytes: &[u8], trimmed: &[bool]) -> bool {
        let known = bytes.iter().zip(trimmed);
        data.len() == bytes.len()
            && data
                .iter()
                .zip(known)
                .all(|(is, (was, trimmed))| is == was || (*trimmed && *is == 0))
    }
}

/// Bytes of a write; none is zero, so that lost ones show.
fn data(length: u16, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(7) ^ u16::from(seed)).to_be_bytes()[1] | 1).collect()
}

/// The request on the wire.
fn encode(command: &Command, cookie: u64) -> Vec<u8> {
    let fua = |durable: bool| if durable { command_flag::FUA } else { 0 };
    let header = |command, flags, at: &Place, length: u16| {
        let request =
            Request { flags, command, cookie, offset: at.offset(), length: u32::from(length) };
        request.encode().to_vec()
    };
    match command {
        Command::Read { at, length } => header(command::READ, 0, at, *length),
        Command::Write { at, length, seed, durable } => {
            let mut out = header(command::WRITE, fua(*durable), at, *length);
            out.extend(data(*length, *seed));
            out
        }
        Command::Trim { at, length, durable } => header(command::TRIM, fua(*durable), at, *length),
        Command::Zero { at, length, durable, no_hole } => {
            let flags = fua(*durable) | if *no_hole { command_flag::NO_HOLE } else { 0 };
            header(command::WRITE_ZEROES, flags, at, *length)
        }
        Command::Flush => header(command::FLUSH, 0, &Place::Byte(0), 0),
        // Numbers from 64 on are far from any that the protocol has.
        Command::Odd { number, flags } => {
            header(64 + u16::from(*number), u16::from(*flags), &Place::Byte(0), 0)
        }
    }
}

/// Takes one reply off the stream and checks it.
fn check(said: &mut &[u8], expected: &mut HashMap<u64, Expected>) {
    let (reply, rest) = said.split_first_chunk::<REPLY_LEN>().expect("half a reply");
    *said = rest;
    let [magic, error] = [0, 4].map(|at| {
        reply[at..].first_chunk().copied().map(u32::from_be_bytes).expect("a reply has 16 bytes")
    });
    assert_eq!(magic, SIMPLE_REPLY_MAGIC);
    let cookie = reply.last_chunk().copied().map(u64::from_be_bytes).expect("16 bytes");
    match expected.remove(&cookie).expect("a reply to nothing that was asked") {
        Expected::Done => assert_eq!(error, 0),
        Expected::Data(bytes, trimmed) => {
            assert_eq!(error, 0);
            let (data, rest) = said.split_at_checked(bytes.len()).expect("the data is cut");
            *said = rest;
            assert!(Model::fits(data, &bytes, &trimmed), "a read differs from the model");
        }
        Expected::Error(codes) => {
            assert!(error != 0 && (codes.is_empty() || codes.contains(&error)), "error {error}");
        }
        Expected::Anything => {}
    }
}

fuzz_target!(|input: Input| {
    let unit = if input.small_units { Unit::B512 } else { Unit::B4096 };
    let export = session::export(SIZE, unit, false);
    let mut model = Model { bytes: vec![0; SIZE], trimmed: vec![false; SIZE] };
    let (mut stream, mut expected) = (HANDSHAKE.to_vec(), HashMap::new());
    for (number, command) in (0_u64..).zip(input.commands.iter().take(MOST)) {
        // Cookies are opaque: they need not count up.
        let cookie = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        stream.extend(encode(command, cookie));
        expected.insert(cookie, model.apply(command));
    }
    let (said, ended) = session::run(&export, &stream, &input.pieces);
    assert!(ended.is_ok(), "a client without a fault was cut: {ended:?}");
    let mut replies = said.get(ANSWER_LEN..).expect("the answer to the handshake");
    while !replies.is_empty() {
        check(&mut replies, &mut expected);
    }
    assert!(expected.is_empty(), "{} requests got no reply", expected.len());
    let mut content = vec![0; SIZE];
    export.volume().read(0, &mut content).expect("memory can be read");
    assert!(Model::fits(&content, &model.bytes, &model.trimmed), "the volume differs in the end");
});
