//! Who may do what: privileges, roles, bindings, tokens, and acts that need a second person.
//!
//! Owns the decision and what it rests on in the store; must not know HTTP or TLS. Flow: a request brings an [`Identity`] (a client
//! certificate, or an API token), [`Rights::check`] finds the roles bound to it and answers with a [`Pass`] or a [`Refusal`] that says
//! what is missing and who gives it.

mod approval;
mod binding;
mod privilege;
mod role;

pub use approval::{APPROVAL_LIFE, Approval, ApprovalState};
pub use binding::{Binding, Identity, NewToken, Scope, Token};
pub use privilege::Privilege;
pub use role::{BUILT_IN, Role};

use crate::inventory::Name;
use crate::store::{Store, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use thiserror::Error;

/// Decides, by what is in a store.
#[derive(Clone)]
pub struct Rights {
    store: Arc<dyn Store>,
}

/// Somebody who may do what they asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Their name.
    pub name: String,
    /// How they are known: `certificate` or `token`.
    pub by: &'static str,
}

/// Why somebody may not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No certificate and no token.
    #[error("nobody said who asks; use a client certificate or an API token")]
    Nobody,
    /// A certificate or token that no role is bound to.
    #[error("no role is bound to {who}; an administrator can bind one")]
    Unknown {
        /// As they are known.
        who: String,
    },
    /// A token that has run out.
    #[error("the token {id} has run out; an administrator can make another one")]
    Expired {
        /// Its public part.
        id: String,
    },
    /// Their roles do not have the privilege.
    #[error(
        "{name} has no privilege {privilege} for {scope}: it is in no role of theirs ({roles})"
    )]
    Missing {
        /// Their name.
        name: String,
        /// The privilege.
        privilege: Privilege,
        /// For what.
        scope: String,
        /// The roles they have.
        roles: String,
    },
}

/// Why there is no decision, or a change of rights was not made.
#[derive(Debug, Error)]
pub enum RightsError {
    /// A refusal is an answer; here as an error of the calls that need a pass.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such role, token, binding or request.
    #[error("there is no {0}")]
    NotFound(String),
    /// The name is taken.
    #[error("{0} is there already")]
    Exists(String),
    /// It cannot be changed.
    #[error("{0}")]
    Fixed(String),
    /// A request that needs a second person cannot be approved, or be used, as it is.
    #[error("{0}")]
    Approval(String),
    /// What is stored cannot be read.
    #[error("{key} cannot be read: {reason}; restore the store from a backup")]
    Damaged {
        /// The key in the store.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The kernel gives no randomness.
    #[error(transparent)]
    Random(#[from] crypto::KeyError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Rights {
    /// Rights in this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Whether somebody may do something that needs a privilege, in a cluster or in all of the control plane (`None`). `now` is seconds
    /// since 1970.
    ///
    /// # Errors
    /// [`RightsError::Refused`]; others when there is no decision, which is a refusal as well.
    pub fn check(
        &self,
        identity: &Identity,
        privilege: Privilege,
        cluster: Option<&Name>,
        now: u64,
    ) -> Result<Pass, RightsError> {
        let (name, bindings) = self.known(identity, now)?;
        let mut roles = BTreeSet::new();
        for binding in bindings.iter().filter(|binding| binding.scope.covers(cluster)) {
            // A role that was removed gives nothing.
            let Some(role) = self.role(&binding.role)? else { continue };
            if role.privileges.contains(&privilege) {
                return Ok(Pass { name, by: identity.kind() });
            }
            roles.insert(role.name.to_string());
        }
        let roles = if roles.is_empty() {
            "none here".to_owned()
        } else {
            roles.into_iter().collect::<Vec<_>>().join(", ")
        };
        let scope =
            cluster.map_or("the whole control plane".into(), |name| format!("cluster {name}"));
        Err(Refusal::Missing { name, privilege, scope, roles }.into())
    }
}

#[cfg(test)]
#[path = "rights_tests.rs"]
mod tests;
