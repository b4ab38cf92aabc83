//! How each server is, found out by really using it.
//!
//! Owns the check and what it found. It must not make decisions of its own. Flow: every server is asked at the same time: connecting
//! shows whether each side trusts the other; its health is asked for, which is timed; and it opens a wrap that exists for this alone,
//! because a server can answer everything and yet not have our keys. Where no such wrap can be made, each server says why.

use super::calls::Talk;
use super::cluster::Member;
use super::fault::{BaoError, BaoFault};
use super::provider::{CHECK, Canary, Inner, KeyChoice, lock};
use crate::ServerStatus;
use crate::kmip::fault::Fault;
use crate::kmip::health::reason;
use crate::kmip::x509::Validity;
use crypto::OpaqueKey;
use std::time::{Duration, Instant};

/// How long the servers may take to tell each other of a new key: an entry of their log, which takes milliseconds.
const LAG: Duration = Duration::from_millis(500);

impl Inner {
    /// One check at a time; who comes meanwhile waits for it, and has what it found.
    pub(super) fn check(&self) {
        match self.checking.try_lock() {
            Ok(_checking) => self.check_now(),
            Err(_) => drop(lock(&self.checking)),
        }
    }

    fn check_now(&self) {
        self.cluster.members.iter().for_each(|member| member.node.close_idle());
        let mut found = self.check_once();
        let missing = |server: &ServerStatus| server.reason == Some(reason::MISSING);
        if found.iter().all(missing) && lock(&self.canary).take().is_some() {
            // Somebody deleted the key; another is made, or the fault of making it told.
            found = self.check_once();
        }
        *lock(&self.checked) = found;
        *lock(&self.file_problem) = self.identity.problem().map(|problem| problem.to_string());
    }

    fn check_once(&self) -> Vec<ServerStatus> {
        let known = lock(&self.canary).is_some();
        let canary = self.canary();
        let found = self.check_members(canary.as_ref());
        if known || canary.is_none() || found.iter().all(|s| s.key_fetched == Some(true)) {
            return found;
        }
        // It is young: some have not heard of it yet.
        std::thread::sleep(LAG);
        self.check_members(canary.as_ref())
    }

    fn check_members(&self, canary: Option<&Canary>) -> Vec<ServerStatus> {
        std::thread::scope(|scope| {
            let members = self.cluster.members.iter();
            let check = |member| scope.spawn(move || self.check_member(member, canary));
            let running: Vec<_> = members.map(check).collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).collect()
        })
    }

    /// The wrap that checks open, made once. `None` when none can be made.
    fn canary(&self) -> Option<Canary> {
        if let Some(canary) = lock(&self.canary).clone() {
            return Some(canary);
        }
        let key = self.canary_key();
        self.ready(&key, self.makes_canary()).ok()?;
        let data = OpaqueKey::generate(32, &self.arena).ok()?;
        let value = data.check_value().ok()?;
        let wrapped = self.wrap(&key, &data, CHECK, &self.arena).ok()?;
        let canary = Canary { key, wrapped, value };
        *lock(&self.canary) = Some(canary.clone());
        Some(canary)
    }

    fn canary_key(&self) -> String {
        match &self.settings.keys {
            KeyChoice::Named(name) => name.clone(),
            KeyChoice::Each(prefix) => format!("{prefix}check"),
        }
    }

    /// Whether the key for checks is made here; one that an administrator made is only used.
    fn makes_canary(&self) -> bool {
        matches!(self.settings.keys, KeyChoice::Each(_))
    }

    fn check_member(&self, member: &Member, canary: Option<&Canary>) -> ServerStatus {
        let (now, end) = ((self.clock)(), self.cluster.end());
        let mut status = ServerStatus {
            address: member.node.address(),
            checked_at: Some(now),
            ..ServerStatus::default()
        };
        match member.node.greet(end) {
            Ok(certificate) => {
                status.trusted = Some(true);
                let validity = certificate.and_then(|der| Validity::of(&der));
                status.certificate_days = validity.map(|validity| validity.days_left(now));
            }
            Err(fault) => {
                blame(&mut status, &member.error("connecting", fault));
                return status;
            }
        }
        if let Err(error) = self.ask_health(member, &mut status, end) {
            blame(&mut status, &error);
            return status;
        }
        status.up = Some(true);
        let opened = self.cluster.once(member, end, &mut |talk| self.open_canary(talk, canary));
        match opened {
            Ok(()) => {
                status.key_fetched = Some(true);
                status.detail = "ready".to_owned();
            }
            Err(error) => blame(&mut status, &error),
        }
        status
    }

    fn ask_health(
        &self,
        member: &Member,
        status: &mut ServerStatus,
        end: Instant,
    ) -> Result<(), BaoError> {
        let talk = Talk::new(&member.node, &self.cluster.places, end);
        let start = Instant::now();
        let said = talk.health().map_err(|fault| member.error(talk.step(), fault))?;
        status.latency_ms = u64::try_from(start.elapsed().as_millis()).ok();
        status.trusts_us = Some(true);
        let fault = match said {
            501 => BaoFault::Uninitialized,
            503 => BaoFault::Sealed,
            _ => return Ok(()),
        };
        Err(member.error(talk.step(), fault))
    }

    /// Opens the wrap for checks; without one, does what making it takes, for the server to say why it cannot be.
    fn open_canary(&self, talk: &Talk<'_>, canary: Option<&Canary>) -> Result<(), BaoFault> {
        let opened = match canary {
            Some(canary) => {
                let opened = talk.decrypt(&canary.key, &canary.wrapped, CHECK, &self.arena)?;
                opened.check_value()? == canary.value
            }
            None => {
                let key = self.canary_key();
                if self.makes_canary() {
                    talk.make(&key)?;
                }
                talk.key(&key)?;
                let data = OpaqueKey::generate(32, &self.arena)?;
                let (wrapped, _) = talk.encrypt(&key, &data, CHECK)?;
                let opened = talk.decrypt(&key, &wrapped, CHECK, &self.arena)?;
                opened.check_value()? == data.check_value()?
            }
        };
        if opened { Ok(()) } else { Err(BaoFault::NotTheSame) }
    }
}

/// What a fault says of both sides' trust, and of the server.
fn blame(status: &mut ServerStatus, error: &BaoError) {
    match &error.fault {
        BaoFault::Link(
            Fault::Untrusted(_)
            | Fault::WrongName { .. }
            | Fault::OtherPin { .. }
            | Fault::ServerExpired { .. }
            | Fault::ServerTooYoung,
        ) => status.trusted = Some(false),
        BaoFault::Link(Fault::ClientRejected { .. } | Fault::ClientExpired { .. })
        | BaoFault::LoginRefused { .. } => {
            status.trusted = Some(true);
            status.trusts_us = Some(false);
        }
        _ => {}
    }
    // It works, but does not open the wrap.
    let answered = status.latency_ms.is_some();
    let works = answered && !matches!(error.fault, BaoFault::Sealed | BaoFault::Uninitialized);
    status.up = Some(works);
    status.key_fetched = works.then_some(false);
    status.reason = Some(error.fault.reason());
    status.detail = error.to_string();
}
