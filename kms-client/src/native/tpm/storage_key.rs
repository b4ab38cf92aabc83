//! The storage key of the owner hierarchy: derived from the seed of the TPM by a template that everybody uses, so that it is
//! the same one each time, until the TPM is cleared.
//!
//! Owns the template, and what a storage key must look like that was made by it.

use super::fault::TpmFault;
use super::session::storage_parameters;
use super::wire::{self, ALG_ECC, ALG_SHA256, Code, Params, Reader};
use super::{Tpm, wire::sha256};
use crypto::TpmPoint;

/// TPM_RH_OWNER (part 2 section 7.4).
const OWNER: u32 = 0x4000_0001;

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt (part 2 section 8.3).
const ATTRIBUTES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10 | 1 << 16 | 1 << 17;

/// Bytes of a coordinate.
const COORDINATE: usize = 32;

/// A storage key that is loaded.
pub(super) struct StorageKey {
    pub(super) handle: u32,
    pub(super) point: TpmPoint,
    /// Digest in its name.
    pub(super) digest: [u8; 32],
}

impl StorageKey {
    /// TPM2_CreatePrimary (part 3 section 24.1) with the ECC template for storage keys of the TCG TPM v2.0 Provisioning
    /// Guidance, section 7.5.1. ECC, because a TPM takes many seconds for an RSA key.
    pub(super) fn make(tpm: &mut Tpm<'_>) -> Result<Self, TpmFault> {
        let sensitive = Params::default().sized(&[]).sized(&[]).take();
        let point = Params::default().sized(&[0; COORDINATE]).sized(&[0; COORDINATE]).take();
        let template = Params::default().bytes(&head()).bytes(&point).take();
        // Neither data of the creator nor PCRs of the creation.
        let params = Params::default().sized(&sensitive).sized(&template).sized(&[]).u32(0).take();
        let answer = tpm.run_plainly(Code::CREATE_PRIMARY, OWNER, &params)?;
        let parts = wire::parts(Code::CREATE_PRIMARY, &answer)?.after_password()?;
        let handle = parts.handle.ok_or(TpmFault::Garbled("a key without a handle"))?;
        let made = Self::read(handle, parts.params);
        if made.is_err() {
            tpm.flush(handle);
        }
        made
    }

    fn read(handle: u32, params: &[u8]) -> Result<Self, TpmFault> {
        let public = Reader::new(params).sized()?;
        let unique = public.strip_prefix(&head()[..]);
        let mut unique = Reader::new(unique.ok_or(TpmFault::Garbled("another kind of key"))?);
        let (x, y) = (coordinate(&mut unique)?, coordinate(&mut unique)?);
        unique.end()?;
        Ok(Self { handle, point: [x, y], digest: sha256(&[public]) })
    }

    /// Its name (part 1 section 16).
    pub(super) fn name(&self) -> Vec<u8> {
        Params::default().u16(ALG_SHA256).bytes(&self.digest).take()
    }
}

/// TPMT_PUBLIC up to the point: type, hash, attributes, no policy, parameters.
fn head() -> Vec<u8> {
    let head = Params::default().u16(ALG_ECC).u16(ALG_SHA256).u32(ATTRIBUTES).sized(&[]);
    head.bytes(&storage_parameters()).take()
}

fn coordinate(reader: &mut Reader<'_>) -> Result<[u8; COORDINATE], TpmFault> {
    reader.sized()?.try_into().map_err(|_| TpmFault::Garbled("a coordinate of another length"))
}
