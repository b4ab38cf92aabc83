//! Who does the work that only one controld may do at a time.
//!
//! Owns the keys below `leader/`; must not know the work. A leader is who made the key of its role, under its lease. Changes that
//! only a leader may make are fenced: they expect that very key, so that one who lost it without noticing changes nothing.

use super::{Revision, Session, Store, StoreError, Txn};

/// The outcome of a campaign.
#[derive(Debug)]
pub enum Standing {
    /// We lead.
    Leader(Leadership),
    /// Somebody else does.
    Follower {
        /// The name it gave.
        leader: String,
    },
}

/// The right to do the work of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    key: String,
    revision: Revision,
}

impl Leadership {
    /// Makes a transaction fail unless we still lead.
    #[must_use]
    pub fn fence(&self, txn: Txn) -> Txn {
        txn.expect(self.key.clone(), self.revision)
    }

    /// Lets somebody else lead.
    ///
    /// # Errors
    /// [`StoreError`], not when we do not lead any more.
    pub fn resign(self, store: &dyn Store) -> Result<(), StoreError> {
        let txn = self.fence(Txn::new().delete(self.key.clone()));
        match store.commit(&txn) {
            Err(e) if !e.is_conflict() => Err(e),
            _ => Ok(()),
        }
    }
}

/// Tries once to lead in `role`, under the name `me` (one word). Who follows watches [`watch_key`], or tries again later.
///
/// # Errors
/// [`StoreError`].
pub fn campaign(
    store: &dyn Store,
    session: &Session,
    role: &str,
    me: &str,
) -> Result<Standing, StoreError> {
    let key = watch_key(role);
    let ours = format!("{me} {}", session.lease().0);
    // The second turn is for a leader that went between the two calls.
    for _ in 0..2 {
        let claim = Txn::new().expect(key.clone(), Revision::ABSENT).put_under(
            session.lease(),
            key.clone(),
            ours.as_bytes(),
        );
        match store.commit(&claim) {
            Ok(revision) => return Ok(Standing::Leader(Leadership { key, revision })),
            Err(e) if e.is_conflict() => {}
            Err(e) => return Err(e),
        }
        match store.get(&key)? {
            // An earlier claim of this session whose answer was lost.
            Some(found) if found.value == ours.as_bytes() => {
                return Ok(Standing::Leader(Leadership { key, revision: found.revision }));
            }
            Some(found) => return Ok(Standing::Follower { leader: name(&found.value) }),
            None => {}
        }
    }
    Err(StoreError::Conflict { key })
}

/// Name of the leader in `role`, when there is one.
///
/// # Errors
/// [`StoreError`].
pub fn leader(store: &dyn Store, role: &str) -> Result<Option<String>, StoreError> {
    let found = store.get(&watch_key(role))?;
    Ok(found.map(|entry| name(&entry.value)))
}

/// The name in the value of a leader's key, before its lease.
fn name(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.rsplit_once(' ').map_or(text.as_ref(), |(name, _)| name).to_owned()
}

/// The key whose deletion ends a leadership.
#[must_use]
pub fn watch_key(role: &str) -> String {
    format!("leader/{role}")
}
