//! The NBD protocol as a client sees it, written from the protocol alone so that it shares no mistake with the server.
//!
//! Owns the bytes of handshake, requests and replies in all three framings (NBD protocol, doc/proto.md, and its
//! extension for 64 bits). Must not know what a reply should say. A reply that does not parse is a panic.

use libfuzzer_sys::arbitrary::{self, Arbitrary};

/// How requests and replies are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Framing {
    /// Compact requests, simple replies.
    Simple,
    /// Compact requests, structured replies.
    Structured,
    /// Extended requests and replies.
    Extended,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// `NBD_CMD_*`.
    pub command: u16,
    /// `NBD_CMD_FLAG_*`.
    pub flags: u16,
    /// Opaque.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u32,
}

/// One message of the server.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// Of the request that it answers.
    pub cookie: u64,
    /// The last of the reply.
    pub done: bool,
    /// What it says.
    pub body: Body<'a>,
}

/// What a message says.
#[derive(Debug)]
pub enum Body<'a> {
    /// Success, and nothing more.
    Nothing,
    /// Bytes at an offset; a simple reply does not say which.
    Data(Option<u64>, &'a [u8]),
    /// Zeros at an offset.
    Hole(u64, u32),
    /// Lengths and states of extents.
    Status(Vec<(u64, u64)>),
    /// An error.
    Error(u32),
}

const SIMPLE: u32 = 0x6744_6698;
const STRUCTURED: u32 = 0x668e_33ef;
const EXTENDED: u32 = 0x6e8a_278c;
const EXPORT: &[u8] = b"\0\0\0\x04root";
const GO: u32 = 7;

impl Framing {
    /// What the client says until transmission begins: flags, this framing, `base:allocation` where it can be had, GO.
    #[must_use]
    pub fn handshake(self) -> Vec<u8> {
        let mut out = vec![0, 0, 0, 3];
        match self {
            Self::Simple => {}
            Self::Structured => option(&mut out, 8, &[]),
            Self::Extended => option(&mut out, 11, &[]),
        }
        if self != Self::Simple {
            option(
                &mut out,
                10,
                &[EXPORT, &[0, 0, 0, 1, 0, 0, 0, 15], b"base:allocation"].concat(),
            );
        }
        option(&mut out, GO, &[EXPORT, &[0, 0]].concat());
        out
    }

    /// The bytes of a request without its payload.
    #[must_use]
    pub fn request(self, request: Request) -> Vec<u8> {
        let extended = self == Self::Extended;
        let magic: u32 = if extended { 0x21e4_1c71 } else { 0x2560_9513 };
        let mut out = magic.to_be_bytes().to_vec();
        out.extend(request.flags.to_be_bytes());
        out.extend(request.command.to_be_bytes());
        out.extend(request.cookie.to_be_bytes());
        out.extend(request.offset.to_be_bytes());
        if extended {
            out.extend(u64::from(request.length).to_be_bytes());
        } else {
            out.extend(request.length.to_be_bytes());
        }
        out
    }

    /// Takes one message off `said`. `data` tells how many bytes follow the simple reply to a cookie.
    ///
    /// # Panics
    /// When it is none of this framing.
    pub fn take<'a>(self, said: &mut &'a [u8], data: impl Fn(u64) -> usize) -> Chunk<'a> {
        let magic = be32(said);
        if magic == SIMPLE && self != Self::Extended {
            let (error, cookie) = (be32(said), be64(said));
            let length = if error == 0 { data(cookie) } else { 0 };
            assert!(length == 0 || self == Self::Simple, "a simple reply with data");
            let body = match (error, length) {
                (0, 0) => Body::Nothing,
                (0, length) => Body::Data(None, bytes(said, length)),
                (error, _) => Body::Error(error),
            };
            return Chunk { cookie, done: true, body };
        }
        let want = if self == Self::Extended { EXTENDED } else { STRUCTURED };
        assert!(magic == want && self != Self::Simple, "no magic of a reply: {magic:#x}");
        let (flags, kind, cookie) = (be16(said), be16(said), be64(said));
        assert!(flags <= 1, "flags of a chunk: {flags}");
        let length = if self == Self::Extended {
            be64(said);
            be64(said)
        } else {
            u64::from(be32(said))
        };
        let mut payload = bytes(said, usize::try_from(length).expect("a length in memory"));
        Chunk { cookie, done: flags == 1, body: body(kind, &mut payload) }
    }
}

/// The body of a chunk, which must be used up.
fn body<'a>(kind: u16, payload: &mut &'a [u8]) -> Body<'a> {
    let body = match kind {
        0 => Body::Nothing,
        1 => {
            let offset = be64(payload);
            return Body::Data(Some(offset), payload);
        }
        2 => Body::Hole(be64(payload), be32(payload)),
        5 => {
            assert_eq!(be32(payload), 1, "number of the context");
            let mut extents = Vec::new();
            while !payload.is_empty() {
                extents.push((u64::from(be32(payload)), u64::from(be32(payload))));
            }
            Body::Status(extents)
        }
        6 => {
            assert_eq!(be32(payload), 1, "number of the context");
            let count = be32(payload);
            Body::Status((0..count).map(|_| (be64(payload), be64(payload))).collect())
        }
        0x8001 | 0x8002 => {
            let code = be32(payload);
            let text = be16(payload);
            let text = bytes(payload, usize::from(text));
            assert!(std::str::from_utf8(text).is_ok(), "the text of an error is none");
            if kind == 0x8002 {
                be64(payload);
            }
            Body::Error(code)
        }
        _ => panic!("unknown kind of chunk {kind}"),
    };
    assert!(payload.is_empty(), "{} bytes too many in a chunk", payload.len());
    body
}

/// Takes greeting and answers to options, up to the end of the one to GO.
///
/// # Panics
/// When they are not the answers to [`Framing::handshake`].
pub fn take_handshake(said: &mut &[u8]) {
    assert_eq!(bytes(said, 18), b"NBDMAGICIHAVEOPT\0\x03");
    loop {
        assert_eq!(be64(said), 0x0003_e889_0455_65a9);
        let (option, kind, length) = (be32(said), be32(said), be32(said));
        bytes(said, usize::try_from(length).expect("a length in memory"));
        assert!(kind & (1 << 31) == 0, "option {option} was refused with {kind:#x}");
        if (option, kind) == (GO, 1) {
            return;
        }
    }
}

fn option(out: &mut Vec<u8>, option: u32, data: &[u8]) {
    out.extend(b"IHAVEOPT");
    out.extend(option.to_be_bytes());
    out.extend(u32::try_from(data.len()).expect("a short option").to_be_bytes());
    out.extend(data);
}

fn bytes<'a>(said: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = said.split_at_checked(length).expect("a reply is cut");
    *said = rest;
    taken
}

fn array<const N: usize>(said: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = said.split_first_chunk().expect("a reply is cut");
    *said = rest;
    *taken
}

fn be16(said: &mut &[u8]) -> u16 {
    u16::from_be_bytes(array(said))
}

fn be32(said: &mut &[u8]) -> u32 {
    u32::from_be_bytes(array(said))
}

fn be64(said: &mut &[u8]) -> u64 {
    u64::from_be_bytes(array(said))
}
