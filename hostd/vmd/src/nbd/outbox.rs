//! Replies that wait to be sent together.
//!
//! Owns the send buffer. Headers and payloads of many replies lie one behind the other, so that one `send`
//! carries them all; a READ is read and decrypted where it will be sent from. It must not know volumes. Flow:
//! [`Outbox::reserve`], then one of the replies ([`Outbox::success`], [`Outbox::fail`], [`Outbox::payload`] and
//! [`Outbox::data`], ...), at last [`Outbox::send`].

use super::buffer::Buffer;
use super::proto::chunk::{self, Head, Kind, MAX_ERROR_BODY, MAX_HEAD, head_len};
use super::proto::status;
use super::proto::{Framing, WireError};
use super::transport::Transport;
use cryptfs::volume::Extent;
use std::io;

/// Size of the buffer while no READ is longer: a batch of 60 replies of 4 KiB.
pub const CAPACITY: usize = 256 * 1024;

/// A buffer above this size is given back after use: several threads of a connection may have one.
const KEPT: usize = 4 * 1024 * 1024;

/// Room for what stands around a payload: the headers and offsets of one data chunk, and an error chunk.
const AROUND: usize = MAX_HEAD + 8 + MAX_HEAD + MAX_ERROR_BODY;

/// Bytes before the data of a chunk, besides its header: the offset.
const OFFSET_LEN: usize = 8;

/// The send buffer of a connection.
#[derive(Debug)]
pub struct Outbox {
    framing: Framing,
    buffer: Buffer,
    len: usize,
    /// The replies that promise durable data; at most one a reply, so bounded by the buffer.
    promises: Vec<Promise>,
}

#[derive(Debug)]
struct Promise {
    /// Where its reply starts.
    at: usize,
    of: Head,
}

impl Outbox {
    /// Nothing waits; replies will be framed as the handshake agreed.
    pub fn new(framing: Framing) -> Self {
        Self { framing, buffer: Buffer::default(), len: 0, promises: Vec::new() }
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a reply with `payload` bytes fits behind those that wait.
    pub fn fits(&self, payload: usize) -> bool {
        self.len + self.need(payload) <= self.buffer.len()
    }

    /// Makes room for a reply with `payload` bytes; nothing may wait.
    ///
    /// # Errors
    /// When the kernel gives no memory.
    pub fn reserve(&mut self, payload: usize) -> io::Result<()> {
        if self.fits(payload) {
            return Ok(());
        }
        let need = self.len + self.need(payload);
        self.buffer.grow(need.max(CAPACITY), CAPACITY, 0..self.len, 0)
    }

    /// Appends a reply without payload, for which there is room.
    pub fn success(&mut self, of: Head) {
        self.start(of, Kind::None, true, 0);
    }

    /// Appends a reply that becomes true only when the volume has been flushed; see [`Outbox::settle`].
    pub fn promise(&mut self, of: Head) {
        self.promises.push(Promise { at: self.len, of });
        self.success(of);
    }

    /// Appends a refusal, which ends the reply: `at` an offset inside the request, or of all of it.
    pub fn fail(&mut self, of: Head, error: WireError, at: Option<u64>) {
        let framing = self.framing;
        self.len += chunk::error(self.free(), framing, of, error, at);
    }

    /// Where the data of the next reply or chunk goes; there must be room for `length` bytes.
    pub fn payload(&mut self, length: usize) -> &mut [u8] {
        let at = self.len + self.before_data();
        self.buffer.bytes_mut().get_mut(at..at + length).unwrap_or_default()
    }

    /// Makes the bytes of [`Outbox::payload`] a chunk at `offset`, or all of a simple reply.
    pub fn data(&mut self, of: Head, offset: u64, length: u32, done: bool) {
        let data = usize::try_from(length).unwrap_or(usize::MAX);
        if self.framing == Framing::Simple {
            self.success(of);
        } else {
            self.start(of, Kind::OffsetData, done, length.saturating_add(8));
            self.put(&offset.to_be_bytes());
        }
        self.len += data;
    }

    /// Appends a chunk that says that `length` bytes at `offset` are zeros.
    pub fn hole(&mut self, of: Head, offset: u64, length: u32, done: bool) {
        self.start(of, Kind::OffsetHole, done, 12);
        self.put(&offset.to_be_bytes());
        self.put(&length.to_be_bytes());
    }

    /// Bytes of payload that [`Outbox::status`] needs room for.
    pub fn status_len(&self, extents: usize) -> usize {
        status::shape(self.framing, extents).1
    }

    /// Appends the answer to BLOCK_STATUS; there must be one extent or more.
    pub fn status(&mut self, of: Head, extents: &[Extent]) {
        let (framing, (kind, length)) = (self.framing, status::shape(self.framing, extents.len()));
        let clip = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.start(of, kind, true, clip(length));
        self.len += status::start(self.free(), framing, clip(extents.len()));
        for extent in extents {
            self.len += status::extent(self.free(), framing, extent.len, extent.zero);
        }
    }

    /// Whether replies wait that need a flush first.
    pub fn has_promises(&self) -> bool {
        !self.promises.is_empty()
    }

    /// Says how the flush went: on an error every reply that promised durable data carries it instead. An error
    /// chunk is longer than the success in whose place it stands, so what lies behind moves, from the last
    /// promise to the first; [`Outbox::fits`] has counted the room.
    pub fn settle(&mut self, error: Option<WireError>) {
        let Some(error) = error else { return self.promises.clear() };
        let (was, framing) = (head_len(self.framing), self.framing);
        let growth = chunk::error_len(framing, error) - was;
        let mut end = self.len;
        self.len += growth * self.promises.len();
        while let Some(Promise { at, of }) = self.promises.pop() {
            let before = self.promises.len() * growth;
            let bytes = self.buffer.bytes_mut();
            bytes.copy_within(at + was..end, at + was + before + growth);
            chunk::error(
                bytes.get_mut(at + before..).unwrap_or_default(),
                framing,
                of,
                error,
                None,
            );
            end = at;
        }
    }

    /// Sends everything.
    ///
    /// # Errors
    /// What the transport says; the connection is of no use then.
    pub fn send(&mut self, to: &Transport<'_>) -> io::Result<()> {
        debug_assert!(self.promises.is_empty(), "promises are settled before they are sent");
        let sent = to.send(self.buffer.bytes().get(..self.len).unwrap_or_default());
        self.len = 0;
        if self.buffer.len() > KEPT {
            self.buffer.release();
        }
        sent
    }

    /// Bytes of memory beyond what every thread has.
    pub fn large(&self) -> usize {
        self.buffer.len().saturating_sub(CAPACITY)
    }

    /// Whether there is no memory.
    pub fn is_released(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Gives the memory back, when nothing waits.
    pub fn release(&mut self) {
        if self.len == 0 {
            self.buffer.release();
            self.promises = Vec::new();
        }
    }

    /// Room for a reply and for what failed promises, this one among them, would need in addition.
    fn need(&self, payload: usize) -> usize {
        AROUND + payload + (self.promises.len() + 1) * MAX_ERROR_BODY
    }

    fn before_data(&self) -> usize {
        let offset = if self.framing == Framing::Simple { 0 } else { OFFSET_LEN };
        head_len(self.framing) + offset
    }

    fn start(&mut self, of: Head, kind: Kind, done: bool, length: u32) {
        let framing = self.framing;
        self.len += chunk::head(self.free(), framing, of, kind, done, length);
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(to) = self.free().get_mut(..bytes.len()) {
            to.copy_from_slice(bytes);
        }
        self.len += bytes.len();
    }

    fn free(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut().get_mut(self.len..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: fn(u64) -> Head = |cookie| Head { cookie, offset: cookie << 8 };

    fn reply(framing: Framing, cookie: u64, error: Option<WireError>) -> Vec<u8> {
        let mut out = vec![0; MAX_HEAD + MAX_ERROR_BODY];
        let len = match error {
            None => chunk::head(&mut out, framing, OF(cookie), Kind::None, true, 0),
            Some(error) => chunk::error(&mut out, framing, OF(cookie), error, None),
        };
        out.truncate(len);
        out
    }

    #[test]
    fn a_failed_flush_reaches_exactly_the_replies_that_promised() {
        for framing in [Framing::Simple, Framing::Structured, Framing::Extended] {
            let mut outbox = Outbox::new(framing);
            assert!(!outbox.fits(0));
            outbox.reserve(8).unwrap();
            outbox.success(OF(1));
            outbox.promise(OF(2));
            outbox.promise(OF(3));
            outbox.payload(3).copy_from_slice(b"abc");
            outbox.data(OF(4), 77, 3, true);
            let data = outbox.len();
            outbox.promise(OF(5));
            outbox.success(OF(6));
            let before = outbox.buffer.bytes().get(..data).unwrap().to_vec();
            assert!(outbox.has_promises());
            outbox.settle(Some(WireError::NoSpace));
            assert!(!outbox.has_promises());

            let lost = Some(WireError::NoSpace);
            let mut want = reply(framing, 1, None);
            want.extend(reply(framing, 2, lost));
            want.extend(reply(framing, 3, lost));
            want.extend(&before[3 * head_len(framing)..]);
            want.extend(reply(framing, 5, lost));
            want.extend(reply(framing, 6, None));
            assert_eq!(outbox.buffer.bytes().get(..outbox.len()).unwrap(), want, "{framing:?}");
        }
    }

    /// However many promises a batch holds, the room for their failure is there.
    #[test]
    fn promises_that_all_fail_have_room() {
        let mut outbox = Outbox::new(Framing::Extended);
        outbox.reserve(0).unwrap();
        let mut count = 0;
        while outbox.fits(0) {
            outbox.promise(OF(count));
            count += 1;
        }
        outbox.settle(Some(WireError::Io));
        let each = chunk::error_len(Framing::Extended, WireError::Io);
        assert_eq!(outbox.len(), each * usize::try_from(count).unwrap());
        assert!(outbox.len() <= outbox.buffer.len());
        let last = outbox.buffer.bytes().get(outbox.len() - each..outbox.len()).unwrap();
        assert_eq!(last, reply(Framing::Extended, count - 1, Some(WireError::Io)));
    }
}
