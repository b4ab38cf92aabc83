//! What all servers that were asked said, when none of them answered for good.
//!
//! Owns [`Refused`] and what can be concluded from it. It must not know how they were asked. Flow: the cluster collects the faults in the
//! order in which it asked; the provider asks what they mean together.

use super::fault::{Fault, NodeError, Outcome};
use super::retry::another_may_do_better;

/// What every server that was asked said.
#[derive(Debug, Default)]
pub struct Refused(pub Vec<NodeError>);

impl Refused {
    /// Whether the last answer is one that no other server can better.
    pub(super) fn is_final(&self) -> bool {
        self.0.last().is_some_and(|error| !another_may_do_better(&error.fault))
    }

    /// Whether any server said that it does not know the key.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.0.iter().any(|error| error.fault.is_not_found())
    }

    /// Whether all servers that were asked said so, and there were some.
    #[must_use]
    pub fn is_found_nowhere(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|error| error.fault.is_not_found())
    }

    /// Whether nobody answered.
    pub(super) fn is_silence(&self) -> bool {
        self.0.iter().all(|error| error.fault.outcome() != Outcome::Answered)
    }

    /// The answer that ended the search, if there was one: a refusal, or a state.
    #[must_use]
    pub fn answer(&self) -> Option<&NodeError> {
        self.0.last().filter(|error| !another_may_do_better(&error.fault))
    }

    /// The first answer that is no usable key, where nothing worse is known: a server gave one.
    #[must_use]
    pub fn bad_key(&self) -> Option<&NodeError> {
        self.0.iter().find(|error| matches!(error.fault, Fault::Key(_)))
    }

    /// Whether all who were asked work, but have nothing that makes keys.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|error| error.fault.is_unsupported())
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no KMIP server could be asked in time");
        }
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("; "))
    }
}
