//! Sessions with the TPM that are salted with its storage key: commands and answers are authenticated, and one parameter of
//! each is ciphered (TPM 2.0 Library, part 1 sections 19 and 21).
//!
//! Owns nonces and the order of what is authenticated; the secrets are in `crypto`.

use super::fault::TpmFault;
use super::storage_key::StorageKey;
use super::wire::{self, ALG_AES, ALG_CFB, ALG_NULL, ALG_SHA256, Code, Params, Reader};
use super::{Tpm, wire::sha256};
use crypto::{Arena, TpmSalt, TpmSession};

/// Bytes of a nonce: as many as the hash has.
const NONCE: usize = 32;

/// TPM_RH_NULL (part 2 section 7.4): bound to no object.
const UNBOUND: u32 = 0x4000_0007;

/// Bits of the AES key of the session.
const AES_BITS: u16 = 128;

/// TPM_SE (part 2 section 6.11).
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Hmac = 0,
    Policy = 1,
}

/// Attributes of a session for its last command (TPMA_SESSION, part 2 section 8.4): without continueSession it ends with it.
pub(super) mod ends {
    /// The first parameter of the command is ciphered.
    pub(in super::super) const WITH_DECRYPT: u8 = 1 << 5;
    /// The first parameter of the answer is ciphered.
    pub(in super::super) const WITH_ENCRYPT: u8 = 1 << 6;
}

/// A session.
pub(super) struct Session {
    pub(super) handle: u32,
    pub(super) key: TpmSession,
    /// The nonce that the TPM gave last.
    pub(super) of_tpm: [u8; NONCE],
    /// The one that we gave last.
    ours: [u8; NONCE],
}

impl Session {
    /// TPM2_StartAuthSession (part 3 section 11.1).
    pub(super) fn begin(
        tpm: &mut Tpm<'_>,
        arena: &Arena,
        parent: &StorageKey,
        kind: Kind,
    ) -> Result<Self, TpmFault> {
        let salt = TpmSalt::agree(arena, &parent.point)?;
        let ours: [u8; NONCE] = crypto::random_array()?;
        let [x, y] = salt.point();
        let secret = Params::default().sized(x).sized(y).take();
        let params = Params::default().sized(&ours).sized(&secret).bytes(&[kind as u8]);
        let params = params.u16(ALG_AES).u16(AES_BITS).u16(ALG_CFB).u16(ALG_SHA256).take();
        let handles = [parent.handle, UNBOUND];
        let answer = tpm.run(Code::START_AUTH_SESSION, &handles, None, &params)?;
        let mut reader = Reader::new(&answer);
        let handle = reader.u32()?;
        let of_tpm = nonce(&mut reader)?;
        reader.end()?;
        Ok(Self { handle, key: salt.session(arena, &of_tpm, &ours)?, of_tpm, ours })
    }

    /// A new nonce of ours, for the next command.
    pub(super) fn next_nonce(&mut self) -> Result<[u8; NONCE], TpmFault> {
        self.ours = crypto::random_array()?;
        Ok(self.ours)
    }

    /// Sends a command that this session authorises for its handles, which come with their names; returns the parameters of
    /// the answer. `ours` was made by [`Self::next_nonce`].
    pub(super) fn run(
        &mut self,
        tpm: &mut Tpm<'_>,
        code: Code,
        handles: &[(u32, &[u8])],
        params: &[u8],
        attributes: u8,
    ) -> Result<Vec<u8>, TpmFault> {
        let command = code.0.to_be_bytes();
        let mut hashed: Vec<&[u8]> = vec![&command];
        hashed.extend(handles.iter().map(|(_, name)| *name));
        hashed.push(params);
        let tag = self.key.tag(&[&sha256(&hashed), &self.ours, &self.of_tpm, &[attributes]]);
        let area = Params::default().u32(self.handle).sized(&self.ours).bytes(&[attributes]);
        let numbers: Vec<u32> = handles.iter().map(|(handle, _)| *handle).collect();
        let answer = tpm.run(code, &numbers, Some(&area.sized(&tag).take()), params)?;
        self.check(code, &answer, attributes)
    }

    /// Whether the answer is from the TPM that knows the salt (part 1 section 19.6.5).
    fn check(&mut self, code: Code, answer: &[u8], attributes: u8) -> Result<Vec<u8>, TpmFault> {
        let parts = wire::parts(code, answer)?;
        let mut area = Reader::new(parts.authorisation);
        self.of_tpm = nonce(&mut area)?;
        let returned = area.u8()?;
        let tag = area.sized()?;
        area.end()?;
        let hash = sha256(&[&[0; 4], &code.0.to_be_bytes(), parts.params]);
        let authentic = self.key.verify(&[&hash, &self.of_tpm, &self.ours, &[returned]], tag);
        if authentic && returned == attributes {
            Ok(parts.params.to_vec())
        } else {
            Err(TpmFault::NotAuthentic)
        }
    }
}

fn nonce(reader: &mut Reader<'_>) -> Result<[u8; NONCE], TpmFault> {
    reader.sized()?.try_into().map_err(|_| TpmFault::Garbled("a nonce of another length"))
}

/// TPMT_SYM_DEF_OBJECT of a storage key, and what follows it in an ECC key: no scheme, NIST P-256, no KDF (part 2 sections
/// 11.1.7 and 12.2.3.6).
pub(super) fn storage_parameters() -> Vec<u8> {
    const NIST_P256: u16 = 3;
    let cipher = Params::default().u16(ALG_AES).u16(AES_BITS).u16(ALG_CFB);
    cipher.u16(ALG_NULL).u16(NIST_P256).u16(ALG_NULL).take()
}
