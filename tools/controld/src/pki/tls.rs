//! TLS of controld: its own certificate, and who its clients are.
//!
//! Owns the way from PEM text to a `ServerConfig`, and what is read from a client's certificate once TLS has verified it. Must not know
//! requests. TLS 1.3 only (RFC 8446): every client is ours. A client certificate is asked for and not demanded, as a host that joins has none
//! yet and a person may have a token; who has neither gets no further than the routes for that. No session is resumed, so each connection proves
//! itself anew.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;
use thiserror::Error;
use zeroize::Zeroize;

/// Most names of one certificate that are looked at: ours have one.
const MAX_NAMES: usize = 8;

/// Why there is no TLS.
#[derive(Debug, Error)]
#[error("the {what} cannot be used for TLS: {reason}")]
pub struct TlsError {
    /// Which of them.
    what: &'static str,
    /// What is wrong.
    reason: String,
}

/// Settings for a listener: its certificate chain and key, and the authorities of its clients, all PEM.
///
/// # Errors
/// [`TlsError`] names what is wrong.
pub fn server_config(
    chain: &str,
    key: &str,
    authorities: &str,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in certificates(authorities, "authority")? {
        roots.add(authority).map_err(unfit("authority"))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let verifier = verifier.allow_unauthenticated().build().map_err(unfit("authority"))?;
    let mut private = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(unfit("key"))?;
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private);
    private.zeroize();
    let chain = certificates(chain, "certificate")?;
    let certified = rustls::sign::CertifiedKey::new(chain, signing.map_err(unfit("key"))?);
    certified.keys_match().map_err(unfit("key"))?;
    let resolver = rustls::sign::SingleCertAndKey::from(Arc::new(certified));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unfit("certificate"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// SHA-256 of a certificate, lower-case hex.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    crypto::sha256_hex(certificate)
}

/// The names of type URI of a certificate that has been verified.
#[must_use]
pub fn uris_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    parsed.valid_uri_names().take(MAX_NAMES).map(ToOwned::to_owned).collect()
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => Err(unfit(what)("it has no certificate in PEM form")),
        other => other.map_err(unfit(what)),
    }
}

fn unfit<E: ToString>(what: &'static str) -> impl Fn(E) -> TlsError {
    move |reason| TlsError { what, reason: reason.to_string() }
}
