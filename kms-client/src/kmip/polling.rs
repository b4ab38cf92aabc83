//! States of many keys, asked of one server.
//!
//! Owns the questions, and what an answer means for a key. It must not know other servers, nor what follows from the states (`said`).
//! Flow: as many questions as a server takes go into one message; a key whose question it passed over is asked about alone.

use super::fault::NodeError;
use super::node::Session;
use super::operations::state_of;
use super::request::{Call, MAX_BATCH};
use super::response::Refusal;
use super::said::Said;
use super::values::ResultReason;

/// The only attribute that is asked for.
const STATE: &[&str] = &["State"];

impl Session<'_> {
    /// What this server says of each of these keys; `None` for one of which it will not say anything to us.
    ///
    /// # Errors
    /// [`NodeError`] when it gave no answer.
    pub(super) fn said_of(&mut self, uids: &[String]) -> Result<Vec<Option<Said>>, NodeError> {
        let mut all = Vec::with_capacity(uids.len());
        for part in uids.chunks(MAX_BATCH) {
            let calls: Vec<_> = part.iter().map(|uid| Call::GetAttributes(uid, STATE)).collect();
            let mut passed_over = Vec::new();
            let first = all.len();
            self.batch(&calls, |index, answer| {
                let Some(uid) = part.get(index) else { return Ok(()) };
                let state = state_of(answer, uid)?;
                if state.as_ref().is_err_and(was_passed_over) {
                    passed_over.push(index);
                }
                all.push(meaning(state));
                Ok(())
            })?;
            for index in passed_over.into_iter().filter(|_| part.len() > 1) {
                let Some(uid) = part.get(index) else { continue };
                let mut said = None;
                self.batch(&[Call::GetAttributes(uid, STATE)], |_, answer| {
                    said = meaning(state_of(answer, uid)?);
                    Ok(())
                })?;
                if let Some(place) = all.get_mut(first + index) {
                    *place = said;
                }
            }
        }
        Ok(all)
    }
}

/// Some servers stop at the first question that they refuse, and some take no two in one message.
fn was_passed_over(refusal: &Refusal) -> bool {
    matches!(refusal.reason, Some(ResultReason::OperationCanceled | ResultReason::InvalidMessage))
}

fn meaning(state: Result<Option<super::values::State>, Refusal>) -> Option<Said> {
    match state {
        Ok(Some(state)) => Some(Said::State(state)),
        Ok(None) => Some(Said::Untold),
        Err(refusal) if refusal.reason == Some(ResultReason::ItemNotFound) => Some(Said::Unknown),
        Err(_) => None,
    }
}
