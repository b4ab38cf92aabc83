//! The end of a key: taken back, and destroyed.
//!
//! Owns the steps on one server after another. It must not know who uses the key: whoever asks has made sure that nobody does. Flow: the
//! state is read first, so what was done already, by us before an answer was lost or by somebody else, is not done twice; servers
//! refuse that. Afterwards every server is asked what it says of the key now.

use super::cluster::{Cluster, Over, random};
use super::fault::{Fault, NodeError, Outcome};
use super::node::Session;
use super::refused::Refused;
use super::retry::pause;
use super::said::Said;
use super::values::{Revocation, State};
use std::time::Instant;

/// Most tries after an outcome in doubt.
const MAX_TRIES: u32 = 3;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is done.
    Done,
    /// The key is active: it must be taken back before it can be destroyed.
    StillActive,
}

impl Cluster {
    /// Takes a key back, for this reason, with a sentence for the server's log.
    ///
    /// # Errors
    /// [`Refused`] with what each server said.
    pub fn revoke(
        &self,
        uid: &str,
        reason: Revocation,
        why: &str,
        end: Instant,
    ) -> Result<(), Refused> {
        let wanted = if reason == Revocation::KeyCompromise {
            State::Compromised
        } else {
            State::Deactivated
        };
        self.insist(end, false, |session| {
            if state(session, uid)?.is_some_and(|state| state >= wanted) {
                return Ok(());
            }
            let done = session.revoke(uid, reason, why);
            unless(done, session, uid, |now| now.is_some_and(|now| now >= wanted))
        })
    }

    /// Has the servers forget a key that was taken back, or never was active.
    ///
    /// # Errors
    /// [`Refused`] with what each server said.
    pub fn destroy(&self, uid: &str, end: Instant) -> Result<Ended, Refused> {
        let destroyed = |state: Option<State>| {
            matches!(state, Some(State::Destroyed | State::DestroyedCompromised))
        };
        let mut ended = Ended::Done;
        self.insist(end, true, |session| {
            let now = state(session, uid)?;
            if now == Some(State::Active) {
                ended = Ended::StillActive;
                return Ok(());
            }
            if destroyed(now) {
                return Ok(());
            }
            let done = session.destroy(uid);
            unless(done, session, uid, destroyed)
        })?;
        Ok(ended)
    }

    /// What each server says of a key now; those that do not answer are left out. The number is that of the server.
    pub fn ask_all(&self, uid: &str, end: Instant) -> Vec<(usize, Said)> {
        let uids = [uid.to_owned()];
        let ask = |index: usize| {
            let member = self.members.get(index)?;
            let said = member.once(Over::New, end, &mut |session| session.said_of(&uids)).ok()?;
            Some((index, said.into_iter().next()??))
        };
        (0..self.members.len()).filter_map(ask).collect()
    }

    /// Asks the servers, and asks again after an outcome in doubt. `gone` is whether a key that nobody knows any more then is what was
    /// wanted.
    fn insist(
        &self,
        end: Instant,
        gone: bool,
        mut ask: impl FnMut(&mut Session<'_>) -> Result<(), NodeError>,
    ) -> Result<(), Refused> {
        let order: Vec<_> = (0..self.members.len()).collect();
        let mut doubt = false;
        let mut attempt = 0;
        loop {
            let Err(refused) = self.ask(&order, end, &mut ask) else { return Ok(()) };
            if gone && doubt && refused.is_found_nowhere() {
                return Ok(());
            }
            let in_doubt = refused.0.iter().any(|error| error.fault.outcome() == Outcome::InDoubt);
            doubt |= in_doubt;
            attempt += 1;
            let wait = pause(attempt, random());
            if !in_doubt || attempt >= MAX_TRIES || Instant::now() + wait >= end {
                return Err(refused);
            }
            std::thread::sleep(wait);
        }
    }
}

/// The state of a key; `None` from a server that has no states.
fn state(session: &mut Session<'_>, uid: &str) -> Result<Option<State>, NodeError> {
    match session.state(uid) {
        Err(error) if error.fault.is_unsupported() => Ok(None),
        other => other,
    }
}

/// A refusal does not count when the key is as it should be: somebody else was faster.
fn unless(
    done: Result<(), NodeError>,
    session: &mut Session<'_>,
    uid: &str,
    fine: impl FnOnce(Option<State>) -> bool,
) -> Result<(), NodeError> {
    match done {
        Err(error) if matches!(error.fault, Fault::Refused(_)) => match state(session, uid) {
            Ok(now) if fine(now) => Ok(()),
            _ => Err(error),
        },
        other => other,
    }
}
