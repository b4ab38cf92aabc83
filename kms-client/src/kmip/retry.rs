//! When an operation may be sent again, and when another server is asked.
//!
//! Owns the rules, as pure functions. It must not know servers. The table:
//!
//! | operation | after an outcome in doubt |
//! |---|---|
//! | Discover Versions, Query, Get, Get Attributes, Get Attribute List, Locate | any server is asked again |
//! | Activate, Revoke, Destroy | the state is read first, as servers refuse a repetition |
//! | Add Attribute | not at all: tags are for people |
//! | Create, Register, Re-key | never blindly: the key is looked for by its name on all servers first |

use super::fault::{Fault, Outcome};
use super::values::{Operation, ResultReason};
use std::time::Duration;

/// What is done when it is not known whether a server did an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InDoubt {
    /// Ask again, any server: it changes nothing.
    AskAgain,
    /// Read the state of the key, and ask again when it is not there yet.
    ReadState,
    /// Look for what it would have made, by its name.
    FindByName,
    /// Leave it.
    Leave,
}

impl InDoubt {
    /// The rule of an operation.
    #[must_use]
    pub fn of(operation: Operation) -> Self {
        match operation {
            Operation::DiscoverVersions
            | Operation::Query
            | Operation::Get
            | Operation::GetAttributes
            | Operation::GetAttributeList
            | Operation::Locate => Self::AskAgain,
            Operation::Activate | Operation::Revoke | Operation::Destroy => Self::ReadState,
            Operation::Create | Operation::Register | Operation::ReKey => Self::FindByName,
            Operation::AddAttribute => Self::Leave,
        }
    }
}

/// Whether another server may do better. A refusal for what the request is, or for who asks, is an answer; a server that has no
/// such key, cannot do such things, or has lost its hardware module is not the last word.
#[must_use]
pub fn another_may_do_better(fault: &Fault) -> bool {
    use ResultReason as R;
    match fault {
        Fault::Refused(refusal) => matches!(
            refusal.reason,
            None | Some(
                R::ItemNotFound
                    | R::OperationNotSupported
                    | R::FeatureNotSupported
                    | R::GeneralFailure
                    | R::CryptographicFailure
                    | R::KeyValueNotPresent
                    | R::ObjectArchived
            )
        ),
        Fault::State(_) => false,
        _ => true,
    }
}

/// Whether a server is not well: it gave no answer, or says itself that it cannot work.
#[must_use]
pub fn is_ill(fault: &Fault) -> bool {
    match fault {
        Fault::Refused(refusal) => matches!(
            refusal.reason,
            Some(ResultReason::GeneralFailure | ResultReason::CryptographicFailure)
        ),
        // Our own files and time are not its fault.
        Fault::Identity(_) | Fault::NoTime => false,
        other => other.outcome() != Outcome::Answered,
    }
}

/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Pause before try number `attempt`: anything up to a bound that doubles from 50 ms, by `random`, so that hosts that were
/// refused together do not come back together.
#[must_use]
pub fn pause(attempt: u32, random: u32) -> Duration {
    let bound = Duration::from_millis(50).saturating_mul(1 << attempt.min(10)).min(MAX_PAUSE);
    bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::response::Refusal;
    use super::*;

    #[test]
    fn nothing_that_makes_a_key_is_sent_blindly_again() {
        for operation in [Operation::Create, Operation::Register, Operation::ReKey] {
            assert_eq!(InDoubt::of(operation), InDoubt::FindByName);
        }
        assert_eq!(InDoubt::of(Operation::Get), InDoubt::AskAgain);
        assert_eq!(InDoubt::of(Operation::Activate), InDoubt::ReadState);
        assert_eq!(InDoubt::of(Operation::AddAttribute), InDoubt::Leave);
    }

    #[test]
    fn answers_end_the_search_and_faults_do_not() {
        let refused =
            |reason| Fault::Refused(Refusal { reason: Some(reason), message: String::new() });
        for (fault, goes_on, ill) in [
            (refused(ResultReason::PermissionDenied), false, false),
            (refused(ResultReason::InvalidField), false, false),
            (refused(ResultReason::ItemNotFound), true, false),
            (refused(ResultReason::OperationNotSupported), true, false),
            (refused(ResultReason::CryptographicFailure), true, true),
            (Fault::ConnectionRefused, true, true),
            (Fault::Closed, true, true),
            (Fault::NoTime, true, false),
        ] {
            assert_eq!(another_may_do_better(&fault), goes_on, "{fault}");
            assert_eq!(is_ill(&fault), ill, "{fault}");
        }
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert_eq!(pause(0, u32::MAX), Duration::from_millis(50));
        assert_eq!(pause(3, u32::MAX), Duration::from_millis(400));
        assert_eq!(pause(30, u32::MAX), MAX_PAUSE);
        assert_eq!(pause(30, 0), Duration::ZERO);
    }
}
