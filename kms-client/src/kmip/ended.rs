//! Taking keys back and destroying them, as the trait of providers has it.
//!
//! Owns the translation of what servers said. It must not know sockets or messages; the steps are in `ending`.

use super::ending::Ended;
use super::fetching::FetchFault;
use super::provider::Inner;
use super::refused::Refused;
use super::values::Revocation;
use crate::{KmsError, Said};
use crypto::KeyId;
use std::time::Instant;

impl Inner {
    pub(super) fn revoke(
        &self,
        key: &KeyId,
        compromised: bool,
        why: &str,
    ) -> Result<Vec<Said>, KmsError> {
        let reason =
            if compromised { Revocation::KeyCompromise } else { Revocation::CessationOfOperation };
        let end = self.cluster.end();
        let done = self.cluster.revoke(key.uid(), reason, why, end);
        done.map_err(|refused| self.ending_fault(key, &refused))?;
        Ok(self.look_at(key, end))
    }

    pub(super) fn destroy(&self, key: &KeyId) -> Result<Vec<Said>, KmsError> {
        let end = self.cluster.end();
        let done = self.cluster.destroy(key.uid(), end);
        match done.map_err(|refused| self.ending_fault(key, &refused))? {
            Ended::Done => Ok(self.look_at(key, end)),
            Ended::StillActive => Err(KmsError::Denied {
                provider: self.settings.name.clone(),
                reason: format!(
                    "key {key} is active, so other hosts may be using it; take it back by `coffer key revoke` \
                     first, and wait whether one of them warns"
                ),
            }),
        }
    }

    /// What all servers say of the key now, which is noted as after a check.
    fn look_at(&self, key: &KeyId, end: Instant) -> Vec<Said> {
        let said = self.cluster.ask_all(key.uid(), end).into_iter();
        let said = said.filter_map(|(index, said)| {
            let server = self.cluster.members.get(index)?.node.address();
            self.ledger.said_by(key.uid(), &server, said, (self.clock)());
            Some(Said { server, state: said.to_string() })
        });
        said.collect()
    }

    fn ending_fault(&self, key: &KeyId, refused: &Refused) -> KmsError {
        FetchFault::of(refused, self.cluster.members.len()).into_error(key)
    }
}
