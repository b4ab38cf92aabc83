//! The text of a key file: two lines of JSON, the body and its MAC. See `docs/format.md`.
//!
//! Owns the fields, what is checked before any of them is trusted, and in which order. It must not
//! touch a file or a clock. Flow: [`unseal`] opens the root key with the passphrase and then verifies
//! the MAC; [`seal`] makes the text of a changed body.

use crate::{KeyState, KmsError};
use crypto::{
    Arena, Argon2Params, CheckValue, Kek, KeyError, MacKey, OpenError, Passphrase, RootKey,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FORMAT: &str = "coffer-keys";
const VERSION: u64 = 1;
const MAC_INFO: &str = "coffer v1 keys mac";

/// Most keys that one file records: one KEK per VM, several times what a host or a small cluster
/// runs, and the file, written anew for every key, stays below 6 MiB.
pub(super) const MAX_KEYS: usize = 65_536;

/// Line 1 of a key file. No Debug: it carries the wrapped root key, which is never logged.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    format: String,
    version: u64,
    features: Vec<String>,
    /// One more for every file that replaced another.
    pub(super) sequence: u64,
    /// Name of the provider, the part of its key ids before the slash.
    pub(super) provider: String,
    kdf: Kdf,
    /// Check value of the KEK that comes from the passphrase.
    check: CheckValue,
    /// The root key, wrapped by the KEK that comes from the passphrase, in hex.
    root: String,
    /// Keys made so far. Not needed to derive them: it is the record for people.
    pub(super) keys: Vec<Entry>,
    /// When a backup was confirmed, seconds since 1970.
    pub(super) backed_up_at: Option<u64>,
}

/// How the passphrase becomes a KEK.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "alg")]
enum Kdf {
    #[serde(rename = "argon2id")]
    Argon2id(Argon2Params),
}

/// One key in the list.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) uid: Uuid,
    pub(super) created_at: u64,
    pub(super) state: KeyState,
}

/// Line 2.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MacLine {
    mac: String,
}

/// The fields that every version keeps, read before anything else is understood.
#[derive(Deserialize)]
struct Preamble {
    format: String,
    version: u64,
    features: Vec<String>,
}

/// An opened key file: everything in it has been verified.
pub(super) struct Unsealed {
    pub(super) body: Body,
    pub(super) root: RootKey,
    pub(super) mac: MacKey,
}

/// Makes the body and the text of a first key file, with a new root key.
///
/// # Errors
/// `Key` when the parameters are out of bounds or key memory is short.
pub(super) fn new_file(
    provider: &str,
    passphrase: &Passphrase,
    params: Argon2Params,
    arena: &Arena,
) -> Result<String, KmsError> {
    let kek = Kek::from_passphrase(arena, passphrase, &params)?;
    let root = RootKey::generate(arena)?;
    let body = Body {
        format: FORMAT.to_owned(),
        version: VERSION,
        features: Vec::new(),
        sequence: 1,
        provider: provider.to_owned(),
        kdf: Kdf::Argon2id(params),
        check: kek.check_value(),
        root: hex::encode(kek.wrap(&root)?),
        keys: Vec::new(),
        backed_up_at: None,
    };
    seal(&body, &MacKey::derive(&root, arena, MAC_INFO)?)
}

/// The text of a key file: the body, and the MAC over exactly that line.
///
/// # Errors
/// `Limit` when it would be too large to be read again.
pub(super) fn seal(body: &Body, mac: &MacKey) -> Result<String, KmsError> {
    let line = to_json(body);
    let tag = mac_line(&mac.tag(&[line.as_bytes()]));
    let text = format!("{line}\n{tag}\n");
    if text.len() as u64 > super::file::MAX_FILE_BYTES {
        return Err(KmsError::Limit {
            what: "the key file would be too large".to_owned(),
            limit: super::file::MAX_FILE_BYTES,
        });
    }
    Ok(text)
}

/// Opens a key file. The passphrase is judged first, then the MAC; nothing of the body is used before
/// the MAC holds, but for the bounded inputs of the key derivation.
///
/// # Errors
/// `Unsupported` for a later version or feature, `WrongPassphrase`, `Damaged` for everything else that
/// does not hold, `Key` when key memory is short.
pub(super) fn unseal(
    text: &str,
    origin: &str,
    passphrase: &Passphrase,
    arena: &Arena,
) -> Result<Unsealed, KmsError> {
    let damaged = |what: String| KmsError::Damaged { origin: origin.to_owned(), what };
    check_preamble(text, origin)?;
    let (line, mac_text) = split(text).ok_or_else(|| damaged("it is not two lines".to_owned()))?;
    let body: Body = serde_json::from_str(line).map_err(|e| damaged(format!("line 1: {e}")))?;
    let root = open_root(&body, origin, passphrase, arena)?;
    let mac = MacKey::derive(&root, arena, MAC_INFO)?;
    let tag = parse_mac(mac_text).ok_or_else(|| damaged("line 2 is not a MAC".to_owned()))?;
    if !mac.verify(&[line.as_bytes()], &tag) {
        return Err(damaged("its MAC does not match".to_owned()));
    }
    Ok(Unsealed { body, root, mac })
}

/// Tells a foreign file and a later version from damage.
fn check_preamble(text: &str, origin: &str) -> Result<(), KmsError> {
    let first = text.split('\n').next().unwrap_or_default();
    let preamble: Preamble = serde_json::from_str(first).map_err(|e| KmsError::Damaged {
        origin: origin.to_owned(),
        what: format!("line 1 does not begin as a key file: {e}"),
    })?;
    if preamble.format != FORMAT {
        return Err(KmsError::Damaged {
            origin: origin.to_owned(),
            what: format!("its format is {:?}, not \"{FORMAT}\"", preamble.format),
        });
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

/// Opens the root key. A check value that differs while the wrap opens is a damaged check value: the
/// wrap carries 64 bits of integrity (RFC 3394), so the passphrase is proven right by it.
fn open_root(
    body: &Body,
    origin: &str,
    passphrase: &Passphrase,
    arena: &Arena,
) -> Result<RootKey, KmsError> {
    let damaged =
        |what: &str| KmsError::Damaged { origin: origin.to_owned(), what: what.to_owned() };
    let Kdf::Argon2id(params) = &body.kdf;
    let kek = Kek::from_passphrase(arena, passphrase, params).map_err(|e| match e {
        KeyError::Argon2Bounds { .. } => damaged(&format!("kdf: {e}")),
        other => KmsError::Key(other),
    })?;
    let blob = hex::decode(&body.root).map_err(|_| damaged("root is not hex"))?;
    let known = kek.check_value() == body.check;
    match kek.open::<RootKey>(arena, &blob) {
        Ok(root) if known => Ok(root),
        Ok(_) => Err(damaged("check does not fit the passphrase that opens root")),
        Err(OpenError::Arena(e)) => Err(KmsError::Key(e.into())),
        Err(_) if known => Err(damaged("root does not open")),
        Err(_) => Err(KmsError::WrongPassphrase { origin: origin.to_owned() }),
    }
}

/// Reads line 2. Only the spelling that [`seal`] writes is taken: hex in capitals or another spacing
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
