//! What can go wrong with one server, named by fault.
//!
//! Owns [`NodeError`] and [`Fault`]. It must not know other servers: what is tried next is the cluster's. Flow: whoever talks to
//! a server returns a [`Fault`]; the session adds the server and the operation; [`Fault::outcome`] says what is known of
//! the operation.

use super::key_block::KeyFault;
use super::response::{Refusal, ResponseError};
use super::ttlv::TtlvError;
use super::values::{ResultReason, State};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A server did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("KMIP server {node}: {operation}: {fault}")]
pub struct NodeError {
    /// Its address, `host:port`.
    pub node: String,
    /// What was being done: an operation of the protocol, or the connection before it.
    pub operation: &'static str,
    /// Why it was not done.
    pub fault: Fault,
}

/// Why a server did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The time for the whole operation is over.
    #[error("there was no time left to ask it")]
    NoTime,
    /// The name has no address.
    #[error("its name has no address: {0}; check the name and the resolver of this host")]
    Resolve(String),
    /// Nobody listens.
    #[error("nobody listens there; check the port, and that the server runs")]
    ConnectionRefused,
    /// No answer to the connection.
    #[error("no connection within {} ms; check the network and firewalls", .0.as_millis())]
    ConnectTimeout(Duration),
    /// The connection failed otherwise.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// The handshake did not end.
    #[error("the TLS handshake was not done within {} ms", .0.as_millis())]
    HandshakeTimeout(Duration),
    /// What listens does not speak TLS.
    #[error("what answers there does not speak TLS; check the port")]
    NotTls,
    /// No version or suite in common.
    #[error(
        "it has no TLS version or cipher suite in common with us ({0}); it must offer TLS 1.3, or TLS 1.2 with \
         ECDHE and AES-GCM"
    )]
    NoCommonSuite(String),
    /// The certificate of the server is not to be trusted.
    #[error(
        "its certificate is not trusted: {0}; `coffer key provider trust` shows it and can pin it"
    )]
    Untrusted(String),
    /// The certificate is for other names.
    #[error(
        "its certificate is not for {wanted}, but for {}; correct the address, or set tls_name for this server",
        names(.found)
    )]
    WrongName {
        /// The name that was looked for.
        wanted: String,
        /// The names in the certificate.
        found: Vec<String>,
    },
    /// Another certificate than the pinned one.
    #[error(
        "its certificate (SHA-256 {found}) is none of the pinned ones; if it was renewed, look at it and pin it \
         by `coffer key provider trust`"
    )]
    OtherPin {
        /// Fingerprint of the certificate that came.
        found: String,
    },
    /// The certificate of the server has run out.
    #[error("its certificate ran out {days} days ago; the server needs a new one")]
    ServerExpired {
        /// Days since.
        days: u64,
    },
    /// The certificate of the server is not valid yet.
    #[error("its certificate is not valid yet; check the clocks of both machines")]
    ServerTooYoung,
    /// The server does not take our certificate.
    #[error(
        "it does not take our certificate (TLS alert {alert}); it must trust the certificate, or who signed it, and \
         know its name as a client"
    )]
    ClientRejected {
        /// The alert.
        alert: String,
    },
    /// Our certificate has run out, and the server does not take it.
    #[error(
        "our certificate ran out {days} days ago (TLS alert {alert}); make and import a new one"
    )]
    ClientExpired {
        /// The alert.
        alert: String,
        /// Days since.
        days: u64,
    },
    /// TLS failed otherwise.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// Our own files.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No version in common.
    #[error("it speaks none of the versions 1.0 to 1.4 of KMIP")]
    NoCommonVersion,
    /// No answer.
    #[error("no whole answer within {} ms; it has sent {got} bytes of one", after.as_millis())]
    Silent {
        /// How long was waited.
        after: Duration,
        /// Bytes that came.
        got: usize,
    },
    /// Closed without an answer.
    #[error("it closed the connection without an answer")]
    Closed,
    /// Closed within an answer.
    #[error("it closed the connection after {got} of {length} bytes of its answer")]
    Truncated {
        /// Bytes that came.
        got: usize,
        /// Bytes that the answer has.
        length: usize,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The answer cannot be read.
    #[error("its answer is malformed: {0}")]
    Malformed(#[from] TtlvError),
    /// The answer is for something else.
    #[error("its answer does not fit: {0}")]
    Unfitting(String),
    /// The answer is the server's no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The state of the key forbids its use.
    #[error("the key is {0}, so it is not used")]
    State(State),
    /// The answer holds no key that can be used.
    #[error("{0}")]
    Key(#[from] KeyFault),
}

/// A file of ours that is needed for TLS cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the {what} {} {problem}: {remedy}", path.display())]
pub struct IdentityError {
    /// Which file.
    pub what: &'static str,
    /// Its path.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

/// What is known of an operation that was not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server never got it.
    NotSent,
    /// It may have been done.
    InDoubt,
    /// The server said no, or said something that it had no right to: it was not done.
    Answered,
}

impl Fault {
    /// What is known of the operation.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NoTime
            | Self::Resolve(_)
            | Self::ConnectionRefused
            | Self::ConnectTimeout(_)
            | Self::Connect(_)
            | Self::HandshakeTimeout(_)
            | Self::NotTls
            | Self::NoCommonSuite(_)
            | Self::Untrusted(_)
            | Self::WrongName { .. }
            | Self::OtherPin { .. }
            | Self::ServerExpired { .. }
            | Self::ServerTooYoung
            | Self::ClientRejected { .. }
            | Self::ClientExpired { .. }
            | Self::Identity(_)
            | Self::NoCommonVersion => Outcome::NotSent,
            Self::Tls(_)
            | Self::Silent { .. }
            | Self::Closed
            | Self::Truncated { .. }
            | Self::Broken(_)
            | Self::Malformed(_)
            | Self::Unfitting(_) => Outcome::InDoubt,
            Self::Refused(_) | Self::State(_) | Self::Key(_) => Outcome::Answered,
        }
    }

    /// The reason of a refusal.
    #[must_use]
    pub fn reason(&self) -> Option<ResultReason> {
        match self {
            Self::Refused(refusal) => refusal.reason,
            _ => None,
        }
    }

    /// Whether the server does not have the key: it says so, or says that it was destroyed.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.reason() == Some(ResultReason::ItemNotFound)
    }

    /// Whether the server cannot do such operations at all, now or later.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self.reason(),
            Some(ResultReason::OperationNotSupported | ResultReason::FeatureNotSupported)
        )
    }
}

impl From<ResponseError> for Fault {
    fn from(error: ResponseError) -> Self {
        match error {
            ResponseError::Malformed(error) => Self::Malformed(error),
            ResponseError::Unfitting(what) => Self::Unfitting(what),
        }
    }
}

/// Names of a certificate for a message. One without any is common: it has a common name only, which nobody may look at.
fn names(found: &[String]) -> String {
    if found.is_empty() {
        return "nothing (it has no subject alternative name; pin it instead)".to_owned();
    }
    found.join(", ")
}
