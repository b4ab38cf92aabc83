//! The text of a TPM seal, `native.keys.tpm` beside the key file. See `docs/format.md`.
//!
//! Owns its fields and the order in which they are trusted. It must not touch a file. Flow: [`write()`] makes the text of a
//! seal; [`Seal::read`] takes it apart, and [`Seal::root`] opens the root key with the KEK that the TPM gave back.

use super::lines::{self, Lines, VERSION};
use super::tpm::{MAX_AREA, PcrSet, PcrValue, Sealed};
use crate::KmsError;
use crypto::{Arena, CheckValue, Kek, MacKey, OpenError, RootKey};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "coffer-tpm-seal";
const MAC_INFO: &str = "coffer v1 tpm seal mac";

/// Largest text that is read: ten times the one of 24 PCRs.
pub(super) const MAX_BYTES: usize = 64 << 10;

/// Line 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    format: String,
    version: u64,
    features: Vec<String>,
    /// Name of the provider whose root key is inside.
    provider: String,
    /// When it was made, seconds since 1970.
    sealed_at: u64,
    /// Digest in the name of the storage key, in hex.
    parent: String,
    /// Public and private area of the sealed object, in hex.
    public: String,
    private: String,
    /// The PCRs of its policy, with their values.
    pcrs: Vec<Pcr>,
    /// Check value of the KEK that the TPM keeps.
    check: CheckValue,
    /// The root key, wrapped by that KEK, in hex.
    root: String,
}

/// One PCR.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pcr {
    pcr: u8,
    sha256: String,
}

/// A seal in good shape. Until [`Self::root`] all of it is hearsay.
pub(super) struct Seal<'a> {
    lines: Lines<'a, Body>,
    /// What the TPM needs.
    pub(super) sealed: Sealed,
    origin: &'a str,
}

/// What a seal holds besides the root key, for its text.
pub(super) struct Parts<'a> {
    pub(super) provider: &'a str,
    pub(super) sealed_at: u64,
    pub(super) sealed: &'a Sealed,
}

/// The text of a new seal.
///
/// # Errors
/// `Key`.
pub(super) fn write(
    parts: &Parts<'_>,
    kek: &Kek,
    root: &RootKey,
    arena: &Arena,
) -> Result<String, KmsError> {
    let pcr = |value: &PcrValue| Pcr { pcr: value.pcr, sha256: hex::encode(value.value) };
    let body = Body {
        format: FORMAT.to_owned(),
        version: VERSION,
        features: Vec::new(),
        provider: parts.provider.to_owned(),
        sealed_at: parts.sealed_at,
        parent: hex::encode(parts.sealed.parent),
        public: hex::encode(&parts.sealed.public),
        private: hex::encode(&parts.sealed.private),
        pcrs: parts.sealed.pcrs.iter().map(pcr).collect(),
        check: kek.check_value(),
        root: hex::encode(kek.wrap(root)?),
    };
    Ok(lines::write(&body, &MacKey::derive(root, arena, MAC_INFO)?))
}

impl<'a> Seal<'a> {
    /// Takes the text apart.
    ///
    /// # Errors
    /// `SealDamaged`, `Unsupported`.
    pub(super) fn read(text: &'a str, origin: &'a str) -> Result<Self, KmsError> {
        if text.len() > MAX_BYTES {
            return Err(damaged(origin, "it is larger than 64 KiB"));
        }
        let lines = Lines::<Body>::read(text, FORMAT, origin).map_err(of_seal)?;
        let sealed = sealed(&lines.body);
        let sealed = sealed.ok_or_else(|| damaged(origin, "what is for the TPM makes no sense"))?;
        Ok(Self { lines, sealed, origin })
    }

    /// When it was made, as far as that can be believed.
    pub(super) fn sealed_at(&self) -> u64 {
        self.lines.body.sealed_at
    }

    /// The root key. Each step has a fault of its own: another key in the TPM, a damaged wrap, an edited text.
    ///
    /// # Errors
    /// `SealDamaged`, `Key`.
    pub(super) fn root(self, kek: &Kek, arena: &Arena) -> Result<RootKey, KmsError> {
        if kek.check_value() != self.lines.body.check {
            return Err(damaged(self.origin, "its check value is not that of the key in the TPM"));
        }
        let blob = hex::decode(&self.lines.body.root);
        let blob = blob.map_err(|_| damaged(self.origin, "root is not hex"))?;
        let root = kek.open::<RootKey>(arena, &blob).map_err(|fault| match fault {
            OpenError::Arena(e) => KmsError::Key(e.into()),
            _ => damaged(self.origin, "root does not open"),
        })?;
        self.lines.verify(&MacKey::derive(&root, arena, MAC_INFO)?).map_err(of_seal)?;
        Ok(root)
    }
}

fn sealed(body: &Body) -> Option<Sealed> {
    let pcr = |entry: &Pcr| Some(PcrValue { pcr: entry.pcr, value: digest(&entry.sha256)? });
    let pcrs: Vec<PcrValue> = body.pcrs.iter().map(pcr).collect::<Option<_>>()?;
    let numbers: Vec<u8> = pcrs.iter().map(|value| value.pcr).collect();
    // In order, and none twice: as they were made.
    let known = PcrSet::new(&numbers)?.iter().eq(numbers.iter().copied());
    let (public, private) = (hex::decode(&body.public).ok()?, hex::decode(&body.private).ok()?);
    let fits = |area: &Vec<u8>| (1..=MAX_AREA).contains(&area.len());
    let sealed = Sealed { parent: digest(&body.parent)?, public, private, pcrs };
    (known && fits(&sealed.public) && fits(&sealed.private)).then_some(sealed)
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// A damaged seal is made anew rather than restored.
fn of_seal(fault: KmsError) -> KmsError {
    match fault {
        KmsError::Damaged { origin, what } => KmsError::SealDamaged { origin, what },
        other => other,
    }
}

fn damaged(origin: &str, what: &str) -> KmsError {
    KmsError::SealDamaged { origin: origin.to_owned(), what: what.to_owned() }
}
