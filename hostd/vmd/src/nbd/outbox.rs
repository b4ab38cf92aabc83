//! Replies that wait to be sent together.
//!
//! Owns the send buffer. Headers and payloads of many replies lie one behind the other, so that one `send`
//! carries them all; a READ is read and decrypted where it will be sent from. It must not know volumes. Flow:
//! [`Outbox::reserve`], then [`Outbox::reply`] or [`Outbox::payload`] and [`Outbox::finish_read`], at last
//! [`Outbox::send`].

use super::buffer::Buffer;
use super::proto::WireError;
use super::proto::transmission::{REPLY_LEN, simple_reply};
use super::transport::Transport;
use std::io;

/// Size of the buffer while no READ is longer: a batch of 60 replies of 4 KiB.
pub const CAPACITY: usize = 256 * 1024;

/// The send buffer of a connection.
#[derive(Debug, Default)]
pub struct Outbox {
    buffer: Buffer,
    len: usize,
    /// Where the replies start that promise durable data; at most one a reply, so bounded by the buffer.
    promises: Vec<usize>,
}

impl Outbox {
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
        self.len + REPLY_LEN + payload <= self.buffer.len()
    }

    /// Makes room for a reply with `payload` bytes; nothing may wait.
    ///
    /// # Errors
    /// When the kernel gives no memory.
    pub fn reserve(&mut self, payload: usize) -> io::Result<()> {
        if self.fits(payload) {
            return Ok(());
        }
        self.buffer.grow((REPLY_LEN + payload).max(CAPACITY), CAPACITY, 0..self.len, 0)
    }

    /// Appends a reply without payload, for which there is room.
    pub fn reply(&mut self, cookie: u64, error: Option<WireError>) {
        let at = self.len;
        self.put(at, &simple_reply(cookie, error));
        self.len += REPLY_LEN;
    }

    /// Appends a reply that becomes true only when the volume has been flushed; see [`Outbox::settle`].
    pub fn promise(&mut self, cookie: u64) {
        self.promises.push(self.len);
        self.reply(cookie, None);
    }

    /// Where the payload of the next reply goes; there must be room for `length` bytes.
    pub fn payload(&mut self, length: usize) -> &mut [u8] {
        let at = self.len + REPLY_LEN;
        self.buffer.bytes_mut().get_mut(at..at + length).unwrap_or_default()
    }

    /// Makes the bytes of [`Outbox::payload`] a successful reply.
    pub fn finish_read(&mut self, cookie: u64, length: usize) {
        self.reply(cookie, None);
        self.len += length;
    }

    /// Whether replies wait that need a flush first.
    pub fn has_promises(&self) -> bool {
        !self.promises.is_empty()
    }

    /// Says how the flush went: on an error every reply that promised durable data carries it instead.
    pub fn settle(&mut self, error: Option<WireError>) {
        while let Some(at) = self.promises.pop() {
            if let Some(error) = error {
                self.put(at + 4, &error.code().to_be_bytes());
            }
        }
    }

    /// Sends everything.
    ///
    /// # Errors
    /// What the transport says; the connection is of no use then.
    pub fn send(&mut self, to: &mut Transport<'_>) -> io::Result<()> {
        debug_assert!(self.promises.is_empty(), "promises are settled before they are sent");
        let sent = to.send(self.buffer.bytes().get(..self.len).unwrap_or_default());
        self.len = 0;
        sent
    }

    /// Gives the memory back, when nothing waits.
    pub fn release(&mut self) {
        if self.len == 0 {
            self.buffer.release();
            self.promises = Vec::new();
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(to) = self.buffer.bytes_mut().get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_flush_reaches_exactly_the_replies_that_promised() {
        let mut outbox = Outbox::default();
        assert!(!outbox.fits(0));
        outbox.reserve(8).unwrap();
        outbox.reply(1, None);
        outbox.promise(2);
        outbox.payload(3).copy_from_slice(b"abc");
        outbox.finish_read(3, 3);
        outbox.promise(4);
        assert!(outbox.has_promises());
        outbox.settle(Some(WireError::NoSpace));
        assert!(!outbox.has_promises());
        let mut want = Vec::new();
        want.extend(simple_reply(1, None));
        want.extend(simple_reply(2, Some(WireError::NoSpace)));
        want.extend(simple_reply(3, None));
        want.extend(b"abc");
        want.extend(simple_reply(4, Some(WireError::NoSpace)));
        assert_eq!(outbox.buffer.bytes().get(..outbox.len()).unwrap(), want);
    }
}
