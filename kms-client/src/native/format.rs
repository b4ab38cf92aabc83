//! The text of a key file. See `docs/format.md`.
//!
//! Owns the fields, what is checked before any of them is trusted, and in which order. It must not
//! touch a file or a clock. Flow: [`unseal`] opens the root key with the passphrase and then verifies
//! the MAC; [`seal`] makes the text of a changed body.

use super::lines::{self, Lines, VERSION};
use crate::{KeyState, KmsError};
use crypto::{
    Arena, Argon2Params, CheckValue, Kek, KeyError, MacKey, OpenError, Passphrase, RootKey,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FORMAT: &str = "coffer-keys";
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

/// An opened key file: everything in it has been verified.
pub(super) struct Unsealed {
    pub(super) body: Body,
    pub(super) root: RootKey,
    pub(super) mac: MacKey,
}

impl Body {
    /// Whether the key file is of the provider of that name, which the key ids in the safes carry.
    ///
    /// # Errors
    /// `Config`.
    pub(super) fn must_be_of(&self, name: &str, origin: &str) -> Result<(), KmsError> {
        if self.provider == name {
            return Ok(());
        }
        Err(KmsError::Config {
            origin: origin.to_owned(),
            problem: format!("belongs to the provider {:?}, not to {name:?}", self.provider),
            remedy: "give the provider that name in the configuration".to_owned(),
        })
    }
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

/// The text of a key file.
///
/// # Errors
/// `Limit` when it would be too large to be read again.
pub(super) fn seal(body: &Body, mac: &MacKey) -> Result<String, KmsError> {
    let text = lines::write(body, mac);
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
    let lines = Lines::<Body>::read(text, FORMAT, origin)?;
    let root = open_root(&lines.body, origin, passphrase, arena)?;
    let mac = MacKey::derive(&root, arena, MAC_INFO)?;
    let body = lines.verify(&mac)?;
    Ok(Unsealed { body, root, mac })
}

/// Opens a key file with its root key, which something else than the passphrase has kept. `Ok(None)` when the MAC does not
/// hold: the root key is that of another key file, or this one is damaged.
///
/// # Errors
/// `Unsupported`, `Damaged`, `Key`.
pub(super) fn unseal_with(
    text: &str,
    origin: &str,
    root: RootKey,
    arena: &Arena,
) -> Result<Option<Unsealed>, KmsError> {
    let lines = Lines::<Body>::read(text, FORMAT, origin)?;
    let mac = MacKey::derive(&root, arena, MAC_INFO)?;
    Ok(lines.verify(&mac).ok().map(|body| Unsealed { body, root, mac }))
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
