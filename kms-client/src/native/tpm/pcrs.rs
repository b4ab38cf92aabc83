//! PCRs: which ones, their values, and the policy that they make.
//!
//! Owns selections and policy digests (TPM 2.0 Library, part 2 section 10.6, part 3 sections 23.7 and 23.11). The bank is
//! always that of SHA-256.

use super::fault::TpmFault;
use super::wire::{ALG_SHA256, Code, Params, Reader, sha256};
use std::fmt;

/// PCRs of a PC (TCG PC Client Platform TPM Profile): a bitmap of three bytes.
const COUNT: u8 = 24;

/// A set of PCRs, 0 to 23.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PcrSet(u32);

/// A PCR and the value that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcrValue {
    /// Its number.
    pub pcr: u8,
    /// Its value in the bank of SHA-256.
    pub value: [u8; 32],
}

impl PcrSet {
    /// These PCRs; `None` when one of them does not exist. One that is named twice counts once.
    #[must_use]
    pub fn new(pcrs: &[u8]) -> Option<Self> {
        let known = pcrs.iter().all(|pcr| *pcr < COUNT);
        known.then(|| Self(pcrs.iter().fold(0, |set, pcr| set | 1 << pcr)))
    }

    pub(super) fn of(values: &[PcrValue]) -> Self {
        Self(
            values
                .iter()
                .fold(0, |set, value| set | 1_u32.checked_shl(value.pcr.into()).unwrap_or(0)),
        )
    }

    pub(super) fn first(self) -> Option<u8> {
        self.iter().next()
    }

    pub(super) fn remove(&mut self, pcr: u8) {
        self.0 &= !(1 << pcr);
    }

    /// The PCRs in order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..COUNT).filter(move |pcr| self.0 >> pcr & 1 == 1)
    }

    /// TPML_PCR_SELECTION with one bank.
    pub(super) fn selection(self) -> Vec<u8> {
        let [a, b, c, _] = self.0.to_le_bytes();
        Params::default().u32(1).u16(ALG_SHA256).bytes(&[3, a, b, c]).take()
    }
}

impl fmt::Display for PcrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.iter().map(|pcr| pcr.to_string()).collect();
        f.write_str(&list.join(","))
    }
}

/// The answer to TPM2_PCR_Read: values of some of those that were asked for, in order.
pub(super) fn read(answer: &[u8], asked: PcrSet) -> Result<Vec<PcrValue>, TpmFault> {
    let garbled = TpmFault::Garbled("PCRs that were not asked for");
    let mut reader = Reader::new(answer);
    let _update_counter = reader.u32()?;
    let mut given = PcrSet::default();
    for _ in 0..reader.count()? {
        let bank = reader.u16()?;
        let size = usize::from(reader.u8()?);
        let bits = reader.bytes(size)?;
        if bank == ALG_SHA256
            && let [a, b, c, ..] = *bits
        {
            given.0 |= u32::from_le_bytes([a, b, c, 0]);
        }
    }
    if given.0 & !asked.0 != 0 {
        return Err(garbled);
    }
    let count = reader.count()?;
    let mut values = Vec::new();
    for pcr in given.iter().take(count) {
        let value = reader.sized()?.try_into();
        let value = value.map_err(|_| TpmFault::Garbled("a PCR that is no SHA-256"))?;
        values.push(PcrValue { pcr, value });
    }
    if values.len() != count {
        return Err(garbled);
    }
    Ok(values)
}

/// SHA-256 of the values one after the other: `pcrDigest` of TPM2_PolicyPCR.
pub(super) fn digest(values: &[PcrValue]) -> [u8; 32] {
    let parts: Vec<&[u8]> = values.iter().map(|value| &value.value[..]).collect();
    sha256(&parts)
}

/// The policy: unseal and nothing else, and only while the PCRs, if there are any, have these values.
pub(super) fn policy(values: &[PcrValue]) -> [u8; 32] {
    let (code, unseal) = (Code::POLICY_COMMAND_CODE.0.to_be_bytes(), Code::UNSEAL.0.to_be_bytes());
    let only_unseal = sha256(&[&[0; 32], &code, &unseal]);
    if values.is_empty() {
        return only_unseal;
    }
    let selection = PcrSet::of(values).selection();
    let code = Code::POLICY_PCR.0.to_be_bytes();
    sha256(&[&only_unseal, &code, &selection, &digest(values)])
}
