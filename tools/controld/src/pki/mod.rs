//! The authority of a cluster of controlds and hosts, and how a host gets its certificate.
//!
//! Owns the CA, one-time tokens and what a certificate says of its owner; must not know HTTP. Names in certificates are URIs (RFC 5280
//! section 4.2.1.6): `coffer://SITE/controld/NAME`, `coffer://SITE/host/NAME`, `coffer://SITE/user/NAME`. Flow of a join: an administrator makes a
//! [`JoinToken`] for one host; the host, which knows the fingerprint of the CA from it, connects, sends the secret and a request
//! (PKCS #10, RFC 2986), and gets a certificate whose names are those of the token and not of the request.

mod ca;
mod join;
mod tls;

pub use ca::{Ca, CaError, HOST_DAYS, Issued, Member, Pair, RENEW_BEFORE_DAYS, Role, new_request};
pub(crate) use ca::{replace, write_new};
pub use join::{JoinError, JoinToken, Joining, Joins, MAX_LIFE, ParseTokenError};
pub use tls::{TlsError, fingerprint, server_config, uris_of};
