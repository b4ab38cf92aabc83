//! A counted use of a key.
//!
//! Owns what a use gives: the KEK, or its provider. Must not know what is wrapped. Ends when dropped.

use super::Keyring;
use crypto::{Kek, KeyId};
use kms_client::KeyProvider;
use std::sync::Arc;

/// What the keyring has of a key.
#[derive(Clone)]
pub enum Held {
    /// The key itself.
    Kek(Arc<Kek>),
    /// Who has it and does not give it away: it wraps and unwraps.
    Provider(Arc<dyn KeyProvider>),
}

/// A counted use of a key; ends when dropped.
pub struct Lease {
    pub(super) keyring: Arc<Keyring>,
    pub(super) id: KeyId,
    pub(super) user: String,
    pub(super) held: Held,
}

impl Lease {
    /// The key, or who has it.
    #[must_use]
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The provider, when it keeps the key.
    #[must_use]
    pub fn keeper(&self) -> Option<&Arc<dyn KeyProvider>> {
        match &self.held {
            Held::Kek(_) => None,
            Held::Provider(provider) => Some(provider),
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({})", self.id)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keyring.release(&self.id, &self.user);
    }
}
