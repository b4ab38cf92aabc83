//! Where an HTTP answer ends, and what is in it (RFC 9112).
//!
//! Owns the framing of one HTTP/1.1 answer, pure and bounded. It must not know sockets, nor what a body means. Flow: [`Frame::advance`]
//! looks at what came so far, again after each read, and says when that is all; [`Frame::finish`] then gives status and body,
//! with the parts of a chunked body moved together in place, so that a key in it has no second copy.
//!
//! The head is parsed by `httparse`. Of HTTP it takes what such a server sends: a length or chunks, no answers before the answer.

use std::ops::Range;

/// Longest head in bytes: those of OpenBao have three hundred.
pub const MAX_HEAD: usize = 8 * 1024;

/// Longest answer in bytes, head and framing included. The longest that is asked for lists the versions of a key, thirty bytes each:
/// there is room for a rotation every day for four years.
pub const MAX_ANSWER: usize = 64 * 1024;

/// Most header lines; OpenBao sends six.
const MAX_HEADERS: usize = 48;

/// Most parts of a chunked body: OpenBao's are written at once, and proxies cut at some KiB.
const MAX_CHUNKS: usize = 64;

/// Longest line before a part: sixteen digits, and an extension that nobody sends.
const MAX_CHUNK_LINE: usize = 64;

/// What cannot be an HTTP answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpFault {
    /// Against the rules of HTTP, or not used by any such server.
    #[error("{what}, at byte {at}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// Longer than any answer.
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
}

/// The answer as far as it is known.
#[derive(Debug, Default)]
pub struct Frame {
    head: Option<Head>,
    /// Parts of the body that came whole.
    parts: Vec<Range<usize>>,
    /// Where the next part begins.
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    status: u16,
    /// The server leaves the connection open.
    open: bool,
    framing: Framing,
    /// Where the body begins.
    body: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Whether the connection can be used again.
    pub open: bool,
    /// Where the body is in the bytes that were given to [`Frame::finish`].
    pub body: Range<usize>,
}

impl Frame {
    /// Whether `bytes`, everything that came so far, are the whole answer.
    ///
    /// # Errors
    /// [`HttpFault`] as soon as it cannot become one.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<bool, HttpFault> {
        let head = match self.head {
            Some(head) => head,
            None => match head(bytes)? {
                Some(found) => {
                    self.next = found.body;
                    *self.head.insert(found)
                }
                None if bytes.len() >= MAX_HEAD => {
                    return Err(HttpFault::TooLong { limit: MAX_HEAD });
                }
                None => return Ok(false),
            },
        };
        let end = match head.framing {
            Framing::Length(length) => {
                let end = head.body.saturating_add(length);
                if end > MAX_ANSWER {
                    return Err(HttpFault::TooLong { limit: MAX_ANSWER });
                }
                if bytes.len() < end {
                    return Ok(false);
                }
                self.parts.clear();
                self.parts.push(head.body..end);
                end
            }
            Framing::Chunked => match self.chunks(bytes)? {
                Some(end) => end,
                None if bytes.len() >= MAX_ANSWER => {
                    return Err(HttpFault::TooLong { limit: MAX_ANSWER });
                }
                None => return Ok(false),
            },
        };
        if bytes.len() > end {
            return Err(malformed("it goes on after its end", end));
        }
        Ok(true)
    }

    /// Goes over the parts that came whole; the end of the answer, when the last one is among them.
    fn chunks(&mut self, bytes: &[u8]) -> Result<Option<usize>, HttpFault> {
        loop {
            let at = self.next;
            let rest = bytes.get(at..).unwrap_or_default();
            let (line, size) = match httparse::parse_chunk_size(rest) {
                Ok(httparse::Status::Complete(found)) if found.0 <= MAX_CHUNK_LINE => found,
                Ok(httparse::Status::Partial) if rest.len() < MAX_CHUNK_LINE => return Ok(None),
                _ => return Err(malformed("the length of a part is none", at)),
            };
            let start = at + line;
            let size = usize::try_from(size).ok().filter(|size| *size <= MAX_ANSWER);
            let size = size.ok_or(HttpFault::TooLong { limit: MAX_ANSWER })?;
            let end = start + size;
            match bytes.get(end..end + 2) {
                Some(b"\r\n") if size == 0 => return Ok(Some(end + 2)),
                Some(b"\r\n") => {}
                Some(_) => return Err(malformed("a part has another length than it says", end)),
                None => return Ok(None),
            }
            if self.parts.len() == MAX_CHUNKS {
                return Err(malformed("it has too many parts", at));
            }
            self.parts.push(start..end);
            self.next = end + 2;
        }
    }

    /// The answer in `bytes`, the same that [`Frame::advance`] has seen the end of; `None` before that.
    #[must_use]
    pub fn finish(self, bytes: &mut [u8]) -> Option<HttpAnswer> {
        let head = self.head?;
        let mut end = head.body;
        for part in self.parts {
            let length = part.len();
            bytes.get(part.clone())?;
            bytes.copy_within(part, end);
            end += length;
        }
        Some(HttpAnswer { status: head.status, open: head.open, body: head.body..end })
    }
}

/// The head, once it is whole.
fn head(bytes: &[u8]) -> Result<Option<Head>, HttpFault> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let within = bytes.get(..MAX_HEAD.min(bytes.len())).unwrap_or_default();
    let body = match parsed.parse(within) {
        Ok(httparse::Status::Complete(body)) => body,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(malformed("it has too many header lines", 0));
        }
        Err(_) => return Err(malformed("it does not begin as an answer in HTTP/1 does", 0)),
    };
    let status = parsed.code.filter(|code| (200..=599).contains(code));
    let status = status.ok_or_else(|| malformed("its status is none of a final answer", 9))?;
    let mut open = parsed.version == Some(1);
    let (mut length, mut chunked) = (None, false);
    for header in parsed.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            let number = number(value).ok_or_else(|| malformed("its length is no number", 0))?;
            if length.is_some_and(|length| length != number) {
                return Err(malformed("it has two lengths", 0));
            }
            length = Some(number);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(malformed("its transfer encoding is not known", 0));
            }
            chunked = true;
        } else if header.name.eq_ignore_ascii_case("connection") {
            open &= !value.eq_ignore_ascii_case(b"close");
        }
    }
    let framing = match (length, chunked) {
        // They have no body (RFC 9112 section 6.3).
        (None, false) if matches!(status, 204 | 304) => Framing::Length(0),
        (Some(0), false) => Framing::Length(0),
        (Some(_), false) if matches!(status, 204 | 304) => {
            return Err(malformed("it has a body that its status forbids", 0));
        }
        (Some(length), false) => Framing::Length(length),
        (None, true) => Framing::Chunked,
        (Some(_), true) => return Err(malformed("it has a length and is chunked", 0)),
        (None, false) => return Err(malformed("it has no length", 0)),
    };
    Ok(Some(Head { status, open, framing, body }))
}

/// A length: digits alone.
fn number(text: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn malformed(what: &'static str, at: usize) -> HttpFault {
    HttpFault::Malformed { what, at }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
