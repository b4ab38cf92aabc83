//! Sealed files: two lines of text, the body in JSON and its MAC (`docs/format.md`, "Sealed files").
//!
//! Owns parsing, the checks before and after a key is there, and atomic replacement (`store`); must not
//! know what a body means beyond its wraps and sequence. Flow: [`Sealed::read`] gives a body that
//! nobody may trust yet but that names the keys, [`Sealed::open`] unwraps the data key and gives body
//! and key once the MAC over the exact bytes fits, [`create`] and [`replace`] write.

mod error;
pub(crate) mod store;
mod wrap;

pub use error::{Flaw, SealError};
pub use store::clean;
pub(crate) use store::{is_temporary, names};
pub use wrap::{Wrap, WrapAlg};

use crypto::{Arena, DataKey, Kek, KeyId, MacKey, MacSource, OpaqueKey, OpenError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use store::Put;

/// Largest sealed file: sixteen wraps with the longest key ids take less than a sixth of it.
pub const MAX_SEALED: usize = 64 * 1024;

/// Most wraps of one key: a provider key and some for recovery and for the way from one provider to
/// another.
pub const MAX_WRAPS: usize = 16;

/// The version that is written, and the last that is read.
pub const VERSION: u32 = 1;

/// The feature of a file with a wrap by a transit engine.
pub(crate) const TRANSIT: &str = "transit";

/// The first line of a kind of sealed file.
pub trait Body: Clone + Serialize + DeserializeOwned {
    /// Value of the field `format`.
    const FORMAT: &'static str;
    /// Context of the MAC key, so that the MAC of one kind never fits another.
    const MAC_INFO: &'static str;
    /// The features that are known of this kind; a file with another one is refused as unsupported.
    const FEATURES: &'static [&'static str];
    /// The key that is wrapped inside and that the MAC hangs on.
    type Key: DataKey + MacSource;

    /// The wrapped key, once for each key-encrypting key.
    fn wraps(&self) -> &[Wrap];

    /// Replaces the wraps.
    fn set_wraps(&mut self, wraps: Vec<Wrap>);

    /// What a reader must know to open it, as it stands in the file.
    fn features(&self) -> &[String];

    /// The features that its fields need, without those of its wraps.
    fn needed_features(&self) -> Vec<String> {
        Vec::new()
    }

    /// Replaces the features.
    fn set_features(&mut self, features: Vec<String>);

    /// What the key inside belongs to, for wraps that can be tied to it: the same for ever, other than that of any other file.
    fn bound(&self) -> String;

    /// Counts the replacements of the file.
    fn sequence(&self) -> u64;

    /// Sets the count.
    fn set_sequence(&mut self, sequence: u64);

    /// Checks what the types of the fields do not say.
    fn check(&self) -> Result<(), Flaw>;
}

/// A sealed file as it was read: parsed, not yet trusted.
#[derive(Debug)]
pub struct Sealed<B> {
    path: PathBuf,
    /// The exact bytes of line 1 without its newline.
    line: Vec<u8>,
    mac: [u8; 32],
    body: B,
}

impl<B: Body> Sealed<B> {
    /// Reads and parses a file.
    pub fn read(path: &Path) -> Result<Self, SealError> {
        Self::parse(path, &store::read(path, MAX_SEALED)?)
    }

    /// Parses the bytes of a file; `path` is for messages.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, SealError> {
        let damaged = |what| SealError::Damaged { path: path.to_owned(), what };
        let (line, mac) = split(path, bytes, B::FORMAT, B::FEATURES)?;
        let body: B =
            serde_json::from_slice(line).map_err(|error| damaged(Flaw::Body(error.to_string())))?;
        check(&body).map_err(damaged)?;
        Ok(Self { path: path.to_owned(), line: line.to_vec(), mac, body })
    }

    /// The file that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The body, which anyone who can write to the storage may have made up.
    pub fn unverified(&self) -> &B {
        &self.body
    }

    /// The keys that can open it.
    pub fn key_ids(&self) -> impl Iterator<Item = &KeyId> {
        self.body.wraps().iter().map(|wrap| &wrap.key)
    }

    /// Unwraps the key inside with `kek`, whose id is `id`, and checks the MAC with it. After a failure
    /// another key may be tried.
    pub fn open(&self, kek: &Kek, id: &KeyId, arena: &Arena) -> Result<(B, B::Key), SealError> {
        let key = self.unwrap(kek, id, arena)?;
        self.verify(key, arena)
    }

    /// The same with what the provider of the KEK `id` got out of [`Sealed::wrap`].
    pub fn open_unwrapped(
        &self,
        key: OpaqueKey,
        id: &KeyId,
        arena: &Arena,
    ) -> Result<(B, B::Key), SealError> {
        let path = || self.path.clone();
        let wrap = self.wrap(id)?;
        let check = key.check_value().map_err(|source| SealError::Key { path: path(), source })?;
        let opened = match key.into_key::<B::Key>() {
            Ok(key) => self.verify(key, arena),
            Err(_) => Err(SealError::DamagedWrap { path: path(), key: id.clone() }),
        };
        // A key that verifies the file is the right one whatever the check value says.
        match opened {
            Err(SealError::MacMismatch { .. } | SealError::DamagedWrap { .. })
                if check != wrap.check =>
            {
                Err(SealError::WrongKey { path: path(), key: id.clone() })
            }
            other => other,
        }
    }

    /// The wrap for a KEK.
    pub fn wrap(&self, id: &KeyId) -> Result<&Wrap, SealError> {
        let found = self.body.wraps().iter().find(|wrap| wrap.key == *id);
        found.ok_or_else(|| SealError::NoWrap { path: self.path.clone(), key: id.clone() })
    }

    /// Body and key, if the MAC fits.
    fn verify(&self, key: B::Key, arena: &Arena) -> Result<(B, B::Key), SealError> {
        let mac = mac_key::<B>(&self.path, &key, arena)?;
        if !mac.verify(&[&self.line], &self.mac) {
            return Err(SealError::MacMismatch { path: self.path.clone() });
        }
        Ok((self.body.clone(), key))
    }

    fn unwrap(&self, kek: &Kek, id: &KeyId, arena: &Arena) -> Result<B::Key, SealError> {
        let (path, key) = (self.path.clone(), id.clone());
        let wrap = self.wrap(id)?;
        // A key that opens the blob is the right one whatever the check value says; the MAC then tells
        // that the check value was changed.
        match kek.open::<B::Key>(arena, &wrap.blob) {
            Ok(opened) => Ok(opened),
            Err(source @ OpenError::Arena(_)) => Err(SealError::Open { path, source }),
            Err(_) if wrap.check != kek.check_value() => Err(SealError::WrongKey { path, key }),
            Err(_) => Err(SealError::DamagedWrap { path, key }),
        }
    }
}

/// Writes a new file with sequence 1; fails when there is one.
pub fn create<B: Body>(
    path: &Path,
    body: &mut B,
    key: &B::Key,
    arena: &Arena,
) -> Result<(), SealError> {
    body.set_sequence(1);
    body.set_features(needed_features(body));
    store::put(path, &sealed(path, body, key, arena)?, Put::New)
}

/// Replaces a file by `body` with the next sequence number; fails when the file is not the one that the
/// body was read from. On failure `body` is as before, except after [`SealError::NotDurable`]: then the file has
/// the new sequence, and so has the body.
pub fn replace<B: Body>(
    path: &Path,
    body: &mut B,
    key: &B::Key,
    arena: &Arena,
) -> Result<(), SealError> {
    let expected = body.sequence();
    let found = Sealed::<B>::read(path)?.body.sequence();
    if found != expected {
        return Err(SealError::Stale { path: path.to_owned(), expected, found });
    }
    let next = expected.checked_add(1);
    body.set_sequence(next.ok_or_else(|| refused(path, Flaw::Sequence))?);
    body.set_features(needed_features(body));
    let done = sealed(path, body, key, arena).and_then(|bytes| store::put(path, &bytes, Put::Over));
    keep_sequence(body, expected, done)
}

/// What a reader must know: no more, so that the others stay readable for older programs.
fn needed_features<B: Body>(body: &B) -> Vec<String> {
    let mut features = body.needed_features();
    if body.wraps().iter().any(|wrap| wrap.alg == WrapAlg::Transit) {
        features.push(TRANSIT.to_owned());
    }
    features
}

/// Puts the old sequence back, unless the file has the new one.
fn keep_sequence<B: Body>(
    body: &mut B,
    old: u64,
    done: Result<(), SealError>,
) -> Result<(), SealError> {
    if done.as_ref().is_err_and(|error| !error.is_in_place()) {
        body.set_sequence(old);
    }
    done
}

/// The bytes of the file that holds `body`.
fn sealed<B: Body>(
    path: &Path,
    body: &B,
    key: &B::Key,
    arena: &Arena,
) -> Result<Vec<u8>, SealError> {
    check(body).map_err(|what| refused(path, what))?;
    join(path, body, &mac_key::<B>(path, key, arena)?)
}

/// The two lines of a file whose body is `body`, the second made with `key`.
pub(crate) fn join<B: Serialize>(
    path: &Path,
    body: &B,
    key: &MacKey,
) -> Result<Vec<u8>, SealError> {
    let mut bytes =
        serde_json::to_vec(body).map_err(|error| refused(path, Flaw::Body(error.to_string())))?;
    let mac = key.tag(&[&bytes]);
    bytes.extend_from_slice(format!("\n{MAC_OPEN}{}{MAC_CLOSE}\n", hex::encode(mac)).as_bytes());
    if bytes.len() > MAX_SEALED {
        return Err(SealError::TooLarge { path: path.to_owned(), limit: MAX_SEALED });
    }
    Ok(bytes)
}

fn refused(path: &Path, what: Flaw) -> SealError {
    SealError::Refused { path: path.to_owned(), what }
}

fn mac_key<B: Body>(path: &Path, key: &B::Key, arena: &Arena) -> Result<MacKey, SealError> {
    MacKey::derive(key, arena, B::MAC_INFO)
        .map_err(|source| SealError::Key { path: path.to_owned(), source })
}

/// The fields that every version has, read before anything else so that a newer file is told from a
/// damaged one.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
    #[serde(default)]
    features: Vec<String>,
}

/// The two lines of a file: the exact bytes of the body, whose format, version and features are checked, and the
/// MAC.
pub(crate) fn split<'a>(
    path: &Path,
    bytes: &'a [u8],
    format: &'static str,
    known: &[&str],
) -> Result<(&'a [u8], [u8; 32]), SealError> {
    let damaged = |what| SealError::Damaged { path: path.to_owned(), what };
    if bytes.len() > MAX_SEALED {
        return Err(SealError::TooLarge { path: path.to_owned(), limit: MAX_SEALED });
    }
    if bytes.is_empty() {
        return Err(damaged(Flaw::Empty));
    }
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(end);
    check_head(path, line, format, known)?;
    let mac_line = rest.strip_prefix(b"\n").and_then(|rest| rest.strip_suffix(b"\n"));
    let mac = parse_mac(mac_line.ok_or_else(|| damaged(Flaw::Lines))?).map_err(damaged)?;
    Ok((line, mac))
}

fn check_head(
    path: &Path,
    line: &[u8],
    format: &'static str,
    known: &[&str],
) -> Result<(), SealError> {
    let path = path.to_owned();
    let head = match serde_json::from_slice::<Head>(line) {
        Ok(head) => head,
        Err(error) if looks_like(line, format) => {
            return Err(SealError::Damaged { path, what: Flaw::Body(error.to_string()) });
        }
        Err(_) => return Err(SealError::NotOurs { path, expected: format, found: None }),
    };
    if head.format != format {
        let found = Some(head.format);
        return Err(SealError::NotOurs { path, expected: format, found });
    }
    if head.version != u64::from(VERSION) {
        let found = head.version;
        return Err(SealError::UnsupportedVersion { path, found, known: VERSION });
    }
    match head.features.into_iter().find(|feature| !known.contains(&feature.as_str())) {
        Some(feature) => Err(SealError::UnsupportedFeature { path, feature }),
        None => Ok(()),
    }
}

/// Whether text that does not parse was such a file once: its format stands near the start.
fn looks_like(line: &[u8], format: &str) -> bool {
    let head = line.get(..64).unwrap_or(line);
    head.windows(format.len()).any(|window| window == format.as_bytes())
}

const MAC_OPEN: &str = "{\"mac\":\"";
const MAC_CLOSE: &str = "\"}";

/// The MAC line has one spelling only: what no MAC covers must leave no choice.
fn parse_mac(line: &[u8]) -> Result<[u8; 32], Flaw> {
    let digits = line
        .strip_prefix(MAC_OPEN.as_bytes())
        .and_then(|rest| rest.strip_suffix(MAC_CLOSE.as_bytes()))
        .filter(|digits| digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f')))
        .ok_or(Flaw::MacLine)?;
    let mut mac = [0; 32];
    hex::decode_to_slice(digits, &mut mac).map_err(|_| Flaw::MacLine)?;
    Ok(mac)
}

fn check<B: Body>(body: &B) -> Result<(), Flaw> {
    let wraps = body.wraps();
    match wraps.len() {
        0 => return Err(Flaw::NoWraps),
        count if count > MAX_WRAPS => return Err(Flaw::TooManyWraps(count)),
        _ => {}
    }
    for (number, wrap) in wraps.iter().enumerate() {
        wrap.check_length::<B::Key>()?;
        if wraps[..number].iter().any(|earlier| earlier.key == wrap.key) {
            return Err(Flaw::SameKeyTwice(wrap.key.clone()));
        }
    }
    if body.features() != needed_features(body) {
        return Err(Flaw::Features);
    }
    body.check()
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
