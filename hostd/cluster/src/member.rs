//! Who a certificate speaks for.
//!
//! Owns the form of the name: one URI among the subject alternative names (RFC 5280 section 4.2.1.6),
//! `coffer://CLUSTER/ROLE/NAME`. It must not know TLS, nor trust anything: whoever asks has verified the certificate.
//! Flow: [`Member::of`] reads the name of a certificate, and [`Member::is_a`] says whether it is who may be spoken to.

use rustls::pki_types::CertificateDer;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// How such a URI begins.
const SCHEME: &str = "coffer://";

/// Longest part of a name: as all names in Coffer.
const MAX_PART: usize = 64;

/// Most URIs of one certificate that are looked at; a member has one.
const MAX_URIS: usize = 16;

/// A member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    cluster: String,
    role: Role,
    name: String,
}

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It runs VMs, and takes keys: hostd.
    Host,
    /// It pushes keys: controld.
    Controld,
    /// It asks a control plane for things: a person, or a program of theirs. A host has nothing to do with it.
    User,
}

/// Why a certificate, or a name, speaks for no member, or not for the one that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MemberError {
    /// It cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// It has no such URI.
    #[error("the certificate has no name of the form coffer://CLUSTER/ROLE/NAME among its URIs")]
    NoName,
    /// It has several, and so would be several members.
    #[error("the certificate has more than one name of the form coffer://CLUSTER/ROLE/NAME")]
    Several,
    /// The URI has another form.
    #[error(
        "{0:?} is no name of a member: write coffer://CLUSTER/ROLE/NAME, with host, controld or user as ROLE and 1 to 64 \
         of A-Z a-z 0-9 . _ - in the others"
    )]
    Form(String),
    /// It is of another cluster.
    #[error("{found} is of the cluster {}, not of {wanted}", found.cluster)]
    OtherCluster {
        /// Who it is.
        found: Member,
        /// The cluster.
        wanted: String,
    },
    /// It has another role.
    #[error("{found} has the role {}, not {wanted}", found.role)]
    OtherRole {
        /// Who it is.
        found: Member,
        /// The role.
        wanted: Role,
    },
    /// It has another name.
    #[error("{found} is not {wanted}")]
    OtherName {
        /// Who it is.
        found: Member,
        /// The name.
        wanted: String,
    },
}

impl Member {
    /// Who a verified certificate speaks for.
    ///
    /// # Errors
    /// [`MemberError`].
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, MemberError> {
        let parsed = webpki::EndEntityCert::try_from(certificate)
            .map_err(|e| MemberError::Unreadable(e.to_string()))?;
        let mut names = parsed.valid_uri_names().take(MAX_URIS).filter(|u| u.starts_with(SCHEME));
        let name = names.next().ok_or(MemberError::NoName)?;
        match names.next() {
            None => name.parse(),
            Some(_) => Err(MemberError::Several),
        }
    }

    /// Whether it has this role in this cluster.
    ///
    /// # Errors
    /// [`MemberError::OtherCluster`] before [`MemberError::OtherRole`].
    pub fn is_a(&self, role: Role, cluster: &str) -> Result<(), MemberError> {
        if self.cluster != cluster {
            return Err(MemberError::OtherCluster { found: self.clone(), wanted: cluster.into() });
        }
        if self.role != role {
            return Err(MemberError::OtherRole { found: self.clone(), wanted: role });
        }
        Ok(())
    }

    /// Name of its cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What it does.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its own name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Member {
    type Err = MemberError;

    fn from_str(text: &str) -> Result<Self, MemberError> {
        let wrong = || MemberError::Form(text.chars().take(4 * MAX_PART).collect());
        let mut parts = text.strip_prefix(SCHEME).ok_or_else(wrong)?.split('/');
        let (Some(cluster), Some(role), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let role = match role {
            "host" => Role::Host,
            "controld" => Role::Controld,
            "user" => Role::User,
            _ => return Err(wrong()),
        };
        if !is_part(cluster) || !is_part(name) {
            return Err(wrong());
        }
        Ok(Self { cluster: cluster.to_owned(), role, name: name.to_owned() })
    }
}

fn is_part(text: &str) -> bool {
    (1..=MAX_PART).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.cluster, self.role, self.name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Controld => "controld",
            Self::User => "user",
        })
    }
}

#[cfg(test)]
#[path = "member_tests.rs"]
mod tests;
