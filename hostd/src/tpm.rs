//! Verbs on the TPM seal of the native provider: status, seal, remove.
//!
//! Owns the way from the API to `kms_client::native`; never sees a key. One verb at a time uses the TPM.

use crate::fault::Fault;
use crate::host::Host;
use hostd_api::kms::{SealToTpm, TpmOpener, TpmStatus};
use kms_client::native::tpm::PcrSet;
use kms_client::native::{self, OpenedBy, SealStatus};
use std::sync::{MutexGuard, PoisonError};

impl Host {
    /// `GET /v1/keys/tpm`: tries the seal, if there is one.
    ///
    /// # Errors
    /// Faults of the file; what is wrong with seal or TPM is in the answer.
    pub fn tpm_status(&self) -> Result<TpmStatus, Fault> {
        let _one_at_a_time = self.use_tpm();
        self.try_seal()
    }

    /// `POST /v1/keys/tpm/seal`.
    ///
    /// # Errors
    /// `invalid-argument` for a PCR that does not exist; `provider-unavailable` when the native provider is not open, and
    /// for faults of the TPM.
    pub fn seal_to_tpm(&self, body: &SealToTpm) -> Result<TpmStatus, Fault> {
        let pcrs = PcrSet::new(&body.pcrs).ok_or_else(|| {
            Fault::invalid(format!("{:?} are not PCRs", body.pcrs), "choose PCRs from 0 to 23")
        })?;
        let native = self.native()?;
        let _one_at_a_time = self.use_tpm();
        native.seal_to_tpm(&self.config.keeper(), pcrs, self.keyring.arena())?;
        self.try_seal()
    }

    /// `DELETE /v1/keys/tpm`.
    ///
    /// # Errors
    /// `not-found` when there is no seal; faults of the file.
    pub fn remove_seal(&self) -> Result<TpmStatus, Fault> {
        let _one_at_a_time = self.use_tpm();
        match &self.native {
            Some(native) => native.remove_seal()?,
            None => native::remove_seal(&self.config.native_file())?,
        }
        self.try_seal()
    }

    fn use_tpm(&self) -> MutexGuard<'_, ()> {
        self.sealing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_seal(&self) -> Result<TpmStatus, Fault> {
        let (file, keeper) = (self.config.native_file(), self.config.keeper());
        let seal = native::seal_status(&file, &keeper, self.keyring.arena())?;
        let opened_by = self.native.as_ref().map(|native| match native.opened_by() {
            OpenedBy::Passphrase => TpmOpener::Passphrase,
            OpenedBy::Tpm => TpmOpener::Tpm,
        });
        let detail = self.seal_detail(seal.as_ref());
        Ok(TpmStatus {
            tpm: keeper.address.to_string(),
            sealed: seal.is_some(),
            opens: seal.as_ref().map(|seal| seal.fault.is_none()),
            sealed_at: seal.as_ref().and_then(|seal| seal.sealed_at),
            pcrs: seal.map(|seal| seal.pcrs).unwrap_or_default(),
            opened_by,
            detail,
        })
    }

    fn seal_detail(&self, seal: Option<&SealStatus>) -> String {
        match seal {
            Some(SealStatus { fault: Some(fault), .. }) => fault.to_string(),
            Some(_) => {
                "the TPM opens the key file; so does its passphrase, here and elsewhere".into()
            }
            None if self.config.provider.native.has_passphrase() => {
                "there is no TPM seal: hostd takes the passphrase at each start".into()
            }
            None => "there is no TPM seal, and no passphrase_file, credential or prompt is set in \
                     [provider.native]: the next start of hostd leaves the provider closed"
                .into(),
        }
    }
}

#[cfg(test)]
#[path = "tpm_tests.rs"]
mod tests;
