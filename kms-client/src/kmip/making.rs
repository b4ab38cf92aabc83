//! New keys: made once, whatever happens on the way.
//!
//! Owns the steps from a name to an active key. It must not send a Create twice without having looked. Flow: [`Cluster::make`] asks
//! the servers that make keys, one after the other; after an outcome in doubt it looks for the name on all servers, and
//! only when it is nowhere to be seen makes another key under another name, and reports the one that may be left over. Then it
//! activates the key, gives it its tags, and sees that other servers have it.

use super::cluster::{Cluster, ensure_active, makes_no_keys, random};
use super::fault::{NodeError, Outcome};
use super::refused::Refused;
use super::request::Attribute;
use super::retry::{another_may_do_better, pause};
use crypto::{Arena, CheckValue};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Most keys that are begun for one: after that, something is wrong that trying does not help.
const MAX_BEGUN: usize = 3;

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// Id of the key.
    pub uid: String,
    /// Servers that gave the key, all with the same bytes.
    pub copies: usize,
    /// Addresses of servers that gave another key under this id: they are not of one cluster.
    pub strangers: Vec<String>,
}

/// What came of one Create.
enum Begun {
    Made(usize, String),
    /// It may be there, under the name that was given.
    InDoubt(NodeError),
    Refused(Refused),
}

impl Cluster {
    /// Makes a new active key. `name` gives a new name each time; `quorum` is how many servers should have the key
    /// before it is used, which is waited for until `end`, but not insisted on. `orphans` gets the names of keys that a
    /// server may have made and that nobody will use, whatever becomes of the rest.
    ///
    /// # Errors
    /// [`Refused`] with what each server said.
    pub fn make(
        &self,
        mut name: impl FnMut() -> String,
        tags: &[Attribute<'_>],
        quorum: usize,
        orphans: &mut Vec<String>,
        arena: &Arena,
        end: Instant,
    ) -> Result<Made, Refused> {
        let mut refused = Refused::default();
        for _ in 0..MAX_BEGUN {
            let name = name();
            let (member, uid) = match self.begin(&name, end) {
                Begun::Made(member, uid) => (member, uid),
                Begun::InDoubt(error) => {
                    refused.0.push(error);
                    match self.find(&name, end) {
                        Some(found) => found,
                        None => {
                            orphans.push(name);
                            continue;
                        }
                    }
                }
                Begun::Refused(more) => {
                    refused.0.extend(more.0);
                    break;
                }
            };
            self.remember(&uid, member);
            if let Err(error) = self.finish(member, &uid, tags, end) {
                refused.0.push(error);
                orphans.push(name);
                return Err(refused);
            }
            let (copies, strangers) = self.copies(member, &uid, quorum, arena, end);
            return Ok(Made { uid, copies, strangers });
        }
        Err(refused)
    }

    /// Sends Create to one server after another, until one may have done it.
    fn begin(&self, name: &str, end: Instant) -> Begun {
        let (makers, others): (Vec<_>, Vec<_>) =
            (0..self.members.len()).partition(|index| !self.is_read_only(*index));
        // Those that made none once are asked last: they may have become masters.
        let order: Vec<_> = makers.into_iter().chain(others).collect();
        let mut refused = Refused::default();
        // `ask` would go on to the next server after a fault in doubt, so each is asked alone.
        for index in self.well_first(&order) {
            match self.ask(&[index], end, |session| {
                session.create_under(Some(name), self.policy.as_deref())
            }) {
                Ok((_, uid)) => {
                    self.set_read_only(index, false);
                    return Begun::Made(index, uid);
                }
                Err(mut said) => {
                    let Some(error) = said.0.pop() else { continue };
                    if error.fault.outcome() == Outcome::InDoubt && error.operation == "Create" {
                        return Begun::InDoubt(error);
                    }
                    self.set_read_only(index, makes_no_keys(&error.fault));
                    let goes_on =
                        makes_no_keys(&error.fault) || another_may_do_better(&error.fault);
                    refused.0.push(error);
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        Begun::Refused(refused)
    }

    /// Looks for a name on all servers, those that are thought ill as well; the one in doubt first of all may just have been slow.
    fn find(&self, name: &str, end: Instant) -> Option<(usize, String)> {
        (0..self.members.len()).find_map(|index| {
            let located = self.ask(&[index], end, |session| session.locate(Some(name)));
            let (_, uids) = located.ok()?;
            Some((index, uids.into_iter().next()?))
        })
    }

    /// Activates a key where it was made, and gives it its tags. An activation in doubt is repeated: it reads the state when
    /// it is refused.
    fn finish(
        &self,
        member: usize,
        uid: &str,
        tags: &[Attribute<'_>],
        end: Instant,
    ) -> Result<(), NodeError> {
        let mut first = None;
        for attempt in 0..3 {
            let done = self.ask(&[member], end, |session| {
                ensure_active(session, uid)?;
                // Tags are for people who look at the server; some servers have none.
                if !tags.is_empty() {
                    let _ = session.add_attributes(uid, tags);
                }
                Ok(())
            });
            let Err(mut refused) = done else { return Ok(()) };
            let Some(error) = refused.0.pop() else { break };
            let doubtful = error.fault.outcome() != Outcome::Answered;
            first.get_or_insert(error);
            let wait = pause(attempt, random());
            if !doubtful || Instant::now() + wait >= end {
                break;
            }
            std::thread::sleep(wait);
        }
        match first {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// How many servers give the key that `maker` made, waited for until there are `quorum`; and who gives another one.
    fn copies(
        &self,
        maker: usize,
        uid: &str,
        quorum: usize,
        arena: &Arena,
        end: Instant,
    ) -> (usize, Vec<String>) {
        let quorum = quorum.min(self.members.len());
        let others = (0..self.members.len()).filter(|index| *index != maker);
        // Whoever made it has the right one.
        let mut left: Vec<_> = std::iter::once(maker).chain(others).collect();
        let mut known: Option<CheckValue> = None;
        let (mut copies, mut strangers) = (0, Vec::new());
        let mut attempt = 0;
        loop {
            left.retain(|index| {
                // One that is ill is not waited for; whoever asks next finds out whether it is back.
                if !self.is_well(*index) || (known.is_none() && *index != maker) {
                    return true;
                }
                let got = self.ask(&[*index], end, |session| session.get(uid, arena));
                let Ok((_, kek)) = got else { return true };
                let value = kek.check_value();
                if *known.get_or_insert(value) == value {
                    copies += 1;
                } else {
                    strangers.extend(self.members.get(*index).map(|member| member.node.address()));
                }
                false
            });
            let wait = pause(attempt, random());
            let hope = left.iter().any(|index| self.is_well(*index)) && self.is_well(maker);
            let enough = copies >= quorum || !strangers.is_empty();
            if enough || !hope || Instant::now() + wait >= end {
                return (copies, strangers);
            }
            std::thread::sleep(wait);
            attempt += 1;
        }
    }

    /// The same order, with those that are thought ill at the end.
    fn well_first(&self, order: &[usize]) -> Vec<usize> {
        let (well, ill): (Vec<_>, Vec<_>) = order.iter().partition(|index| self.is_well(**index));
        well.into_iter().chain(ill).collect()
    }

    fn is_well(&self, index: usize) -> bool {
        let breaker = self.members.get(index).map(|member| *member.breaker());
        breaker == Some(super::breaker::Breaker::Closed)
    }

    fn is_read_only(&self, index: usize) -> bool {
        self.members.get(index).is_some_and(|member| member.is_read_only())
    }

    pub(super) fn set_read_only(&self, index: usize, read_only: bool) {
        if let Some(member) = self.members.get(index) {
            member.read_only.store(read_only, Ordering::Relaxed);
        }
    }
}
