//! How each server is, found out by really using it.
//!
//! Owns the check and what it found. It must not make decisions of its own: whom to ask first is the cluster's. Flow:
//! [`Round::check`] goes to every server at the same time: connects, which shows whether each side trusts the other; asks what it can do,
//! which is timed; fetches a key that exists for this alone, because a server whose hardware module is down answers
//! everything but that; and asks for the states of keys in use, which are noted in the ledger.

use super::cluster::{Cluster, Over};
use super::fault::{Fault, NodeError, Outcome};
use super::ledger::Ledger;
use super::node::Session;
use super::request::MAX_BATCH;
use super::values::{Operation, ResultReason};
use super::x509::Validity;
use crate::ServerStatus;
use crypto::{Arena, CheckValue};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// vSphere's words for why a key cannot be had.
pub(crate) mod reason {
    pub(crate) const MISSING: &str = "KeyStateMissingInKMS";
    pub(crate) const UNREACHABLE: &str = "KeyStateClusterUnreachable";
    pub(crate) const INVALID: &str = "KeyStateClusterInvalid";
    pub(crate) const NOT_ACTIVE: &str = "KeyStateNotActiveOrEnabled";
    pub(crate) const NO_PERMISSION: &str = "NoPermissionToAccessKeyProvider";
    /// Ours: vSphere has no word for servers that do not agree.
    pub(crate) const DIFFERS: &str = "KeyStateDiffers";
}

/// How long one check goes on to ask a server for states: somebody may be waiting for what the check finds.
const STATES_TIME: Duration = Duration::from_secs(3);

/// One check of all servers.
pub(super) struct Round<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) ledger: &'a Ledger,
    pub(super) arena: &'a Arena,
    /// The key to fetch. Servers that give different bytes for it are told apart from those that give the bytes of the first.
    pub(super) canary: Option<&'a str>,
    /// Keys whose states are asked for.
    pub(super) uids: &'a [String],
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl Round<'_> {
    /// What was found out about every server, in their order.
    pub(super) fn check(&self) -> Vec<ServerStatus> {
        let end = self.cluster.end();
        let known = &Mutex::new(None);
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..self.cluster.members.len())
                .map(|index| scope.spawn(move || self.one(index, known, end)))
                .collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).collect()
        })
    }

    fn one(&self, index: usize, known: &Mutex<Option<CheckValue>>, end: Instant) -> ServerStatus {
        let Some(member) = self.cluster.members.get(index) else { return ServerStatus::default() };
        let mut status = ServerStatus {
            address: member.node.address(),
            read_only: member.is_read_only(),
            checked_at: Some(self.now),
            ..ServerStatus::default()
        };
        let asked = member.once(Over::New, end, &mut |session: &mut Session<'_>| {
            status.trusted = Some(true);
            let validity = session.certificate().and_then(|der| Validity::of(&der));
            status.certificate_days = validity.map(|validity| validity.days_left(self.now));
            let start = Instant::now();
            let facts = session.query()?;
            status.latency_ms = u64::try_from(start.elapsed().as_millis()).ok();
            status.trusts_us = Some(true);
            let lacks = !facts.operations.is_empty()
                && !facts.operations.contains(&Operation::Create.number());
            status.read_only = facts.clone || lacks;
            let value = self.canary.map(|uid| session.get(uid, self.arena)).transpose();
            // Whether it gives that key is one thing, what it says of others is another.
            if value.as_ref().err().is_none_or(|e| e.fault.outcome() == Outcome::Answered) {
                self.ask_states(index, session);
            }
            Ok(value?.map(|kek| kek.check_value()))
        });
        self.cluster.set_read_only(index, status.read_only);
        match asked {
            Ok(value) => judge(&mut status, value, known),
            Err(error) => blame(&mut status, &error, self.canary.is_some()),
        }
        status
    }

    /// Asks for states, a message at a time. A server that is slow with them is as well as it was before; the rest comes with a later
    /// check.
    fn ask_states(&self, index: usize, session: &mut Session<'_>) {
        let end = Instant::now() + STATES_TIME;
        for part in self.uids.chunks(MAX_BATCH) {
            let Ok(all) = session.said_of(part) else { return };
            for (uid, said) in part.iter().zip(all) {
                if let Some(said) = said {
                    self.ledger.said(uid, index, said, self.now);
                }
            }
            if Instant::now() >= end {
                return;
            }
        }
    }
}

fn judge(status: &mut ServerStatus, value: Option<CheckValue>, known: &Mutex<Option<CheckValue>>) {
    status.up = Some(true);
    let Some(value) = value else {
        status.detail = "answers; no key was fetched, as there is none for checks".to_owned();
        return;
    };
    let mut known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let same = *known.get_or_insert(value) == value;
    status.key_fetched = Some(same);
    status.detail = if same { "ready" } else { "gives another key than the others" }.to_owned();
    status.reason = (!same).then_some(reason::INVALID);
}

/// What a fault says of both sides' trust, and of the server.
fn blame(status: &mut ServerStatus, error: &NodeError, canary: bool) {
    match &error.fault {
        Fault::Untrusted(_)
        | Fault::WrongName { .. }
        | Fault::OtherPin { .. }
        | Fault::ServerExpired { .. }
        | Fault::ServerTooYoung => status.trusted = Some(false),
        Fault::ClientRejected { .. } | Fault::ClientExpired { .. } => {
            status.trusted = Some(true);
            status.trusts_us = Some(false);
        }
        Fault::Refused(refusal)
            if refusal.reason == Some(ResultReason::AuthenticationNotSuccessful) =>
        {
            status.trusts_us = Some(false);
        }
        _ => {}
    }
    // It works, but does not give the key.
    let answered = status.latency_ms.is_some();
    status.up = Some(answered);
    status.key_fetched = (answered && canary).then_some(false);
    status.reason = Some(reason_of(&error.fault));
    status.detail = error.to_string();
}

/// vSphere's word for a fault.
pub(crate) fn reason_of(fault: &Fault) -> &'static str {
    match fault {
        Fault::State(_) => reason::NOT_ACTIVE,
        Fault::Refused(refusal) => match refusal.reason {
            Some(ResultReason::ItemNotFound) => reason::MISSING,
            Some(ResultReason::PermissionDenied | ResultReason::AuthenticationNotSuccessful) => {
                reason::NO_PERMISSION
            }
            _ => reason::INVALID,
        },
        Fault::Untrusted(_)
        | Fault::WrongName { .. }
        | Fault::OtherPin { .. }
        | Fault::ClientRejected { .. }
        | Fault::ClientExpired { .. }
        | Fault::Identity(_)
        | Fault::Key(_)
        | Fault::Malformed(_)
        | Fault::Unfitting(_) => reason::INVALID,
        _ => reason::UNREACHABLE,
    }
}
