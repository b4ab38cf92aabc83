//! Text of two lines of JSON, a body and its MAC: what the key file and the TPM seal have in common. See `docs/format.md`.
//!
//! Owns the lines, their spelling, and the fields that every version keeps. It must not know what else is in a body. Flow:
//! [`Lines::read`] tells foreign, later and damaged text apart; [`Lines::verify`] gives the body away once the MAC
//! holds; [`write()`] makes the text of a body.

use crate::KmsError;
use crypto::MacKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of all files.
pub(super) const VERSION: u64 = 1;

/// The fields that every version keeps, read before anything else is understood.
#[derive(Deserialize)]
struct Preamble {
    format: String,
    version: u64,
    features: Vec<String>,
}

/// Line 2.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MacLine {
    mac: String,
}

/// Text in good shape whose MAC was not verified yet: all of it is hearsay.
pub(super) struct Lines<'a, B> {
    /// What line 1 says.
    pub(super) body: B,
    line: &'a str,
    mac: &'a str,
    origin: &'a str,
}

impl<'a, B: DeserializeOwned> Lines<'a, B> {
    /// Reads text of this format.
    ///
    /// # Errors
    /// `Unsupported` for a later version or a feature, `Damaged` for everything else.
    pub(super) fn read(text: &'a str, format: &str, origin: &'a str) -> Result<Self, KmsError> {
        check_preamble(text, format, origin)?;
        let (line, mac) = split(text).ok_or_else(|| damaged(origin, "it is not two lines"))?;
        let body = serde_json::from_str(line);
        let body = body.map_err(|e| damaged(origin, &format!("line 1: {e}")))?;
        Ok(Self { body, line, mac, origin })
    }

    /// The body, if the MAC holds.
    ///
    /// # Errors
    /// `Damaged`.
    pub(super) fn verify(self, mac: &MacKey) -> Result<B, KmsError> {
        let tag = parse_mac(self.mac);
        let tag = tag.ok_or_else(|| damaged(self.origin, "line 2 is not a MAC"))?;
        if !mac.verify(&[self.line.as_bytes()], &tag) {
            return Err(damaged(self.origin, "its MAC does not match"));
        }
        Ok(self.body)
    }
}

/// The text: the body, and the MAC over exactly that line.
pub(super) fn write<B: Serialize>(body: &B, mac: &MacKey) -> String {
    let line = to_json(body);
    let tag = mac_line(&mac.tag(&[line.as_bytes()]));
    format!("{line}\n{tag}\n")
}

pub(super) fn damaged(origin: &str, what: &str) -> KmsError {
    KmsError::Damaged { origin: origin.to_owned(), what: what.to_owned() }
}

/// Tells a foreign file and a later version from damage.
fn check_preamble(text: &str, format: &str, origin: &str) -> Result<(), KmsError> {
    let first = text.split('\n').next().unwrap_or_default();
    let preamble: Preamble = serde_json::from_str(first)
        .map_err(|e| damaged(origin, &format!("line 1 does not begin as a {format} file: {e}")))?;
    if preamble.format != format {
        let what = format!("its format is {:?}, not \"{format}\"", preamble.format);
        return Err(damaged(origin, &what));
    }
    let unsupported = |what: String| KmsError::Unsupported { origin: origin.to_owned(), what };
    if preamble.version != VERSION {
        return Err(unsupported(format!("its version is {}, not {VERSION}", preamble.version)));
    }
    match preamble.features.first() {
        Some(feature) => Err(unsupported(format!("it needs the feature {feature:?}"))),
        None => Ok(()),
    }
}

/// Exactly two lines, each ended by one newline.
fn split(text: &str) -> Option<(&str, &str)> {
    let (line, rest) = text.split_once('\n')?;
    let mac = rest.strip_suffix('\n')?;
    (!mac.contains('\n')).then_some((line, mac))
}

/// Reads line 2. Only the spelling that [`write()`] makes is taken: hex in capitals or another spacing
/// would be the same MAC in a changed file.
fn parse_mac(text: &str) -> Option<[u8; 32]> {
    let line: MacLine = serde_json::from_str(text).ok()?;
    let mut tag = [0; 32];
    hex::decode_to_slice(&line.mac, &mut tag).ok()?;
    (mac_line(&tag) == text).then_some(tag)
}

fn mac_line(tag: &[u8; 32]) -> String {
    to_json(&MacLine { mac: hex::encode(tag) })
}

fn to_json<T: Serialize>(value: &T) -> String {
    #[expect(
        clippy::expect_used,
        reason = "plain fields with string keys cannot fail to serialise"
    )]
    serde_json::to_string(value).expect("plain fields with string keys cannot fail to serialise")
}
