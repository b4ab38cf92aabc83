//! A counted use of a key.
//!
//! Owns what a use gives: the KEK, or its provider. Must not know what is wrapped. Ends when dropped.

use super::Keyring;
use crypto::{Kek, KeyId};
use kms_client::KeyProvider;
use std::sync::{Arc, Weak};

/// What the keyring has of a key.
#[derive(Clone)]
pub enum Held {
    /// The key itself.
    Kek(Arc<Kek>),
    /// Who has it and does not give it away: it wraps and unwraps.
    Provider(Arc<dyn KeyProvider>),
}

impl Held {
    fn mark(&self) -> Mark {
        match self {
            Held::Kek(kek) => Mark::Kek(Arc::downgrade(kek)),
            Held::Provider(_) => Mark::Provider,
        }
    }

    /// Is it what this use began with? A key that was evicted and came again is another one.
    pub(super) fn bears(&self, mark: &Mark) -> bool {
        match (self, mark) {
            (Held::Kek(kek), Mark::Kek(weak)) => std::ptr::eq(weak.as_ptr(), Arc::as_ptr(kek)),
            (Held::Provider(_), Mark::Provider) => true,
            (Held::Kek(_), Mark::Provider) | (Held::Provider(_), Mark::Kek(_)) => false,
        }
    }
}

/// What a use remembers of what it began with, without keeping the key.
pub(super) enum Mark {
    Kek(Weak<Kek>),
    Provider,
}

/// A key, and a counted use of it; ends when dropped.
pub struct Lease {
    usage: Usage,
    held: Held,
}

/// A counted use of a key without the key, which may be dropped meanwhile by force; ends when dropped.
pub struct Usage {
    keyring: Arc<Keyring>,
    id: KeyId,
    user: String,
    mark: Mark,
}

impl Lease {
    pub(super) fn new(keyring: Arc<Keyring>, id: KeyId, user: String, held: Held) -> Lease {
        let mark = held.mark();
        Lease { usage: Usage { keyring, id, user, mark }, held }
    }

    /// The key, or who has it.
    #[must_use]
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.usage.id
    }

    /// The provider, when it keeps the key.
    #[must_use]
    pub fn keeper(&self) -> Option<&Arc<dyn KeyProvider>> {
        match &self.held {
            Held::Kek(_) => None,
            Held::Provider(provider) => Some(provider),
        }
    }

    /// The use alone, for as long as the key may be needed again.
    #[must_use]
    pub fn into_usage(self) -> Usage {
        self.usage
    }
}

impl Usage {
    /// Id of the key.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({})", self.id())
    }
}

impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Usage({})", self.id)
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.keyring.release(&self.id, &self.user, &self.mark);
    }
}
