//! Fetches of keys: gathered, noted in the ledger, and their faults as all who waited are told them.
//!
//! Owns the way from one wanted key to the cluster and back. It must not know sockets or messages. Flow: [`Inner::fetch`] gathers keys that
//! are wanted at the same time; several are asked for in one message, and those of which there is something to say again, alone.

use super::cluster::Fetched;
use super::fault::Fault;
use super::gate::MAX_WAIT;
use super::provider::Inner;
use super::refused::Refused;
use super::said::Said;
use super::values::State;
use crate::KmsError;
use crypto::{Kek, KeyId};
use std::sync::Arc;
use std::time::Instant;

/// What to do about a compromised key.
const BY_LEAVE: &str = "; allow_compromised lets it unwrap what there is";

/// What came of a fetch, for all who waited for it.
pub(super) type FetchResult = Result<Arc<Kek>, FetchFault>;

/// Why a fetch failed, for all who waited for it.
#[derive(Debug, Clone)]
pub(super) enum FetchFault {
    NotFound(String),
    Inactive(String),
    Denied(String),
    BadKey(String),
    Unavailable(String),
}

impl Inner {
    /// Brings a key, together with others that are wanted now.
    pub(super) fn fetch(&self, uid: &str) -> FetchResult {
        let end = Instant::now() + MAX_WAIT;
        let brought = self.gather.bring(uid, end, |uids| self.fetch_some(uids));
        let late = || FetchFault::Unavailable("too many keys are being fetched".to_owned());
        brought.unwrap_or_else(|| Err(late()))
    }

    fn fetch_some(&self, uids: &[String]) -> Vec<FetchResult> {
        let [_, _, ..] = uids else { return uids.iter().map(|uid| self.fetch_one(uid)).collect() };
        match self.cluster.fetch_together(uids, &self.arena, self.cluster.end()) {
            Ok(fetched) => uids
                .iter()
                .zip(fetched)
                .map(|(uid, fetched)| match fetched {
                    Some(fetched) => self.noted(uid, fetched),
                    None => self.fetch_one(uid),
                })
                .collect(),
            Err(refused) => {
                let fault = FetchFault::of(&refused, self.cluster.members.len());
                uids.iter().map(|_| Err(fault.clone())).collect()
            }
        }
    }

    /// Notes what was fetched. Another server may have said by now that the key must not be used, of which the one that gave it has not
    /// heard.
    fn noted(&self, uid: &str, fetched: Fetched) -> FetchResult {
        self.ledger.fetched(uid, fetched.member, fetched.state, (self.clock)());
        let elsewhere = |state: State| format!("another server says that it is {state}");
        match self.ledger.latest(uid) {
            Some(state @ (State::Destroyed | State::DestroyedCompromised)) => {
                Err(FetchFault::NotFound(elsewhere(state)))
            }
            Some(state @ State::Compromised) if !self.settings.allow_compromised => {
                Err(FetchFault::Inactive(elsewhere(state) + BY_LEAVE))
            }
            _ => Ok(Arc::new(fetched.kek)),
        }
    }

    /// Notes what servers said that did not give a key.
    fn noted_refusals(&self, uid: &str, refused: &Refused) {
        for error in &refused.0 {
            let said = match &error.fault {
                Fault::State(state) => Said::State(*state),
                fault if fault.is_not_found() => Said::Unknown,
                _ => continue,
            };
            self.ledger.said_by(uid, &error.node, said, (self.clock)());
        }
    }

    fn fetch_one(&self, uid: &str) -> FetchResult {
        let end = self.cluster.end();
        let compromised = self.settings.allow_compromised;
        match self.cluster.fetch(uid, compromised, &self.arena, end) {
            Ok(fetched) => self.noted(uid, fetched),
            Err(refused) => {
                self.noted_refusals(uid, &refused);
                Err(FetchFault::of(&refused, self.cluster.members.len()))
            }
        }
    }
}

impl FetchFault {
    pub(super) fn of(refused: &Refused, members: usize) -> Self {
        let said = refused.to_string();
        if let Some(answer) = refused.answer() {
            return match &answer.fault {
                Fault::State(State::Destroyed | State::DestroyedCompromised) => {
                    Self::NotFound(said)
                }
                Fault::State(State::Compromised) => Self::Inactive(said + BY_LEAVE),
                _ => Self::Denied(said),
            };
        }
        if refused.is_found_nowhere() && refused.0.len() >= members {
            return Self::NotFound(said);
        }
        if refused.bad_key().is_some() {
            return Self::BadKey(said);
        }
        Self::Unavailable(said)
    }

    pub(super) fn into_error(self, key: &KeyId) -> KmsError {
        let provider = key.provider().to_owned();
        match self {
            Self::NotFound(reason) => KmsError::NotFound { key: key.clone(), reason },
            Self::Inactive(reason) => KmsError::Inactive { provider, reason },
            Self::Denied(reason) => KmsError::Denied { provider, reason },
            Self::BadKey(reason) => KmsError::BadKey { provider, reason },
            Self::Unavailable(reason) => KmsError::Unavailable { provider, reason },
        }
    }
}
