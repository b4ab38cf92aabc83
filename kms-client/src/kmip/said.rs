//! What servers say of one key, side by side, and what follows when they do not agree.
//!
//! Owns the rules; it is pure. It must not know how servers are asked. A key only moves forward through its states (KMIP 1.4 section
//! 3.22), so of two servers that differ, the one with the later state is right, and the other has not heard of it yet:
//!
//! - for encrypting, the latest state that any server tells counts;
//! - for opening what there is, one server that gives the key is enough, unless another one says that it was destroyed, or that it is
//!   compromised and such keys are not to be used;
//! - a server that never had a key may get it yet; one that had it and has it no more has lost it, and until that is cleared up
//!   nothing new is encrypted by the key.

use super::cluster::LAG;
use super::values::State;
use crate::KeyState;

/// What one server says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It has the key, in this state.
    State(State),
    /// It gives the key, and tells no states.
    Untold,
    /// It does not know the key, and never did as far as is known here.
    Unknown,
    /// It does not know the key any more.
    Gone,
}

impl Said {
    /// What is thought after a server was asked again: one that knew the key before and does not now has lost it.
    #[must_use]
    pub fn after(self, before: Option<Self>) -> Self {
        match (self, before) {
            (Self::Unknown, Some(Self::State(_) | Self::Untold | Self::Gone)) => Self::Gone,
            (said, _) => said,
        }
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::State(state) => write!(f, "{state}"),
            Self::Untold => f.write_str("there, state not told"),
            Self::Unknown => f.write_str("not found"),
            Self::Gone => f.write_str("not found any more"),
        }
    }
}

/// The latest state that any server tells. `None` when none tells one.
#[must_use]
pub fn latest(said: &[Option<Said>]) -> Option<State> {
    let states = said.iter().filter_map(|said| match said {
        Some(Said::State(state)) => Some(*state),
        _ => None,
    });
    states.max()
}

/// What counts for encrypting.
#[must_use]
pub fn ruling(said: &[Option<Said>]) -> KeyState {
    match latest(said) {
        Some(State::Destroyed | State::DestroyedCompromised) => KeyState::Destroyed,
        Some(State::Compromised) => KeyState::Compromised,
        Some(State::Deactivated) => KeyState::Deactivated,
        Some(State::PreActive | State::Active) | None => KeyState::Active,
    }
}

/// How servers differ about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discord {
    /// They tell different states.
    States,
    /// Some never had it.
    Lacking,
    /// Some have it no more.
    Lost,
}

impl Discord {
    /// How the servers that answered differ; `None` when they agree.
    #[must_use]
    pub fn of(said: &[Option<Said>]) -> Option<Self> {
        let all = || said.iter().copied().flatten();
        let has = all().any(|said| matches!(said, Said::State(_) | Said::Untold));
        let mut states = all().filter(|said| matches!(said, Said::State(_)));
        let first = states.next();
        if all().any(|said| said == Said::Gone) && has {
            return Some(Self::Lost);
        }
        if states.any(|said| Some(said) != first) {
            return Some(Self::States);
        }
        (has && all().any(|said| said == Said::Unknown)).then_some(Self::Lacking)
    }

    /// Whether it may still be on its way: the servers have differed for `seconds`, and the key has this `age` where that is
    /// known. What is lost was there.
    #[must_use]
    pub fn may_be_lag(self, seconds: u64, age: Option<u64>) -> bool {
        let lag = LAG.as_secs();
        self != Self::Lost && (seconds < lag || age.is_some_and(|age| age < lag))
    }

    /// Its reason: a word of vSphere where that has one.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::States => super::health::reason::DIFFERS,
            Self::Lacking | Self::Lost => super::health::reason::MISSING,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State as S;

    fn said(all: &[Said]) -> Vec<Option<Said>> {
        all.iter().copied().map(Some).collect()
    }

    #[test]
    fn the_latest_state_counts_whoever_tells_it() {
        for (states, ruled) in [
            (&[S::Active, S::Active][..], KeyState::Active),
            (&[S::PreActive, S::Active], KeyState::Active),
            (&[S::Active, S::Deactivated], KeyState::Deactivated),
            (&[S::Deactivated, S::Active], KeyState::Deactivated),
            (&[S::Compromised, S::Deactivated], KeyState::Compromised),
            (&[S::Active, S::Destroyed], KeyState::Destroyed),
            (&[S::DestroyedCompromised, S::Active], KeyState::Destroyed),
            (&[], KeyState::Active),
        ] {
            let states: Vec<_> = states.iter().map(|state| Some(Said::State(*state))).collect();
            assert_eq!(ruling(&states), ruled, "{states:?}");
        }
        assert_eq!(ruling(&said(&[Said::Untold, Said::Unknown])), KeyState::Active);
    }

    #[test]
    fn how_servers_differ() {
        let (active, old) = (Said::State(S::Active), Said::State(S::Deactivated));
        for (all, discord) in [
            (&[active, active][..], None),
            (&[active, Said::Untold], None),
            (&[Said::Unknown, Said::Unknown], None),
            (&[Said::Gone, Said::Gone], None),
            (&[active, old], Some(Discord::States)),
            (&[active, old, Said::Unknown], Some(Discord::States)),
            (&[active, Said::Unknown], Some(Discord::Lacking)),
            (&[Said::Unknown, Said::Untold], Some(Discord::Lacking)),
            (&[active, Said::Gone], Some(Discord::Lost)),
            (&[active, old, Said::Gone], Some(Discord::Lost)),
        ] {
            assert_eq!(Discord::of(&said(all)), discord, "{all:?}");
            // One that is silent changes nothing.
            let with_silent: Vec<_> = said(all).into_iter().chain([None]).collect();
            assert_eq!(Discord::of(&with_silent), discord);
        }
    }

    #[test]
    fn lag_is_told_from_loss() {
        let lag = LAG.as_secs();
        assert!(Discord::Lacking.may_be_lag(0, None));
        assert!(!Discord::Lacking.may_be_lag(lag, None));
        assert!(Discord::Lacking.may_be_lag(lag, Some(lag - 1)));
        assert!(Discord::States.may_be_lag(lag - 1, Some(9999)));
        assert!(!Discord::States.may_be_lag(lag, Some(lag)));
        assert!(!Discord::Lost.may_be_lag(0, Some(0)));
        let before = [None, Some(Said::Unknown), Some(Said::State(S::Active)), Some(Said::Gone)];
        let after = before.map(|before| Said::Unknown.after(before));
        assert_eq!(after, [Said::Unknown, Said::Unknown, Said::Gone, Said::Gone]);
        assert_eq!(Said::State(S::Active).after(Some(Said::Gone)), Said::State(S::Active));
    }
}
