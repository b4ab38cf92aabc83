//! Several servers that hold the same keys.
//!
//! Owns the order in which they are asked, what is thought of each, and the rules after a fault. It must not know the trait of
//! providers. Flow: [`Cluster::ask`] goes through the servers until one answers for good: first those that are thought well, in the
//! order of the configuration, then, rather than fail, each of the others once. All of it has one end. Under load, fetches
//! go to the servers with less to do first. Keys are made in `making`.

use super::breaker::Breaker;
use super::fault::{Fault, NodeError, Outcome};
use super::link::Budgets;
use super::node::{Node, Session};
use super::refused::Refused;
use super::retry::{is_ill, pause};
use super::values::{ResultReason, State};
use crypto::{Arena, Kek};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long servers may take to tell each other of a new key. A younger key that a server does not know is late, not lost.
pub const LAG: Duration = Duration::from_secs(60);

/// Most new keys that are remembered with their server; a host makes a few in a minute.
const MAX_RECENT: usize = 1024;

/// How many fetches a server has at a time before the next one of the list is asked first: one that has two works without a
/// pause between them.
const FAIR_SHARE: usize = 2;

/// The servers.
pub struct Cluster {
    pub(super) members: Vec<Arc<Member>>,
    pub(super) budgets: Budgets,
    recent: Mutex<VecDeque<Recent>>,
    /// What new keys get as their operation policy.
    pub(super) policy: Option<String>,
}

/// One server, and what is thought of it.
pub(super) struct Member {
    pub(super) node: Node,
    breaker: Mutex<Breaker>,
    /// Conversations with it that are under way.
    busy: AtomicUsize,
    /// It gives keys, but makes none.
    pub(super) read_only: AtomicBool,
}

/// Which connection an operation goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// One of its own.
    New,
    /// One that was left open, if there is one, and it is left open again. For what changes nothing.
    Kept,
    /// The same; if none is open, half the usual time to connect must do, because another server can be asked instead.
    KeptOrSoon,
}

/// A key that was made a moment ago.
struct Recent {
    uid: String,
    member: usize,
    made: Instant,
}

/// A key, and where it came from.
#[derive(Debug)]
pub struct Fetched {
    /// The key.
    pub kek: Kek,
    /// Its state there; `None` when the server does not tell states.
    pub state: Option<State>,
    /// The server, as a number in the order of the configuration.
    pub member: usize,
}

impl Cluster {
    /// A cluster of these servers, best first.
    #[must_use]
    pub fn new(nodes: Vec<Node>, budgets: Budgets) -> Self {
        let member = |node| {
            Arc::new(Member {
                node,
                breaker: Mutex::new(Breaker::Closed),
                busy: AtomicUsize::new(0),
                read_only: AtomicBool::new(false),
            })
        };
        let members = nodes.into_iter().map(member).collect();
        Self { members, budgets, recent: Mutex::default(), policy: None }
    }

    /// The same, with the name of an operation policy for new keys.
    #[must_use]
    pub fn with_policy(self, policy: Option<String>) -> Self {
        Self { policy, ..self }
    }

    /// The end of an operation that begins now.
    #[must_use]
    pub fn end(&self) -> Instant {
        Instant::now() + self.budgets.operation
    }

    /// Closes connections that were left open and that nobody has used for a while.
    pub fn close_idle(&self) {
        self.members.iter().for_each(|member| member.node.close_idle());
    }

    /// Brings a key into the arena. A key in a state that forbids its use is dropped at once; `compromised` allows that
    /// one state.
    ///
    /// # Errors
    /// [`Refused`] with what each server said.
    pub fn fetch(
        &self,
        uid: &str,
        compromised: bool,
        arena: &Arena,
        end: Instant,
    ) -> Result<Fetched, Refused> {
        let order = self.order(uid);
        let mut attempt = 0;
        loop {
            let asked = self.ask_over(Over::KeptOrSoon, &order, end, |session| {
                fetch(session, uid, compromised, arena)
            });
            let refused = match asked {
                Ok((member, (kek, state))) => return Ok(Fetched { kek, state, member }),
                Err(refused) => refused,
            };
            let late = refused.is_not_found() && self.home(uid).is_some();
            let wait = pause(attempt, random());
            if !late || Instant::now() + wait >= end {
                return Err(refused);
            }
            std::thread::sleep(wait);
            attempt += 1;
        }
    }

    /// Brings several keys into the arena, in their order: those that one server gives together, and of which nothing else is to be said.
    /// Each of the others is `None`, and to be fetched by [`Cluster::fetch`].
    ///
    /// # Errors
    /// [`Refused`] when no server answered at all.
    pub fn fetch_together(
        &self,
        uids: &[String],
        arena: &Arena,
        end: Instant,
    ) -> Result<Vec<Option<Fetched>>, Refused> {
        let ask = |session: &mut Session<'_>| session.active_keys(uids, arena);
        let (member, keys) = match self.ask_over(Over::KeptOrSoon, &self.order(""), end, ask) {
            Ok(answered) => answered,
            Err(refused) if refused.is_silence() => return Err(refused),
            Err(_) => return Ok(uids.iter().map(|_| None).collect()),
        };
        let fetched = |kek| Fetched { kek, state: Some(State::Active), member };
        Ok(keys.into_iter().map(|key| key.map(fetched)).collect())
    }

    /// Goes through servers in this order until one answers for good; its number and what it said.
    pub(super) fn ask<T>(
        &self,
        order: &[usize],
        end: Instant,
        ask: impl FnMut(&mut Session<'_>) -> Result<T, NodeError>,
    ) -> Result<(usize, T), Refused> {
        self.ask_over(Over::New, order, end, ask)
    }

    fn ask_over<T>(
        &self,
        over: Over,
        order: &[usize],
        end: Instant,
        mut ask: impl FnMut(&mut Session<'_>) -> Result<T, NodeError>,
    ) -> Result<(usize, T), Refused> {
        let mut refused = Refused::default();
        let mut left_alone = Vec::new();
        for index in order {
            let Some(member) = self.members.get(*index) else { continue };
            if !self.admits(member, order) {
                left_alone.push(*index);
                continue;
            }
            let over = if self.can_do_without(member, order) { over } else { over.patient() };
            match member.once(over, end, &mut ask) {
                Ok(said) => return Ok((*index, said)),
                Err(error) => refused.0.push(error),
            }
            if refused.is_final() {
                return Err(refused);
            }
        }
        for index in left_alone {
            let Some(member) = self.members.get(index) else { continue };
            match member.once(over.patient(), end, &mut ask) {
                Ok(said) => return Ok((index, said)),
                Err(error) => refused.0.push(error),
            }
            if refused.is_final() {
                return Err(refused);
            }
        }
        Err(refused)
    }

    /// Whether to ask a server now. When its pause is over, and another of `order` is well, nobody is made to wait for what may
    /// still be dead: it is tried beside, and asked again once it has answered.
    fn admits(&self, member: &Arc<Member>, order: &[usize]) -> bool {
        if *member.breaker() == Breaker::Closed {
            return true;
        }
        if !member.breaker().admits(Instant::now()) {
            return false;
        }
        !self.can_do_without(member, order) || !member.try_beside(self.end())
    }

    /// Whether another server of `order` is well.
    fn can_do_without(&self, member: &Arc<Member>, order: &[usize]) -> bool {
        let mut others = order.iter().filter_map(|index| self.members.get(*index));
        others.any(|other| !Arc::ptr_eq(other, member) && *other.breaker() == Breaker::Closed)
    }

    /// The order of the configuration, those with more to do later; the server that made the key first while it is young.
    fn order(&self, uid: &str) -> Vec<usize> {
        let home = self.home(uid);
        let mut others: Vec<_> =
            (0..self.members.len()).filter(|index| Some(*index) != home).collect();
        let busy = |index: &usize| {
            let busy = self.members.get(*index).map(|m| m.busy.load(Ordering::Relaxed));
            busy.unwrap_or_default() / FAIR_SHARE
        };
        others.sort_by_cached_key(busy);
        home.into_iter().chain(others).collect()
    }

    /// The server that made a key a moment ago.
    fn home(&self, uid: &str) -> Option<usize> {
        let recent = self.recent();
        let found = recent.iter().find(|recent| recent.uid == uid)?;
        (found.made.elapsed() < LAG).then_some(found.member)
    }

    /// Remembers a new key.
    pub(super) fn remember(&self, uid: &str, member: usize) {
        let mut recent = self.recent();
        if recent.len() == MAX_RECENT {
            recent.pop_front();
        }
        recent.push_back(Recent { uid: uid.to_owned(), member, made: Instant::now() });
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State and key in one message, and activation when it needs one.
fn fetch(
    session: &mut Session<'_>,
    uid: &str,
    compromised: bool,
    arena: &Arena,
) -> Result<(Kek, Option<State>), NodeError> {
    let (mut state, key) = session.state_and_key(uid, arena)?;
    match state {
        Some(State::PreActive) => {
            ensure_active(session, uid)?;
            state = Some(State::Active);
        }
        Some(forbidden @ (State::Destroyed | State::DestroyedCompromised)) => {
            return Err(session.error("Get", Fault::State(forbidden)));
        }
        Some(State::Compromised) if !compromised => {
            return Err(session.error("Get", Fault::State(State::Compromised)));
        }
        Some(State::Active | State::Deactivated | State::Compromised) | None => {}
    }
    match key {
        Some(key) => Ok((key, state)),
        None => Ok((session.get(uid, arena)?, state)),
    }
}

/// Activates a key. Servers refuse to do it twice, and another host may have done it meanwhile, so a refusal counts only
/// when the state is still another.
pub(super) fn ensure_active(session: &mut Session<'_>, uid: &str) -> Result<(), NodeError> {
    match session.activate(uid) {
        Err(error) if error.fault.outcome() == Outcome::Answered => match session.state(uid) {
            Ok(Some(State::Active)) => Ok(()),
            _ => Err(error),
        },
        other => other,
    }
}

impl Over {
    fn patient(self) -> Self {
        if self == Self::KeptOrSoon { Self::Kept } else { self }
    }
}

impl Member {
    /// Asks this server once, whatever is thought of it, and thinks anew.
    pub(super) fn once<T>(
        &self,
        over: Over,
        end: Instant,
        ask: &mut impl FnMut(&mut Session<'_>) -> Result<T, NodeError>,
    ) -> Result<T, NodeError> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        let said = self.converse(over, end, ask);
        self.busy.fetch_sub(1, Ordering::Relaxed);
        match &said {
            Err(error) if is_ill(&error.fault) => self.breaker().failed(Instant::now()),
            _ => self.breaker().succeeded(),
        }
        said
    }

    fn converse<T>(
        &self,
        over: Over,
        end: Instant,
        ask: &mut impl FnMut(&mut Session<'_>) -> Result<T, NodeError>,
    ) -> Result<T, NodeError> {
        if over == Over::New {
            return ask(&mut self.node.session(end)?);
        }
        let mut session = self.node.resume(end, over == Over::KeptOrSoon)?;
        let said = ask(&mut session);
        session.keep();
        said
    }

    /// Tries in a thread of its own whether this server is back; `false` when there cannot be one. Only the one who was let in by the
    /// breaker does this, so there is one such thread a server, and it ends at `end`.
    fn try_beside(self: &Arc<Self>, end: Instant) -> bool {
        let member = Arc::clone(self);
        let work = move || {
            // What is thought of it is all that counts.
            let _ = member.once(Over::New, end, &mut |session| session.query().map(drop));
        };
        std::thread::Builder::new().name("kmip-probe".into()).spawn(work).is_ok()
    }

    /// What is thought of it.
    pub(super) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is known to make no keys.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }
}

/// A random number for a pause; when the kernel has none, pauses are full.
pub(crate) fn random() -> u32 {
    crypto::random_array().map_or(u32::MAX, u32::from_be_bytes)
}

/// Whether a refusal means that the server makes no keys at all.
pub(super) fn makes_no_keys(fault: &Fault) -> bool {
    fault.is_unsupported() || fault.reason() == Some(ResultReason::IllegalOperation)
}
