//! One-time tokens by which a host joins.
//!
//! Owns the tokens: their text, which holds all that a host needs to know (site, its name, the fingerprint of the CA, a secret), and their hashes in the
//! store. Must not know certificates. A token is used up before the certificate is made: one that was overheard or sent twice makes no second one.

use crate::inventory::{Name, escape};
use crate::store::{Revision, Store, StoreError, Txn};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use thiserror::Error;

/// Longest life of a token in seconds: one week; whoever needs it later makes another one.
pub const MAX_LIFE: u64 = 7 * 86_400;

/// Before a secret is hashed, so that its hash is no other hash of ours.
const DOMAIN: &str = "coffer join v1\0";

/// Begins every token.
const PREFIX: &str = "coffer-join";

/// A token, in the hands of who gives it to the host. Its text is a secret until it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The site.
    pub site: Name,
    /// The host that may use it.
    pub host: Name,
    /// SHA-256 of the certificate of the CA, lower-case hex: by this the host knows controld before it has anything else.
    pub ca: String,
    secret: String,
}

/// A text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this is no join token; those begin with {PREFIX}. and have five parts")]
pub struct ParseTokenError;

/// What the store knows of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joining {
    /// The host that may join.
    pub host: Name,
    /// Its cluster.
    pub cluster: Name,
    /// Last second.
    pub until: u64,
}

/// Why nobody joins.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The secret fits no token, or it was used.
    #[error("the join token is not known, or was used; make another one")]
    Unknown,
    /// It has run out.
    #[error("the join token of {host} has run out; make another one")]
    Expired {
        /// The host.
        host: Name,
    },
    /// Its life is out of bounds.
    #[error("a join token lasts 1 to {MAX_LIFE} seconds, not {0}")]
    Life(u64),
    /// What is stored cannot be read.
    #[error("a join token in the store cannot be read: {0}")]
    Damaged(String),
    /// The kernel gives no randomness.
    #[error(transparent)]
    Random(#[from] crypto::KeyError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The tokens that wait for their hosts.
#[derive(Clone)]
pub struct Joins {
    store: Arc<dyn Store>,
}

impl Joins {
    /// Tokens in this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Makes a token for one host, good for `life` seconds.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn make(
        &self,
        site: &Name,
        ca: &str,
        joining: &Joining,
        life: u64,
        now: u64,
    ) -> Result<JoinToken, JoinError> {
        if life == 0 || life > MAX_LIFE {
            return Err(JoinError::Life(life));
        }
        let secret = hex::encode(crypto::random_array::<32>()?);
        let kept = Joining { until: now + life, ..joining.clone() };
        let text = serde_json::to_vec(&kept).map_err(|e| JoinError::Damaged(e.to_string()))?;
        let key = key(&secret);
        self.store.commit(&Txn::new().expect(key.clone(), Revision::ABSENT).put(key, text))?;
        let (site, ca) = (site.clone(), ca.to_owned());
        Ok(JoinToken { site, host: joining.host.clone(), ca, secret })
    }

    /// Uses a secret up: the first call gets who may join, every later one [`JoinError::Unknown`].
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn redeem(&self, secret: &str, now: u64) -> Result<Joining, JoinError> {
        let key = key(secret);
        let entry = self.store.get(&key)?.ok_or(JoinError::Unknown)?;
        let joining: Joining =
            serde_json::from_slice(&entry.value).map_err(|e| JoinError::Damaged(e.to_string()))?;
        let used = self.store.commit(&Txn::new().expect(key.clone(), entry.revision).delete(key));
        match used {
            Err(StoreError::Conflict { .. }) => return Err(JoinError::Unknown),
            outcome => outcome?,
        };
        if now > joining.until {
            return Err(JoinError::Expired { host: joining.host });
        }
        Ok(joining)
    }

    /// Deletes tokens that have run out, at most a page of them.
    ///
    /// # Errors
    /// [`JoinError::Store`].
    pub fn sweep(&self, now: u64) -> Result<(), JoinError> {
        for entry in self.store.scan("join/", None, usize::MAX)?.entries {
            let is_over = serde_json::from_slice::<Joining>(&entry.value)
                .map_or(true, |joining| now > joining.until);
            if is_over {
                let txn = Txn::new().expect(entry.key.clone(), entry.revision).delete(entry.key);
                match self.store.commit(&txn) {
                    Err(e) if !e.is_conflict() => return Err(e.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl JoinToken {
    /// What the host sends.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The whole text, for the host. Whoever has it can join in its place.
    #[must_use]
    pub fn text(&self) -> String {
        // Names may have dots; escaped they have none.
        let part = |name: &Name| name.as_str().replace('.', "%2E");
        format!("{PREFIX}.{}.{}.{}.{}", part(&self.site), part(&self.host), self.ca, self.secret)
    }
}

impl FromStr for JoinToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let parts: Vec<_> = text.trim().split('.').collect();
        let [PREFIX, site, host, ca, secret] = parts.as_slice() else {
            return Err(ParseTokenError);
        };
        let name = |part: &str| part.replace("%2E", ".").parse().map_err(|_| ParseTokenError);
        let is_hex = |part: &str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex(ca) || !is_hex(secret) {
            return Err(ParseTokenError);
        }
        let (ca, secret) = ((*ca).to_owned(), (*secret).to_owned());
        Ok(Self { site: name(site)?, host: name(host)?, ca, secret })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({} of {})", self.host, self.site)
    }
}

fn key(secret: &str) -> String {
    format!("join/{}", escape(&crypto::sha256_hex(format!("{DOMAIN}{secret}").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EmbeddedStore;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn joining() -> Joining {
        Joining { host: name("h1.example"), cluster: name("berlin"), until: 0 }
    }

    fn joins() -> (Joins, Arc<dyn Store>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(EmbeddedStore::open(&dir.path().join("store.redb")).unwrap());
        (Joins::new(Arc::clone(&store)), store, dir)
    }

    #[test]
    fn a_token_joins_one_host_once() {
        let (joins, store, _dir) = joins();
        let ca = "ab".repeat(32);
        let token = joins.make(&name("site"), &ca, &joining(), 100, 1000).unwrap();
        let read: JoinToken = token.text().parse().unwrap();
        assert_eq!(read, token);
        assert_eq!((read.host.as_str(), read.ca.as_str()), ("h1.example", ca.as_str()));
        assert!(!format!("{token:?}").contains(token.secret()));
        let stored = store.scan("", None, 10).unwrap().entries;
        assert!(stored.iter().all(|e| !e.key.contains(token.secret())
            && !String::from_utf8_lossy(&e.value).contains(token.secret())));
        let who = joins.redeem(read.secret(), 1100).unwrap();
        assert_eq!((who.host, who.cluster), (name("h1.example"), name("berlin")));
        assert!(matches!(joins.redeem(read.secret(), 1100), Err(JoinError::Unknown)));
        assert!(matches!(joins.redeem("", 0), Err(JoinError::Unknown)));
    }

    #[test]
    fn tokens_run_out_and_are_swept() {
        let (joins, store, _dir) = joins();
        let make = || joins.make(&name("s"), &"a".repeat(64), &joining(), 100, 1000).unwrap();
        let token = make();
        assert!(matches!(joins.redeem(token.secret(), 1101), Err(JoinError::Expired { .. })));
        make();
        joins.sweep(1100).unwrap();
        assert_eq!(store.scan("join/", None, 10).unwrap().entries.len(), 1);
        joins.sweep(1101).unwrap();
        assert!(store.scan("join/", None, 10).unwrap().entries.is_empty());
        for life in [0, MAX_LIFE + 1] {
            let made = joins.make(&name("s"), "", &joining(), life, 0);
            assert!(matches!(made, Err(JoinError::Life(_))));
        }
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let good = format!("coffer-join.s.h.{}.{}", "a".repeat(64), "b".repeat(64));
        good.parse::<JoinToken>().unwrap();
        for bad in [
            "",
            "coffer-join",
            &good[1..],
            &format!("{good}.x"),
            &good.replace('a', "g"),
            &good[..good.len() - 1],
        ] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
    }
}
