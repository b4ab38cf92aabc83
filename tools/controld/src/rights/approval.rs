//! Four eyes: acts that one person asks for and another one allows.
//!
//! Owns requests and their states; must not know the acts. A request names the exact act (verb, target, and a hash of its content), so that what was
//! allowed is what is done, once. Flow: `ask` -> `approve` by somebody else -> `use_up` in the moment of the act; each moves the state by one step, compared and
//! swapped.

use super::{Pass, Rights, RightsError};
use crate::store::{Revision, StoreError};
use serde::{Deserialize, Serialize};

/// How long a request waits for its approval, and an approval for its use, in seconds: a working day.
pub const APPROVAL_LIFE: u64 = 8 * 3600;

/// Longest reason.
const MAX_WHY: usize = 500;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Its number.
    pub id: String,
    /// The verb.
    pub verb: String,
    /// To what.
    pub target: String,
    /// SHA-256 of what is to be done, lower-case hex; an act with other content is another act.
    pub content: String,
    /// Why, in the words of who asked.
    pub why: String,
    /// Who asked.
    pub asked_by: String,
    /// Last second.
    pub until: u64,
    /// How far it is.
    pub state: ApprovalState,
}

/// State of a request; it only goes forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "by")]
pub enum ApprovalState {
    /// Waits for a second person.
    Asked,
    /// Somebody allowed it.
    Approved(String),
    /// Somebody refused it.
    Refused(String),
    /// The act was begun; it cannot be done again.
    Used(String),
}

impl Rights {
    /// Asks for an act.
    ///
    /// # Errors
    /// [`RightsError`].
    pub fn ask(
        &self,
        who: &Pass,
        verb: &str,
        target: &str,
        content: &[u8],
        why: &str,
        now: u64,
    ) -> Result<Approval, RightsError> {
        let approval = Approval {
            id: hex::encode(crypto::random_array::<8>()?),
            verb: verb.to_owned(),
            target: target.to_owned(),
            content: crypto::sha256_hex(content),
            why: why.chars().take(MAX_WHY).collect(),
            asked_by: who.name.clone(),
            until: now + APPROVAL_LIFE,
            state: ApprovalState::Asked,
        };
        self.save(&key(&approval.id), &approval, Some(Revision::ABSENT))?;
        Ok(approval)
    }

    /// Allows or refuses what somebody else asked for. Who asked may refuse as well, but not allow.
    ///
    /// # Errors
    /// [`RightsError::Approval`] with what is in the way.
    pub fn decide(
        &self,
        who: &Pass,
        id: &str,
        allow: bool,
        now: u64,
    ) -> Result<Approval, RightsError> {
        let (mut approval, revision) = self.approval(id)?;
        if now > approval.until {
            return no(format!("the request {id} has run out; ask again"));
        }
        if approval.state != ApprovalState::Asked {
            return no(format!("the request {id} was decided before"));
        }
        if allow && who.name == approval.asked_by {
            return no(format!("{} asked for it; somebody else must allow it", who.name));
        }
        let by = who.name.clone();
        approval.state =
            if allow { ApprovalState::Approved(by) } else { ApprovalState::Refused(by) };
        if allow {
            approval.until = now + APPROVAL_LIFE;
        }
        self.advance(&approval, revision)?;
        Ok(approval)
    }

    /// Uses an approval up, in the moment before the act is done. Only who asked may, and only for the very act.
    ///
    /// # Errors
    /// [`RightsError::Approval`] with what is in the way.
    pub fn use_up(
        &self,
        who: &Pass,
        id: &str,
        verb: &str,
        target: &str,
        content: &[u8],
        now: u64,
    ) -> Result<Approval, RightsError> {
        let (mut approval, revision) = self.approval(id)?;
        let by = match &approval.state {
            ApprovalState::Approved(by) => by.clone(),
            ApprovalState::Asked => return no(format!("nobody has allowed the request {id} yet")),
            ApprovalState::Refused(by) => return no(format!("{by} refused the request {id}")),
            ApprovalState::Used(_) => {
                return no(format!("the request {id} was used before; ask again"));
            }
        };
        if now > approval.until {
            return no(format!("the approval of {id} has run out; ask again"));
        }
        if who.name != approval.asked_by {
            return no(format!("{} asked for it, and must do it", approval.asked_by));
        }
        let content = crypto::sha256_hex(content);
        if (approval.verb.as_str(), approval.target.as_str()) != (verb, target)
            || approval.content != content
        {
            return no(format!(
                "the request {id} is for {} of {}, with other content",
                approval.verb, approval.target
            ));
        }
        approval.state = ApprovalState::Used(by);
        self.advance(&approval, revision)?;
        Ok(approval)
    }

    /// All requests, also those that ran out.
    ///
    /// # Errors
    /// [`RightsError`].
    pub fn approvals(&self) -> Result<Vec<Approval>, RightsError> {
        self.load_all("approval/")
    }

    fn approval(&self, id: &str) -> Result<(Approval, Revision), RightsError> {
        let found = self.load(&key(&crate::inventory::escape(id)))?;
        found.ok_or_else(|| RightsError::NotFound(format!("request {id}")))
    }

    fn advance(&self, approval: &Approval, revision: Revision) -> Result<(), RightsError> {
        match self.save(&key(&approval.id), approval, Some(revision)) {
            Err(RightsError::Store(StoreError::Conflict { .. })) => no(format!(
                "the request {} was decided or used by somebody else meanwhile",
                approval.id
            )),
            outcome => outcome,
        }
    }
}

fn no<T>(reason: String) -> Result<T, RightsError> {
    Err(RightsError::Approval(reason))
}

fn key(id: &str) -> String {
    format!("approval/{id}")
}
