//! The audit log, as the API writes it.
//!
//! Owns who and why of each line, the head that is kept in the store, and a limit on lines about strangers, who could fill the disk otherwise.

use super::{Asked, Fault};
use crate::audit::{Act, Head, Log, LogError, Outcome, Target, Trouble, Who, verify};
use crate::inventory::Name;
use crate::rights::{Identity, Pass};
use crate::store::{Store, StoreError, Txn};
use std::sync::{Arc, Mutex, PoisonError};

/// Most lines a minute about callers without certificate and token; the number of those left out stands in the next line.
const STRANGERS: u32 = 60;

/// Length of the time that they are counted in, in seconds.
const WINDOW: u64 = 60;

/// Writes the log of one controld.
pub struct Auditor {
    log: Log,
    store: Arc<dyn Store>,
    controld: Name,
    strangers: Mutex<Strangers>,
}

#[derive(Default)]
struct Strangers {
    since: u64,
    count: u32,
    left_out: u64,
}

/// Where the head of a controld's log is kept in the store.
#[must_use]
pub fn anchor_key(controld: &Name) -> String {
    format!("audit-head/{controld}")
}

impl Auditor {
    /// Takes a log, after it was checked whole against the head that the store has of it.
    ///
    /// # Errors
    /// The outer error says that it cannot be read, the inner one what is wrong with it.
    pub fn new(
        log: Log,
        store: Arc<dyn Store>,
        controld: Name,
    ) -> Result<Result<Self, Trouble>, Fault> {
        let anchor = store.get(&anchor_key(&controld))?;
        let anchor: Option<Head> = anchor
            .map(|entry| serde_json::from_slice(&entry.value))
            .transpose()
            .map_err(|e| Fault::Bug(format!("the head of the audit log in the store: {e}")))?;
        if let Err(trouble) = verify(log.folder(), anchor.as_ref())? {
            return Ok(Err(trouble));
        }
        Ok(Ok(Self { log, store, controld, strangers: Mutex::default() }))
    }

    /// Writes a line about an act of somebody who is known.
    pub(super) fn write(
        &self,
        asked: &Asked,
        pass: &Pass,
        verb: &str,
        target: &Target,
        outcome: Outcome,
        now: u64,
    ) -> Result<(), Fault> {
        let is_last = outcome != Outcome::Begun;
        let address = Some(asked.address.clone());
        let who = Who { name: pass.name.clone(), by: pass.by.into(), address };
        let (verb, target, why) = (verb.to_owned(), target.clone(), asked.why.clone());
        let head = self.log.append(now, &Act { who, verb, target, why, outcome })?;
        if is_last { self.anchor(&head) } else { Ok(()) }
    }

    /// Writes a line about somebody who was not let in.
    pub(super) fn denied(
        &self,
        asked: &Asked,
        verb: &str,
        target: Target,
        outcome: Outcome,
        now: u64,
    ) -> Result<(), Fault> {
        let mut why = asked.why.clone();
        if asked.identity == Identity::Nobody {
            match self.stranger(now) {
                None => return Ok(()),
                Some(0) => {}
                Some(left_out) => {
                    why = format!("({left_out} more like this were not written) {why}");
                }
            }
        }
        let name = match &asked.identity {
            Identity::Certificate { sha256, uris } => {
                uris.first().cloned().unwrap_or_else(|| format!("sha256:{sha256}"))
            }
            Identity::Nobody | Identity::Token(_) => String::new(),
        };
        let address = Some(asked.address.clone());
        let who = Who { name, by: asked.identity.kind().into(), address };
        self.log.append(now, &Act { who, verb: verb.to_owned(), target, why, outcome })?;
        Ok(())
    }

    /// Whether a line about a stranger may be written, and how many were not since the last one.
    fn stranger(&self, now: u64) -> Option<u64> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(strangers.since) >= WINDOW {
            strangers.since = now;
            strangers.count = 0;
        }
        if strangers.count >= STRANGERS {
            strangers.left_out += 1;
            return None;
        }
        strangers.count += 1;
        Some(std::mem::take(&mut strangers.left_out))
    }

    /// Keeps the head in the store, so that an end of the log that is missing later is noticed.
    fn anchor(&self, head: &Head) -> Result<(), Fault> {
        let text = serde_json::to_vec(head).map_err(|e| Fault::Bug(e.to_string()))?;
        match self.store.commit(&Txn::new().put(anchor_key(&self.controld), text)) {
            // The line is there; the next act brings the head up to date, or fails itself.
            Err(StoreError::Unavailable { .. } | StoreError::Uncertain { .. }) => Ok(()),
            outcome => outcome.map(|_| ()).map_err(Into::into),
        }
    }

    /// Keeps the last head in the store, whatever line it is of.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn settle(&self) -> Result<(), Fault> {
        self.anchor(&self.head()?)
    }

    /// The last line.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn head(&self) -> Result<Head, LogError> {
        self.log.head()
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }
}
