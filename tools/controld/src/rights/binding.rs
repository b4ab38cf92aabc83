//! Who is who, and which roles they have.
//!
//! Owns identities, bindings and tokens. A token is shown once, when it is made; the store has a SHA-256 of it, which is as good as a slow hash here,
//! for a token is 256 random bits and cannot be guessed. Must not know what a role allows.

use super::{Refusal, Rights, RightsError};
use crate::inventory::{Name, escape};
use crate::store::Revision;
use crypto::sha256_hex;
use serde::{Deserialize, Serialize};

/// Begins every token, so that people and scanners for leaked secrets know one.
const TOKEN_PREFIX: &str = "coffer-token";

/// Longest life of a token in seconds: one year. A token without an end is never looked at again.
const MAX_LIFE: u64 = 366 * 86_400;

/// Before a token is hashed, so that its hash is no other hash of ours.
const TOKEN_DOMAIN: &str = "coffer token v1\0";

/// As whom somebody comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// With nothing.
    Nobody,
    /// With a client certificate that TLS has verified: the SHA-256 of its DER form in lower-case hex, and its names of type URI.
    Certificate {
        /// Fingerprint.
        sha256: String,
        /// Names.
        uris: Vec<String>,
    },
    /// With a token, as it was sent.
    Token(String),
}

/// Where a role counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Everywhere.
    Everything,
    /// In one cluster.
    Cluster(Name),
}

/// A role of somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Who: `sha256:HEX` (a certificate), `uri:NAME` (a name in certificates), or `token:ID`.
    pub subject: String,
    /// The name that the audit log shows.
    pub name: Name,
    /// Their role.
    pub role: Name,
    /// Where it counts.
    pub scope: Scope,
}

/// A token, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its public part.
    pub id: String,
    /// SHA-256 of the whole token, lower-case hex.
    pub hash: String,
    /// Whose it is.
    pub name: Name,
    /// Last second.
    pub until: u64,
}

/// A token that was just made. Its text is never shown again.
pub struct NewToken {
    /// The whole of it, for its owner.
    pub text: String,
    /// As it is kept.
    pub token: Token,
}

impl Identity {
    /// How the audit log names the kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Certificate { .. } => "certificate",
            Self::Token(_) => "token",
        }
    }
}

impl Scope {
    /// Whether it covers a cluster, or everything (`None`).
    #[must_use]
    pub fn covers(&self, cluster: Option<&Name>) -> bool {
        match self {
            Self::Everything => true,
            Self::Cluster(own) => cluster == Some(own),
        }
    }
}

impl Rights {
    /// Name and bindings of somebody.
    pub(super) fn known(
        &self,
        identity: &Identity,
        now: u64,
    ) -> Result<(String, Vec<Binding>), RightsError> {
        let subjects = match identity {
            Identity::Nobody => return Err(Refusal::Nobody.into()),
            Identity::Certificate { sha256, uris } => {
                let uris = uris.iter().map(|uri| format!("uri:{uri}"));
                std::iter::once(format!("sha256:{sha256}")).chain(uris).collect()
            }
            Identity::Token(text) => vec![format!("token:{}", self.token(text, now)?.id)],
        };
        let mut bindings = Vec::new();
        for subject in &subjects {
            bindings.extend(self.bindings_of(subject)?);
        }
        match bindings.first() {
            Some(first) => Ok((first.name.to_string(), bindings)),
            None => Err(Refusal::Unknown { who: subjects.join(", ") }.into()),
        }
    }

    /// The token that a text is.
    fn token(&self, text: &str, now: u64) -> Result<Token, RightsError> {
        // Which part is wrong is not said: an id that exists is worth something to who guesses.
        let unknown = || Refusal::Unknown { who: "this token".into() };
        let id = public_part(text).ok_or_else(unknown)?;
        let (token, _) = self.load::<Token>(&token_key(id))?.ok_or_else(unknown)?;
        // Both are hashes: what the time of a comparison tells leads nowhere.
        if token.hash != hash(text) {
            return Err(unknown().into());
        }
        if now > token.until {
            return Err(Refusal::Expired { id: token.id }.into());
        }
        Ok(token)
    }

    /// Makes a token for somebody that is good for `life` seconds; it has no role until one is bound to `token:ID`.
    ///
    /// # Errors
    /// [`RightsError::Fixed`] for a life above one year.
    pub fn make_token(&self, name: &Name, life: u64, now: u64) -> Result<NewToken, RightsError> {
        if life == 0 || life > MAX_LIFE {
            let what = format!("a token lasts 1 to {MAX_LIFE} seconds, not {life}");
            return Err(RightsError::Fixed(what));
        }
        let id = hex::encode(crypto::random_array::<8>()?);
        let secret = hex::encode(crypto::random_array::<32>()?);
        let text = format!("{TOKEN_PREFIX}.{id}.{secret}");
        let token = Token { hash: hash(&text), id, name: name.clone(), until: now + life };
        self.save(&token_key(&token.id), &token, Some(Revision::ABSENT))?;
        Ok(NewToken { text, token })
    }

    /// All tokens, without their secrets, which nobody has.
    ///
    /// # Errors
    /// [`RightsError`].
    pub fn tokens(&self) -> Result<Vec<Token>, RightsError> {
        self.load_all("token/")
    }

    /// Ends a token.
    ///
    /// # Errors
    /// [`RightsError::NotFound`].
    pub fn remove_token(&self, id: &str) -> Result<(), RightsError> {
        self.discard::<Token>(&token_key(&escape(id)), &format!("token {id}"))
    }

    /// Binds a role.
    ///
    /// # Errors
    /// [`RightsError::NotFound`] when there is no such role; [`RightsError::Fixed`] for a subject that is none.
    pub fn bind(&self, binding: &Binding) -> Result<(), RightsError> {
        let kinds = ["sha256:", "uri:", "token:"];
        let is_subject = kinds.iter().any(|kind| {
            binding.subject.strip_prefix(kind).is_some_and(|rest| (1..=256).contains(&rest.len()))
        });
        if !is_subject {
            let what =
                format!("{:?} is nobody; write sha256:HEX, uri:NAME or token:ID", binding.subject);
            return Err(RightsError::Fixed(what));
        }
        if self.role(&binding.role)?.is_none() {
            return Err(RightsError::NotFound(format!("role {}", binding.role)));
        }
        self.save(&binding_key(binding), binding, None)
    }

    /// Takes a role away.
    ///
    /// # Errors
    /// [`RightsError::NotFound`].
    pub fn unbind(&self, binding: &Binding) -> Result<(), RightsError> {
        let what = format!("binding of {} to {}", binding.subject, binding.role);
        self.discard::<Binding>(&binding_key(binding), &what)
    }

    /// All bindings.
    ///
    /// # Errors
    /// [`RightsError`].
    pub fn bindings(&self) -> Result<Vec<Binding>, RightsError> {
        self.load_all("binding/")
    }

    fn bindings_of(&self, subject: &str) -> Result<Vec<Binding>, RightsError> {
        self.load_all(&format!("binding/{}/", escape(subject)))
    }
}

fn binding_key(binding: &Binding) -> String {
    let scope = match &binding.scope {
        Scope::Everything => "everything".to_owned(),
        Scope::Cluster(name) => format!("cluster/{name}"),
    };
    format!("binding/{}/{}/{scope}", escape(&binding.subject), binding.role)
}

fn token_key(id: &str) -> String {
    format!("token/{id}")
}

/// The id in a token, if it looks like one of ours.
fn public_part(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(TOKEN_PREFIX)?.strip_prefix('.')?.split_once('.')?;
    let is_hex =
        |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit());
    (is_hex(id, 16) && is_hex(secret, 64)).then_some(id)
}

fn hash(text: &str) -> String {
    sha256_hex(format!("{TOKEN_DOMAIN}{text}").as_bytes())
}
