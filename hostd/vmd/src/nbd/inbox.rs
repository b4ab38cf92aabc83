//! Bytes that have come from the client and are not yet used.
//!
//! Owns the receive buffer. One `recv` brings as many requests as the client has sent; the payload of a large
//! WRITE lands at a page boundary of the same buffer and is used where it lies. It must not know what the
//! bytes mean. Flow: [`Inbox::receive`] until enough is [`Inbox::unread`], then [`Inbox::take`].

use super::buffer::Buffer;
use super::proto::transmission::REQUEST_LEN;
use super::transport::{Patience, Received, Transport};
use std::io;
use std::ops::Range;

/// Most bytes of small messages that one `recv` brings: 60 writes of 4 KiB, which is more than clients keep in
/// flight, and still within the second-level cache.
pub const WINDOW: usize = 256 * 1024;

/// Payloads start at a multiple of this when they are received alone.
const PAGE: usize = 4096;

/// Where a message starts in an empty buffer, so that the payload after its header is aligned.
const HEADER_AT: usize = PAGE - REQUEST_LEN;

/// From this many missing bytes on, exactly these are received: the next message then starts an empty buffer
/// and nothing is ever moved.
const LARGE: usize = 64 * 1024;

/// Unread bytes that are cheaper to move to the front than to do without the room behind them.
const CHEAP_TO_MOVE: usize = 8 * 1024;

/// The receive buffer of a connection.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: Buffer,
    start: usize,
    end: usize,
}

impl Inbox {
    /// What has come and is not used.
    pub fn unread(&self) -> &[u8] {
        self.buffer.bytes().get(self.start..self.end).unwrap_or_default()
    }

    /// Marks the first `n` unread bytes as used.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Uses the first `n` unread bytes, which must have come; they may be changed in place.
    pub fn take(&mut self, n: usize) -> &mut [u8] {
        let from = self.start;
        self.consume(n);
        self.buffer.bytes_mut().get_mut(from..self.start).unwrap_or_default()
    }

    /// Moves the first `n` unread bytes, which must have come, into `into`, and says where they are there. The buffers
    /// change places when that leaves less to copy.
    ///
    /// # Errors
    /// When the kernel gives no memory; nothing has moved then.
    pub fn hand_over(&mut self, n: usize, into: &mut Buffer) -> io::Result<Range<usize>> {
        let payload = self.start..(self.start + n).min(self.end);
        let rest = payload.end..self.end;
        if rest.len() < payload.len() {
            let (from, to) = (HEADER_AT, HEADER_AT + rest.len());
            Self::put(into, from, WINDOW, self.buffer.bytes().get(rest).unwrap_or_default())?;
            std::mem::swap(&mut self.buffer, into);
            (self.start, self.end) = (from, to);
            return Ok(payload);
        }
        let bytes = self.buffer.bytes().get(payload.clone()).unwrap_or_default();
        Self::put(into, PAGE, bytes.len(), bytes)?;
        self.start = payload.end;
        Ok(PAGE..PAGE + payload.len())
    }

    /// Puts `bytes` at `at` into a buffer that is to have room for `room` bytes there.
    fn put(into: &mut Buffer, at: usize, room: usize, bytes: &[u8]) -> io::Result<()> {
        let need = at + room.max(bytes.len());
        if into.len() < need {
            into.grow(need, WINDOW, 0..0, 0)?;
        }
        if let Some(to) = into.bytes_mut().get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        self.buffer.len()
    }

    /// Gives the memory back, when nothing is unread.
    pub fn release(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.buffer.release();
        }
    }

    /// Makes room for `need` unread bytes that begin with a header.
    ///
    /// # Errors
    /// When the kernel gives no memory.
    pub fn make_room_for_header(&mut self, need: usize) -> io::Result<()> {
        self.make_room(need, HEADER_AT)
    }

    /// Makes room for a payload of `need` bytes, the header of which has been used.
    ///
    /// # Errors
    /// When the kernel gives no memory.
    pub fn make_room_for_payload(&mut self, need: usize) -> io::Result<()> {
        self.make_room(need, PAGE)
    }

    /// Receives once; `need` unread bytes are wanted in all, for which room was made.
    ///
    /// # Errors
    /// What the transport says.
    pub fn receive(
        &mut self,
        from: &Transport<'_>,
        need: usize,
        patience: Patience,
    ) -> io::Result<Received> {
        let missing = need.saturating_sub(self.end - self.start);
        let room = self.buffer.bytes_mut().get_mut(self.end..).unwrap_or_default();
        let limit = if missing >= LARGE { missing } else { WINDOW.max(missing) }.min(room.len());
        let received = from.receive(room.get_mut(..limit).unwrap_or_default(), patience)?;
        if let Received::Bytes(got) = received {
            self.end += got;
        }
        Ok(received)
    }

    fn make_room(&mut self, need: usize, at: usize) -> io::Result<()> {
        let unread = self.start..self.end;
        let kept = unread.len();
        if at + need.max(WINDOW) > self.buffer.len() {
            self.buffer.grow(at + need.max(WINDOW), WINDOW, unread, at)?;
        } else if self.start + need > self.buffer.len() || kept <= CHEAP_TO_MOVE {
            self.buffer.bytes_mut().copy_within(unread, at);
        } else {
            return Ok(());
        }
        (self.start, self.end) = (at, at + kept);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::io::Write;

    #[test]
    fn messages_come_whole_whatever_their_size_and_place() {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)
                .unwrap();
        let sizes = [1usize, 28, 4096, 70_000, 28, 300_000, 5, 1_000_000, 28];
        let sender = std::thread::spawn(move || {
            let mut a = std::os::unix::net::UnixStream::from(a);
            for (i, size) in sizes.iter().enumerate() {
                a.write_all(&vec![u8::try_from(i).unwrap(); *size]).unwrap();
            }
        });
        let (mut inbox, from) = (Inbox::default(), Transport::Plain(&b));
        for (i, size) in sizes.iter().enumerate() {
            while inbox.unread().len() < *size {
                if i % 2 == 0 {
                    inbox.make_room_for_header(*size).unwrap();
                } else {
                    inbox.make_room_for_payload(*size).unwrap();
                }
                let received = inbox.receive(&from, *size, Patience::Wait).unwrap();
                assert!(matches!(received, Received::Bytes(1..)), "{received:?}");
            }
            let got = inbox.take(*size);
            assert!(got.len() == *size && got.iter().all(|x| usize::from(*x) == i));
        }
        sender.join().unwrap();
        inbox.make_room_for_header(1).unwrap();
        assert_eq!(inbox.receive(&from, 1, Patience::Wait).unwrap(), Received::Closed);
        inbox.release();
        assert!(inbox.unread().is_empty());
    }

    #[test]
    fn a_payload_is_handed_over_and_the_rest_stays() {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)
                .unwrap();
        let mut spare = Buffer::new();
        for (payload, rest) in [(9000, 0), (9000, 28), (28, 9000), (5000, 5000), (0, 7), (7, 0)] {
            let (mut inbox, from) = (Inbox::default(), Transport::Plain(&b));
            let mut sent = vec![1; payload];
            sent.extend(vec![2; rest]);
            (&std::os::unix::net::UnixStream::from(a.try_clone().unwrap()))
                .write_all(&sent)
                .unwrap();
            while inbox.unread().len() < sent.len() {
                inbox.make_room_for_payload(sent.len()).unwrap();
                inbox.receive(&from, sent.len(), Patience::Wait).unwrap();
            }
            let there = inbox.hand_over(payload, &mut spare).unwrap();
            assert_eq!(spare.bytes().get(there).unwrap(), vec![1; payload], "{payload} {rest}");
            assert_eq!(inbox.unread(), vec![2; rest], "{payload} {rest}");
        }
    }
}
