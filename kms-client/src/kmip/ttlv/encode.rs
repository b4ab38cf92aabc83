//! Writing a message.
//!
//! Owns the buffer, which may hold a key and is therefore wiped, also when it grows. It must not know what the tags mean.
//! Flow: [`Writer::structure`] opens one, the closure fills it, and its length is set when it is closed;
//! [`Writer::finish`] hands out the whole.

use super::{HEADER, Item, Kind, MAX_MESSAGE, Reason, Tag, TtlvError, Value, padded};
use zeroize::Zeroize;

/// Room of a new writer: more than any request but a large template takes, so that it seldom grows.
const ROOM: usize = 2048;

/// A message in the making.
pub struct Writer {
    bytes: Vec<u8>,
}

/// A whole message; wiped when it is dropped.
pub struct Message {
    bytes: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { bytes: Vec::with_capacity(ROOM) }
    }
}

impl Writer {
    /// A structure, and what `fill` puts into it.
    pub fn structure(&mut self, tag: Tag, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.header(tag, Kind::Structure, 0);
        fill(self);
        let length = wire_length(self.bytes.len() - start - HEADER);
        if let Some(field) = self.bytes.get_mut(start + 4..start + HEADER) {
            field.copy_from_slice(&length);
        }
    }

    /// A 32-bit integer.
    pub fn integer(&mut self, tag: Tag, value: i32) {
        self.item(tag, Kind::Integer, &value.to_be_bytes());
    }

    /// A 64-bit integer.
    pub fn long_integer(&mut self, tag: Tag, value: i64) {
        self.item(tag, Kind::LongInteger, &value.to_be_bytes());
    }

    /// A big integer, two's complement, whose length the caller has brought to a multiple of eight.
    pub fn big_integer(&mut self, tag: Tag, value: &[u8]) {
        self.item(tag, Kind::BigInteger, value);
    }

    /// A value of an enumeration.
    pub fn enumeration(&mut self, tag: Tag, value: u32) {
        self.item(tag, Kind::Enumeration, &value.to_be_bytes());
    }

    /// A truth value.
    pub fn boolean(&mut self, tag: Tag, value: bool) {
        self.item(tag, Kind::Boolean, &u64::from(value).to_be_bytes());
    }

    /// A text.
    pub fn text(&mut self, tag: Tag, value: &str) {
        self.item(tag, Kind::TextString, value.as_bytes());
    }

    /// A byte string.
    pub fn bytes(&mut self, tag: Tag, value: &[u8]) {
        self.item(tag, Kind::ByteString, value);
    }

    /// A byte string of `length` bytes that `fill` writes in place, so that a key needs no copy elsewhere.
    pub fn bytes_with(&mut self, tag: Tag, length: usize, fill: impl FnOnce(&mut [u8])) {
        self.header(tag, Kind::ByteString, length);
        let start = self.bytes.len();
        self.reserve(padded(length));
        self.bytes.resize(start + padded(length), 0);
        if let Some(field) = self.bytes.get_mut(start..start + length) {
            fill(field);
        }
    }

    /// A time, seconds since 1970.
    pub fn date_time(&mut self, tag: Tag, value: i64) {
        self.item(tag, Kind::DateTime, &value.to_be_bytes());
    }

    /// A number of seconds.
    pub fn interval(&mut self, tag: Tag, value: u32) {
        self.item(tag, Kind::Interval, &value.to_be_bytes());
    }

    /// An item of another message, with everything inside it. The depth is that of a checked message.
    pub fn copy(&mut self, item: &Item<'_>) {
        let tag = item.tag();
        match item.value() {
            Value::Structure(()) => self.structure(tag, |inner| {
                item.children().for_each(|child| inner.copy(&child));
            }),
            Value::Integer(value) => self.integer(tag, value),
            Value::LongInteger(value) => self.long_integer(tag, value),
            Value::BigInteger(value) => self.big_integer(tag, value),
            Value::Enumeration(value) => self.enumeration(tag, value),
            Value::Boolean(value) => self.boolean(tag, value),
            Value::TextString(value) => self.text(tag, value),
            Value::ByteString(value) => self.bytes(tag, value),
            Value::DateTime(value) => self.date_time(tag, value),
            Value::Interval(value) => self.interval(tag, value),
        }
    }

    /// The message.
    ///
    /// # Errors
    /// [`Reason::Large`] when no reader would take it.
    pub fn finish(mut self) -> Result<Message, TtlvError> {
        let length = self.bytes.len();
        if length > MAX_MESSAGE {
            let reason = Reason::Large { length, limit: MAX_MESSAGE };
            return Err(TtlvError { tag: Tag::NONE, offset: 0, reason });
        }
        Ok(Message { bytes: std::mem::take(&mut self.bytes) })
    }

    fn item(&mut self, tag: Tag, kind: Kind, value: &[u8]) {
        self.header(tag, kind, value.len());
        self.reserve(padded(value.len()));
        let end = self.bytes.len() + padded(value.len());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(end, 0);
    }

    fn header(&mut self, tag: Tag, kind: Kind, length: usize) {
        self.reserve(HEADER);
        let [_, tag @ ..] = tag.0.to_be_bytes();
        self.bytes.extend_from_slice(&tag);
        self.bytes.push(kind.byte());
        self.bytes.extend_from_slice(&wire_length(length));
    }

    /// Room for `more` bytes. A vector that grows by itself leaves its old bytes behind.
    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let mut larger = Vec::with_capacity(needed.max(2 * self.bytes.capacity()));
            larger.extend_from_slice(&self.bytes);
            self.bytes.zeroize();
            self.bytes = larger;
        }
    }
}

impl std::ops::Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({} bytes)", self.bytes.len())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// A length as it is written. One that does not fit belongs to a message that [`Writer::finish`] refuses.
fn wire_length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}
