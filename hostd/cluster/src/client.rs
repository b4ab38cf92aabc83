//! Blocking client of a host's control port: one request on a fresh connection under mutual TLS.
//!
//! Owns transport and what its failures mean; must not know what is pushed. Flow: connect, handshake (which host it is is
//! part of it), one HTTP/1.1 request, its answer; a time for all of it. A small tokio runtime lives inside.

use crate::identity::Identity;
use crypto::KeyId;
use hostd_api::client::{ClientError, decode, exchange};
use hostd_api::control::{EvictAnswer, EvictKey, HostIdentity, PushAnswer, PushKeys, VmKeys};
use hostd_api::error::ApiError;
use hyper::Method;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError};
use serde::{Serialize, de::DeserializeOwned};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a host may take for one call. It reads the safes of its VMs for an answer, from storage that may be slow.
const CALL_WAIT: Duration = Duration::from_secs(60);

/// How long the connection and its handshake may take of that.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// Why a call has no result.
#[derive(Debug, Error)]
pub enum CallError {
    /// The host answered with an error.
    #[error("host {address}: {error}")]
    Api {
        /// Where it is.
        address: String,
        /// HTTP status.
        status: u16,
        /// What it says.
        error: Box<ApiError>,
    },
    /// Nobody answers there.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What the kernel said.
        reason: std::io::Error,
    },
    /// It takes too long.
    #[error("{address} did not answer within {} s", limit.as_secs())]
    Slow {
        /// Where it is.
        address: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Its certificate is not that of the host that is wanted.
    #[error("{address} is not trusted: {reason}")]
    NotTrusted {
        /// Where it is.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// It refuses our certificate.
    #[error(
        "{address} refuses our certificate (TLS alert {alert}); is it of the host's authority, and still valid?"
    )]
    Refused {
        /// Where it is.
        address: String,
        /// What it said.
        alert: String,
    },
    /// What is there does not speak TLS 1.3 or HTTP as a host does.
    #[error("{address} does not answer as a host: {reason}")]
    Protocol {
        /// Where it is.
        address: String,
        /// What is wrong.
        reason: String,
    },
}

/// A client of one host.
pub struct HostClient {
    address: String,
    name: Option<String>,
    identity: Arc<Identity>,
}

impl HostClient {
    /// A client of the host at `address` (`HOST:PORT`), which must be the one of this name in the cluster when one is given.
    /// It connects with each call.
    #[must_use]
    pub fn new(address: &str, name: Option<&str>, identity: Arc<Identity>) -> Self {
        Self { address: address.to_owned(), name: name.map(ToOwned::to_owned), identity }
    }

    /// Where the host is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Who the host is, to whom keys are sealed, and which it lacks.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn identity(&self) -> Result<HostIdentity, CallError> {
        self.call(Method::GET, "/v1/control/identity", None::<&()>)
    }

    /// Pushes keys.
    ///
    /// # Errors
    /// [`CallError`]; with the code `stale-push` ask for the identity again, and seal anew.
    pub fn push(&self, keys: &PushKeys) -> Result<PushAnswer, CallError> {
        self.call(Method::POST, "/v1/control/keys", Some(keys))
    }

    /// Has the host forget a pushed key.
    ///
    /// # Errors
    /// [`CallError`]; with the code `in-use` unless forced when VMs that run use it.
    pub fn evict(&self, key: &KeyId, how: &EvictKey) -> Result<EvictAnswer, CallError> {
        let EvictKey { generation, force } = how;
        let path = format!("/v1/control/keys/{key}?generation={generation}&force={force}");
        self.call(Method::DELETE, &path, None::<&()>)
    }

    /// The VMs of the host, and which of them are locked.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn vms(&self) -> Result<Vec<VmKeys>, CallError> {
        self.call(Method::GET, "/v1/control/vms", None::<&()>)
    }

    fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, CallError> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|e| self.protocol(e.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| self.protocol(format!("no runtime: {e}")))?;
        let answer = runtime.block_on(async {
            tokio::time::timeout(CALL_WAIT, self.exchange(method, path, body)).await
        });
        let (status, text) = answer.unwrap_or_else(|_| Err(self.slow(CALL_WAIT)))?;
        decode(status, &text).map_err(|e| match e {
            ClientError::Api { status, error } => {
                CallError::Api { address: self.address.clone(), status, error }
            }
            other => self.protocol(other.to_string()),
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(hyper::StatusCode, hyper::body::Bytes), CallError> {
        let connected = tokio::time::timeout(CONNECT_WAIT, self.connect()).await;
        let stream = connected.unwrap_or_else(|_| Err(self.slow(CONNECT_WAIT)))?;
        exchange(stream, method, path, body).await.map_err(|e| self.fault(e.as_ref()))
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, CallError> {
        let config = self.identity.now().client_of_host(self.name.as_deref());
        let config = config.map_err(|e| self.protocol(e.to_string()))?;
        // The library wants a name to look for; the verifier looks at that of the cluster instead.
        let name = ServerName::try_from("hostd").map_err(|e| self.protocol(e.to_string()))?;
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|reason| CallError::Unreachable { address: self.address.clone(), reason })?;
        let connector = TlsConnector::from(config);
        connector.connect(name, stream).await.map_err(|e| self.fault(&e))
    }

    /// What an error below HTTP means.
    fn fault(&self, error: &(dyn Error + 'static)) -> CallError {
        let address = self.address.clone();
        match tls_error(error) {
            Some(rustls::Error::AlertReceived(alert)) if is_about_certificate(*alert) => {
                CallError::Refused { address, alert: format!("{alert:?}") }
            }
            Some(rustls::Error::InvalidCertificate(why)) => {
                let reason = match why {
                    CertificateError::Other(other) => other.0.to_string(),
                    CertificateError::UnknownIssuer => {
                        "no authority of our cluster has signed its certificate".into()
                    }
                    other => other.to_string(),
                };
                CallError::NotTrusted { address, reason }
            }
            Some(other) => CallError::Protocol { address, reason: other.to_string() },
            None => CallError::Protocol { address, reason: chain(error) },
        }
    }

    fn protocol(&self, reason: String) -> CallError {
        CallError::Protocol { address: self.address.clone(), reason }
    }

    fn slow(&self, limit: Duration) -> CallError {
        CallError::Slow { address: self.address.clone(), limit }
    }
}

/// The error of the TLS library in a chain of errors, if there is one.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An I/O error shows what it holds by another way than as its source.
        let inner: Option<&'a (dyn Error + 'static)> = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .map(|e| -> &(dyn Error + 'static) { e });
        next = inner.or_else(|| error.source());
    }
    None
}

fn is_about_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::CertificateRequired
            | A::DecryptError
    )
}

/// An error with its causes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
