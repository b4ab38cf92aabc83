//! The conformance checklist of `docs/nbd.md`: one test a point, named after it.
//!
//! Every test talks bytes to the real server in this process. [`Peer`] is a client in the transmission phase that
//! checks, whatever it asks, that the replies are framed as was agreed on.

mod commands;
mod exports;
mod framing;
mod greeting;
mod information;
mod metadata;
mod options;
mod table;

use super::support::{Client, LIMITS, SIZE, Session, export, go_data, option};
use cryptfs::backing::FaultyBacking;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use vmd::nbd::export::Export;
use vmd::nbd::proto::Framing;
use vmd::nbd::proto::transmission::Request;

pub(super) const ALL: [Framing; 3] = [Framing::Simple, Framing::Structured, Framing::Extended];

pub(super) const ACK: u32 = 1;
pub(super) const UNSUP: u32 = 0x8000_0001;
pub(super) const INVALID: u32 = 0x8000_0003;
pub(super) const UNKNOWN: u32 = 0x8000_0006;
pub(super) const SHUTDOWN: u32 = 0x8000_0007;
pub(super) const TOO_BIG: u32 = 0x8000_0009;
pub(super) const EXTENDED_REQUIRED: u32 = 0x8000_000a;

pub(super) const EPERM: u32 = 1;
pub(super) const EIO: u32 = 5;
pub(super) const EINVAL: u32 = 22;
pub(super) const ENOSPC: u32 = 28;
pub(super) const ENOTSUP: u32 = 95;
pub(super) const ESHUTDOWN: u32 = 108;

pub(super) const READ: u16 = 0;
pub(super) const WRITE: u16 = 1;
pub(super) const FLUSH: u16 = 3;
pub(super) const TRIM: u16 = 4;
pub(super) const CACHE: u16 = 5;
pub(super) const WRITE_ZEROES: u16 = 6;
pub(super) const BLOCK_STATUS: u16 = 7;

pub(super) const FUA: u16 = 1;
pub(super) const NO_HOLE: u16 = 2;
pub(super) const DF: u16 = 4;
pub(super) const REQ_ONE: u16 = 8;
pub(super) const FAST_ZERO: u16 = 16;
pub(super) const PAYLOAD_LEN: u16 = 32;

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
pub(super) fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let string = |text: &str| {
        let mut out = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        out.extend(text.as_bytes());
        out
    };
    let mut out = string(name);
    out.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    out.extend(queries.iter().flat_map(|query| string(query)));
    out
}

/// A session that has been greeted.
pub(super) fn greeted(export: Export) -> Session {
    let mut session = Session::new(export, LIMITS);
    session.client.greet(3);
    session
}

/// A disk whose storage can be made to fail.
pub(super) fn faulty() -> (Arc<FaultyBacking>, Export) {
    let backing = Arc::new(FaultyBacking::new(SIZE));
    let export = export(Box::new(Arc::clone(&backing)), SIZE, false);
    (backing, export)
}

/// One reply chunk; a simple reply is one with kind 0 or, after a READ, 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) done: bool,
    pub(super) kind: u16,
    pub(super) body: Vec<u8>,
}

impl Chunk {
    /// The error that it carries; zero for none.
    pub(super) fn error(&self) -> u32 {
        if self.kind & 0x8000 == 0 { 0 } else { be32(&self.body, 0) }
    }
}

pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A client in the transmission phase.
pub(super) struct Peer {
    pub(super) client: Client,
    pub(super) framing: Framing,
    pub(super) flags: u16,
    cookie: u64,
    /// Offset of each request, and the length of a READ.
    asked: HashMap<u64, (u64, Option<u64>)>,
    /// Chunks that came while another reply was waited for.
    parked: VecDeque<(u64, Chunk)>,
}

impl Peer {
    /// Over its own connection to `export`.
    pub(super) fn new(export: Export, framing: Framing) -> Self {
        Self::on(Session::new(export, LIMITS).client, framing)
    }

    /// Over a connection that nothing was said on; selects `base:allocation` where that is possible.
    pub(super) fn on(mut client: Client, framing: Framing) -> Self {
        client.greet(3);
        let asked = match framing {
            Framing::Simple => None,
            Framing::Structured => Some(8),
            Framing::Extended => Some(11),
        };
        if let Some(asked) = asked {
            client.send(&option(asked, &[]));
            assert_eq!(client.option_reply(), (asked, ACK, vec![]));
            client.send(&option(10, &contexts("root", &["base:allocation"])));
            assert_eq!(client.option_reply().2[4..], *b"base:allocation");
            assert_eq!(client.option_reply(), (10, ACK, vec![]));
        }
        client.send(&option(7, &go_data("root", &[])));
        let info = client.option_reply().2;
        assert_eq!(client.option_reply(), (7, ACK, vec![]));
        let flags = u16::from_be_bytes(info[10..12].try_into().unwrap());
        Self::transmitting(client, framing, flags)
    }

    /// Over a connection that is in the transmission phase.
    pub(super) fn transmitting(client: Client, framing: Framing, flags: u16) -> Self {
        let (asked, parked) = (HashMap::new(), VecDeque::new());
        Self { client, framing, flags, cookie: 0xfeed_0000_0000_0000, asked, parked }
    }

    /// Sends a request and returns its cookie.
    pub(super) fn send(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        length: u64,
        payload: &[u8],
    ) -> u64 {
        self.cookie = self.cookie.wrapping_mul(3).wrapping_add(0x1_0001);
        let extended = self.framing == Framing::Extended;
        let announced = if extended && command == WRITE { PAYLOAD_LEN } else { 0 };
        let flags = flags | announced;
        let request = Request { extended, flags, command, cookie: self.cookie, offset, length };
        self.client.send(&request.encode());
        self.client.send(payload);
        self.asked.insert(self.cookie, (offset, (command == READ).then_some(length)));
        self.cookie
    }

    /// Takes the next chunk of the reply to `cookie`; replies may come in any order.
    pub(super) fn chunk(&mut self, cookie: u64) -> Chunk {
        if let Some(at) = self.parked.iter().position(|(whose, _)| *whose == cookie) {
            return self.parked.remove(at).unwrap().1;
        }
        loop {
            let (whose, chunk) = self.any_chunk();
            if whose == cookie {
                return chunk;
            }
            self.parked.push_back((whose, chunk));
        }
    }

    /// Takes one chunk, checks what it echoes, and returns it with its cookie.
    fn any_chunk(&mut self) -> (u64, Chunk) {
        let magic = u32::from_be_bytes(self.client.receive());
        if self.framing == Framing::Simple {
            assert_eq!(magic, 0x6744_6698);
            let error = u32::from_be_bytes(self.client.receive());
            let cookie = u64::from_be_bytes(self.client.receive());
            let (_, read) = self.asked[&cookie];
            let (kind, body) = match (error, read) {
                (0, Some(length)) => (1, self.client.receive_vec(usize::try_from(length).unwrap())),
                (0, None) => (0, Vec::new()),
                (error, _) => (0x8001, error.to_be_bytes().to_vec()),
            };
            return (cookie, Chunk { done: true, kind, body });
        }
        let flags = u16::from_be_bytes(self.client.receive());
        let kind = u16::from_be_bytes(self.client.receive());
        let cookie = u64::from_be_bytes(self.client.receive());
        let (offset, _) = self.asked[&cookie];
        let length = if self.framing == Framing::Extended {
            assert_eq!(magic, 0x6e8a_278c);
            assert_eq!(u64::from_be_bytes(self.client.receive()), offset);
            u64::from_be_bytes(self.client.receive())
        } else {
            assert_eq!(magic, 0x668e_33ef);
            u64::from(u32::from_be_bytes(self.client.receive()))
        };
        assert_eq!(flags & !1, 0, "no reply flag but DONE exists");
        let body = self.client.receive_vec(usize::try_from(length).unwrap());
        (cookie, Chunk { done: flags & 1 != 0, kind, body })
    }

    /// All chunks of a reply.
    pub(super) fn reply(&mut self, cookie: u64) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        while chunks.last().is_none_or(|last: &Chunk| !last.done) {
            chunks.push(self.chunk(cookie));
        }
        chunks
    }

    /// A request without data in its reply; its error.
    pub(super) fn call(&mut self, command: u16, flags: u16, offset: u64, length: u64) -> u32 {
        let cookie = self.send(command, flags, offset, length, &[]);
        let chunks = self.reply(cookie);
        assert_eq!(chunks.len(), 1);
        chunks[0].error()
    }

    pub(super) fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u32 {
        let cookie = self.send(WRITE, flags, offset, u64::try_from(data.len()).unwrap(), data);
        self.reply(cookie)[0].error()
    }

    /// The chunks of a READ.
    pub(super) fn chunks(&mut self, flags: u16, offset: u64, length: u64) -> Vec<Chunk> {
        let cookie = self.send(READ, flags, offset, length, &[]);
        self.reply(cookie)
    }

    /// A READ, put together; checks that chunks cover the range and do not overlap.
    pub(super) fn read(&mut self, flags: u16, offset: u64, length: u64) -> Result<Vec<u8>, u32> {
        let chunks = self.chunks(flags, offset, length);
        if let Some(failed) = chunks.iter().find(|chunk| chunk.error() != 0) {
            return Err(failed.error());
        }
        if self.framing == Framing::Simple {
            return Ok(chunks[0].body.clone());
        }
        let mut out: Vec<Option<u8>> = vec![None; usize::try_from(length).unwrap()];
        for chunk in &chunks {
            let data = match chunk.kind {
                0 => continue,
                1 => chunk.body[8..].to_vec(),
                2 => vec![0; usize::try_from(be32(&chunk.body, 8)).unwrap()],
                other => panic!("chunk {other}"),
            };
            assert!(!data.is_empty() && (chunk.kind == 1 || chunk.body.len() == 12));
            let at = usize::try_from(be64(&chunk.body, 0) - offset).unwrap();
            for (place, byte) in out[at..at + data.len()].iter_mut().zip(data) {
                assert!(place.replace(byte).is_none(), "chunks overlap");
            }
        }
        Ok(out.into_iter().map(|byte| byte.unwrap()).collect())
    }

    /// BLOCK_STATUS of the one context: length and state of each extent.
    pub(super) fn status(&mut self, flags: u16, offset: u64, length: u64) -> Vec<(u64, u64)> {
        let cookie = self.send(BLOCK_STATUS, flags, offset, length, &[]);
        let chunks = self.reply(cookie);
        assert_eq!(chunks.len(), 1, "one chunk a context");
        self.extents(&chunks[0])
    }

    pub(super) fn extents(&self, chunk: &Chunk) -> Vec<(u64, u64)> {
        let body = &chunk.body;
        assert_eq!(be32(body, 0), 1, "the number that was given with the selection");
        if self.framing == Framing::Extended {
            assert_eq!(chunk.kind, 6);
            let count = usize::try_from(be32(body, 4)).unwrap();
            assert_eq!(body.len(), 8 + 16 * count);
            return body[8..].chunks(16).map(|e| (be64(e, 0), be64(e, 8))).collect();
        }
        assert_eq!((chunk.kind, body.len() % 8), (5, 4));
        let pair = |e: &[u8]| (u64::from(be32(e, 0)), u64::from(be32(e, 4)));
        body[4..].chunks(8).map(pair).collect()
    }
}
