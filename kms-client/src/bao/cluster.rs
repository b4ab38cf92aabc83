//! Several servers with the same keys.
//!
//! Owns the order in which they are asked, what is thought of each, and what follows a fault. It must not know what is asked.
//! Flow: [`Cluster::ask`] goes through the servers until one does it. When none did, but one says that it may soon (no leader is elected yet,
//! the standby is behind), it goes through them again after a pause, until the one end that an operation has. Every operation that is asked so
//! can be done twice.

use super::calls::{Places, Talk};
use super::fault::{BaoError, BaoFault};
use super::login::Session;
use super::node::Node;
use super::refused::Refused;
use crate::kmip::breaker::Breaker;
use crate::kmip::cluster::random;
use crate::kmip::fault::Fault;
use crate::kmip::gate::{Gate, MAX_WAIT};
use crate::kmip::link::Budgets;
use crate::kmip::retry::pause;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most operations of a provider at a time. After a start of the host all its VMs ask at once; a server answers each within some
/// milliseconds, and more connections would not make it faster.
pub(super) const MAX_AT_ONCE: usize = 8;

/// How long a standby may take to hear of a new token. It is asked once more after this.
const TOKEN_LAG: Duration = Duration::from_millis(250);

/// The servers.
pub(super) struct Cluster {
    pub(super) members: Vec<Member>,
    pub(super) places: Places,
    budgets: Budgets,
    session: Session,
    gate: Gate,
}

/// One server, and what is thought of it.
pub(super) struct Member {
    pub(super) node: Node,
    breaker: Mutex<Breaker>,
    /// It said last that another must be asked.
    standby: AtomicBool,
}

impl Cluster {
    pub(super) fn new(nodes: Vec<Node>, places: Places, budgets: Budgets) -> Self {
        let member = |node| Member {
            node,
            breaker: Mutex::new(Breaker::Closed),
            standby: AtomicBool::new(false),
        };
        let members = nodes.into_iter().map(member).collect();
        Self { members, places, budgets, session: Session::new(), gate: Gate::new(MAX_AT_ONCE) }
    }

    /// The end of an operation that begins now.
    pub(super) fn end(&self) -> Instant {
        Instant::now() + self.budgets.operation
    }

    /// Has one of the servers do something that can be done twice. Its time begins when it is its turn.
    pub(super) fn ask<T>(
        &self,
        mut ask: impl FnMut(&Talk<'_>) -> Result<T, BaoFault>,
    ) -> Result<T, Refused> {
        let Some(_place) = self.gate.enter(Instant::now() + MAX_WAIT) else {
            return Err(Refused::default());
        };
        let end = self.end();
        let mut before = None;
        for attempt in 0.. {
            let refused = match self.round(attempt > 0, end, &mut ask) {
                Ok(done) => return Ok(done),
                Err(refused) => refused,
            };
            if refused.is_final() {
                // What was said before the time was over says more.
                let late = |error: &BaoError| matches!(error.fault, BaoFault::Link(Fault::NoTime));
                return Err(before.filter(|_| refused.0.iter().any(late)).unwrap_or(refused));
            }
            let wait = pause(attempt, random());
            if !refused.may_pass() || Instant::now() + wait >= end {
                return Err(refused);
            }
            before = Some(refused);
            std::thread::sleep(wait);
        }
        Err(Refused::default())
    }

    /// Asks each server once. Those that are left alone for a while are asked only when all others have failed for good, and not
    /// `again`.
    fn round<T>(
        &self,
        again: bool,
        end: Instant,
        ask: &mut impl FnMut(&Talk<'_>) -> Result<T, BaoFault>,
    ) -> Result<T, Refused> {
        let (mut refused, mut left_alone) = (Refused::default(), Vec::new());
        let mut order: Vec<_> = self.members.iter().collect();
        order.sort_by_key(|member| member.standby.load(Ordering::Relaxed));
        for member in order {
            if !member.breaker().admits(Instant::now()) {
                left_alone.push(member);
                continue;
            }
            match self.once(member, end, ask) {
                Ok(done) => return Ok(done),
                Err(error) => refused.0.push(error),
            }
            if refused.is_final() {
                return Err(refused);
            }
        }
        let skip = again && !refused.0.is_empty() || refused.may_pass();
        for member in left_alone.into_iter().filter(|_| !skip) {
            match self.once(member, end, ask) {
                Ok(done) => return Ok(done),
                Err(error) => refused.0.push(error),
            }
            if refused.is_final() {
                break;
            }
        }
        Err(refused)
    }

    /// Asks this server once, whatever is thought of it, and thinks anew.
    pub(super) fn once<T>(
        &self,
        member: &Member,
        end: Instant,
        ask: &mut impl FnMut(&Talk<'_>) -> Result<T, BaoFault>,
    ) -> Result<T, BaoError> {
        let mut talk = Talk::new(&member.node, &self.places, end);
        let said = self.with_token(&mut talk, ask);
        match &said {
            Err(fault) if fault.is_ill() => member.breaker().failed(Instant::now()),
            _ => member.breaker().succeeded(),
        }
        let standby = matches!(said, Err(BaoFault::Standby { .. } | BaoFault::NoLeader(_)));
        member.standby.store(standby, Ordering::Relaxed);
        said.map_err(|fault| member.error(talk.step(), fault))
    }

    /// With a token; another one when the server does not take it, once.
    fn with_token<T>(
        &self,
        talk: &mut Talk<'_>,
        ask: &mut impl FnMut(&Talk<'_>) -> Result<T, BaoFault>,
    ) -> Result<T, BaoFault> {
        let end = talk.end;
        let (token, fresh) = self.session.token(end, || talk.login())?;
        talk.token = Some(std::sync::Arc::clone(&token));
        match ask(talk) {
            Err(BaoFault::Forbidden { .. }) if fresh => {
                std::thread::sleep(TOKEN_LAG.min(end.saturating_duration_since(Instant::now())));
            }
            Err(BaoFault::Forbidden { .. }) => {
                talk.token = Some(self.session.another(&token, end, || talk.login())?);
            }
            other => return other,
        }
        ask(talk)
    }
}

impl Member {
    /// An error of this server.
    pub(super) fn error(&self, operation: &'static str, fault: BaoFault) -> BaoError {
        BaoError { node: self.node.address(), operation, fault }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
