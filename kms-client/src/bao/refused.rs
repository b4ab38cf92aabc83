//! What all servers that were asked said, when none of them answered for good.
//!
//! Owns [`Refused`] and what follows from it for the caller of a provider. It must not know how they were asked.

use super::fault::{BaoError, BaoFault, Meaning};
use crate::KmsError;
use crypto::KeyId;

/// What every server that was asked said, in the order in which they were.
#[derive(Debug, Default)]
pub(super) struct Refused(pub(super) Vec<BaoError>);

impl Refused {
    /// Whether the last answer ends the search.
    pub(super) fn is_final(&self) -> bool {
        self.0.last().is_some_and(|error| error.fault.meaning() == Meaning::Final)
    }

    /// Whether any of them may do better soon.
    pub(super) fn may_pass(&self) -> bool {
        self.0.iter().any(|error| error.fault.meaning() == Meaning::Passing)
    }

    /// Whether there are answers, and nobody said anything but this.
    fn all(&self, is_it: impl Fn(&BaoFault) -> bool) -> bool {
        !self.0.is_empty() && self.0.iter().all(|error| is_it(&error.fault))
    }

    /// The error for who asked a provider for `key`; `members` servers there are. Only when all of them say that they lack it, it is
    /// not there: a server that is down may be the one that has it.
    pub(super) fn into_error(
        self,
        provider: &str,
        key: Option<&KeyId>,
        members: usize,
    ) -> KmsError {
        let provider = provider.to_owned();
        let reason = self.to_string();
        if let Some(key) = key
            && self.all(|fault| matches!(fault, BaoFault::NoKey(_)))
            && self.0.len() >= members
        {
            return KmsError::NotFound { key: key.clone(), reason };
        }
        if self.all(|fault| {
            matches!(
                fault,
                BaoFault::WrongWrap(_)
                    | BaoFault::KeyType { .. }
                    | BaoFault::Key(_)
                    | BaoFault::NotTheSame
            )
        }) {
            return KmsError::BadKey { provider, reason };
        }
        // Those that are down do not make a refusal of the others less of one.
        let refuses = |error: &BaoError| error.fault.meaning() == Meaning::Answer;
        if self.0.iter().any(refuses) && !self.may_pass() && self.refuses_for_good() {
            return KmsError::Denied { provider, reason };
        }
        KmsError::Unavailable { provider, reason }
    }

    /// Whether the answers there are say no for a reason that has nothing to do with how far a server is.
    fn refuses_for_good(&self) -> bool {
        let answers = self.0.iter().filter(|error| error.fault.meaning() == Meaning::Answer);
        answers.map(|error| &error.fault).all(|fault| !matches!(fault, BaoFault::NoKey(_)))
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no OpenBao server could be asked in time");
        }
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("; "))
    }
}
