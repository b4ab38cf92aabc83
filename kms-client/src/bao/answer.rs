//! What an answer says: the fault that its status stands for, and the fields that are asked for.
//!
//! Owns the reading of one whole answer, pure. It must not know connections. Flow: [`Answer::checked`] turns every status but success into
//! a [`BaoFault`]; the other functions take what they need out of the body, a key straight into the arena.
//!
//! What a server says in words is for people and bounded; text that could be a key is left out of it, as nobody knows what a faulty
//! server repeats.

use super::fault::BaoFault;
use super::json::{JsonFault, Object, Value};
use super::wrapped::Shape;
use crypto::{Arena, OpaqueKey, WrapAlg, Wrapped};
use std::time::Duration;
use zeroize::Zeroizing;

/// Longest text of a server that is repeated.
const MAX_MESSAGE: usize = 300;

/// Shortest run of base64 characters that is left out of a repeated text: shorter than any key.
const SECRET_RUN: usize = 30;

/// Longest token; those of OpenBao have some hundred bytes.
const MAX_TOKEN: usize = 4096;

/// Longest time that a token counts as valid without a question, whatever the server says.
const MAX_LEASE: Duration = Duration::from_secs(24 * 3600);

/// A whole answer. Its bytes are wiped when it is dropped.
pub struct Answer {
    status: u16,
    bytes: Zeroizing<Vec<u8>>,
    body: std::ops::Range<usize>,
}

/// What was asked, for messages.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Where the engine or the auth method is mounted.
    pub mount: &'a str,
    /// The key, or the role.
    pub name: &'a str,
    /// What a policy must allow, as it is written there.
    pub needed: &'a str,
}

/// What a server says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyFacts {
    /// Its newest version.
    pub version: u64,
    /// It can be given out of the server, which nobody wants.
    pub leaves: bool,
}

/// A token, and how long it is good.
pub struct Login {
    /// The token.
    pub token: Zeroizing<String>,
    /// How long.
    pub lease: Duration,
}

impl Answer {
    /// An answer with this status, whose body is in `bytes`.
    #[must_use]
    pub fn new(status: u16, bytes: Zeroizing<Vec<u8>>, body: std::ops::Range<usize>) -> Self {
        Self { status, bytes, body }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The answer, if it is one of success.
    ///
    /// # Errors
    /// [`BaoFault`] for every other status.
    pub fn checked(self, asked: &Asked<'_>) -> Result<Self, BaoFault> {
        if matches!(self.status, 200 | 204) { Ok(self) } else { Err(self.fault(asked)) }
    }

    /// The fault that a status stands for.
    fn fault(&self, asked: &Asked<'_>) -> BaoFault {
        let (status, message) = (self.status, self.message());
        let says = |part: &str| message.contains(part);
        let key = || asked.name.to_owned();
        match status {
            300..=399 | 412 | 472 | 473 => BaoFault::Standby { status },
            400 if says("encryption key not found") => BaoFault::NoKey(key()),
            400 if says("version is too new") => BaoFault::Behind(message),
            400 if says("too old") => BaoFault::TooOld { key: key(), message },
            400 if says("message authentication failed") => BaoFault::WrongWrap(key()),
            403 => BaoFault::Forbidden { message, needed: asked.needed.to_owned() },
            404 if message.is_empty() => BaoFault::NoKey(key()),
            404 => BaoFault::NoMount { mount: asked.mount.to_owned(), message },
            429 => BaoFault::Busy,
            500 if says("active") => BaoFault::NoLeader(message),
            501 => BaoFault::Uninitialized,
            503 if says("sealed") => BaoFault::Sealed,
            500..=599 => BaoFault::Broken { status, message },
            _ => BaoFault::Refused { status, message },
        }
    }

    /// What the server says in words, for people.
    #[must_use]
    pub fn message(&self) -> String {
        let list = Object::of(self.body()).and_then(|body| body.field("errors"));
        let Ok(Some(Value::List(list))) = list else { return String::new() };
        let texts: Vec<String> = serde_json::from_slice(list).unwrap_or_default();
        shown(&texts.join("; "))
    }

    fn body(&self) -> &[u8] {
        self.bytes.get(self.body.clone()).unwrap_or_default()
    }

    fn data(&self) -> Result<Object<'_>, JsonFault> {
        Object::of(self.body())?.object("data")
    }

    /// The token of a log-in.
    ///
    /// # Errors
    /// [`BaoFault`] when there is none that can be put into a request.
    pub fn login(&self) -> Result<Login, BaoFault> {
        let auth = Object::of(self.body())?.object("auth")?;
        let token = auth.text("client_token")?;
        let fits = (1..=MAX_TOKEN).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        if !fits {
            return Err(BaoFault::Unfitting("its token cannot be one"));
        }
        let token = String::from_utf8(token.to_vec()).map(Zeroizing::new);
        let token = token.map_err(|_| BaoFault::Unfitting("its token cannot be one"))?;
        // A lease of 0 has no end.
        let lease = match auth.number("lease_duration")? {
            0 => MAX_LEASE,
            seconds => Duration::from_secs(seconds).min(MAX_LEASE),
        };
        Ok(Login { token, lease })
    }

    /// What it says of the key `name`, which must be one that can be used.
    ///
    /// # Errors
    /// [`BaoFault::KeyType`] for another one.
    pub fn key(&self, name: &str) -> Result<KeyFacts, BaoFault> {
        let data = self.data()?;
        let unfit = |problem: String| BaoFault::KeyType { key: name.to_owned(), problem };
        let kind = data.text("type")?;
        if kind != b"aes256-gcm96" {
            let kind = shown(&String::from_utf8_lossy(kind));
            return Err(unfit(format!("is of type {kind}")));
        }
        if data.flag("derived")? {
            return Err(unfit("is one from which others are derived".to_owned()));
        }
        let leaves = data.flag("exportable")? || data.flag("allow_plaintext_backup")?;
        Ok(KeyFacts { version: data.number("latest_version")?, leaves })
    }

    /// The wrap of a key of `key_len` bytes.
    ///
    /// # Errors
    /// [`BaoFault::Unfitting`] for anything else.
    pub fn ciphertext(&self, key_len: usize) -> Result<(Wrapped, Shape), BaoFault> {
        let text = self.data()?.text("ciphertext")?;
        let shape = Shape::of(text).filter(|shape| shape.key_len == key_len);
        let shape = shape.ok_or(BaoFault::Unfitting("its ciphertext is no wrap of such a key"))?;
        Ok((Wrapped { alg: WrapAlg::Transit, blob: text.to_vec() }, shape))
    }

    /// The key of `key_len` bytes that was inside, in the arena.
    ///
    /// # Errors
    /// [`BaoFault::Key`] when it is none.
    pub fn plaintext(&self, key_len: usize, arena: &Arena) -> Result<OpaqueKey, BaoFault> {
        Ok(OpaqueKey::from_base64(arena, self.data()?.text("plaintext")?, key_len)?)
    }
}

/// The status alone; the body may hold a key.
impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({})", self.status)
    }
}

/// A text of a server as it may be repeated: one line, bounded, and nothing in it that could be a key.
fn shown(text: &str) -> String {
    let secret = |word: &str| {
        let is_code =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
        word.split(|c| !is_code(c)).any(|run| run.len() >= SECRET_RUN)
    };
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty())
    {
        let word = if secret(word) { "(...)" } else { word };
        if line.len() + word.len() >= MAX_MESSAGE {
            line.push_str(" ...");
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
