//! Work that one controld does for all: who does it, and what it is.
//!
//! Owns the lease of this controld and its part in the election. Must not know the API. Each turn whoever leads sweeps join tokens that
//! have run out; when it dies or loses the store, its lease ends and another one leads with the next turn.

use crate::inventory::Name;
use crate::pki::{JoinError, Joins};
use crate::store::{Session, Standing, Store, StoreError, campaign};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// The role that is led.
pub const ROLE: &str = "background";

/// Life of the lease: two turns of the clockwork and some, so that a pause does not change the leader.
const LIFE: Duration = Duration::from_secs(30);

/// One controld's part.
pub struct Background {
    store: Arc<dyn Store>,
    joins: Joins,
    me: Name,
    session: Option<Session>,
}

/// Why a turn was not done.
#[derive(Debug, Error)]
pub enum BackgroundError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sweep.
    #[error(transparent)]
    Sweep(#[from] JoinError),
}

impl Background {
    /// For this controld, which has no lease yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, me: Name) -> Self {
        let joins = Joins::new(Arc::clone(&store));
        Self { store, joins, me, session: None }
    }

    /// One turn; tells whether this controld leads.
    ///
    /// # Errors
    /// [`BackgroundError`]; the next turn tries again.
    pub fn turn(&mut self, now: u64) -> Result<bool, BackgroundError> {
        if self.session.as_ref().is_none_or(|session| !session.is_live()) {
            // The old lease goes before there is a new one.
            self.session = None;
            self.session = Some(Session::begin(Arc::clone(&self.store), LIFE)?);
        }
        let Some(session) = &self.session else { return Ok(false) };
        match campaign(self.store.as_ref(), session, ROLE, self.me.as_str())? {
            Standing::Leader(_) => {
                self.joins.sweep(now)?;
                Ok(true)
            }
            Standing::Follower { leader } => {
                tracing::trace!("{leader} does the background work");
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Joining;
    use crate::store::{EmbeddedStore, leader};

    #[test]
    fn one_leads_and_sweeps_and_another_one_follows_it() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(EmbeddedStore::open(&dir.path().join("store.redb")).unwrap());
        let name = |text: &str| text.parse::<Name>().unwrap();
        let joining = Joining { host: name("h1"), cluster: name("berlin"), until: 0 };
        let make = || {
            let joins = Joins::new(Arc::clone(&store));
            joins.make(&name("s"), &"a".repeat(64), &joining, 100, 1000).unwrap()
        };
        let waiting = || store.scan("join/", None, 10).unwrap().entries.len();
        let mut one = Background::new(Arc::clone(&store), name("ctl1"));
        let mut two = Background::new(Arc::clone(&store), name("ctl2"));
        make();
        assert!(one.turn(1100).unwrap());
        assert!(!two.turn(9999).unwrap());
        assert_eq!(waiting(), 1, "it has not run out, and who follows does not sweep");
        assert!(one.turn(1101).unwrap(), "it still leads");
        assert_eq!(waiting(), 0);
        drop(one);
        make();
        assert!(two.turn(1101).unwrap());
        assert_eq!(waiting(), 0);
        assert_eq!(leader(store.as_ref(), ROLE).unwrap().as_deref(), Some("ctl2"));
    }
}
