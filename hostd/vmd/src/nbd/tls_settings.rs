//! What TLS is done with: versions, the server's certificate and key, and who signs those of clients.
//!
//! Owns the way from PEM files to a `ServerConfig`. It must not know connections. Flow: [`server_config`] reads
//! the descriptors that hostd has opened, so that neither process needs the right to open them later. TLS 1.3
//! and 1.2 only (RFC 8446, RFC 5246); every client must have a certificate; no session is ever resumed, so each
//! connection proves itself anew; early data is off.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// Largest PEM file in bytes: a bundle of a hundred authorities fits in it.
const MAX_FILE: usize = 1024 * 1024;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsSettingsError {
    /// A file cannot be read.
    #[error("the file with the {what} cannot be read: {source}")]
    Io {
        /// Which file.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file has not what it should.
    #[error("the file with the {what} is of no use: {reason}")]
    Content {
        /// Which file.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// The descriptors of the three PEM files.
#[derive(Debug)]
pub struct PemFiles {
    /// The server's certificate, and those that lead to its authority.
    pub certificate: OwnedFd,
    /// The private key of the first certificate.
    pub key: OwnedFd,
    /// The authorities that sign the certificates of clients.
    pub authorities: OwnedFd,
}

/// The settings of one listening socket.
///
/// # Errors
/// [`TlsSettingsError`] names the file.
pub fn server_config(files: PemFiles) -> Result<Arc<ServerConfig>, TlsSettingsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = certificates(files.certificate, "certificate")?;
    let roots = authorities(files.authorities)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.build().map_err(unfit("client authorities"))?;
    let certified = Arc::new(certified(chain, files.key)?);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unfit("certificate"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // A resumed session would be let in by a certificate that may have been taken back or have run out since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The chain with its key, which must belong together. What was read of the key is wiped; the library keeps
/// its own form for as long as the settings live.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: OwnedFd,
) -> Result<CertifiedKey, TlsSettingsError> {
    let what = "private key";
    let pem = Zeroizing::new(read(key, what)?);
    let mut der = PrivateKeyDer::from_pem_slice(&pem).map_err(unfit(what))?;
    let signing = aws_lc_rs::sign::any_supported_type(&der);
    der.zeroize();
    let certified = CertifiedKey::new(chain, signing.map_err(unfit(what))?);
    certified.keys_match().map_err(unfit(what))?;
    Ok(certified)
}

fn authorities(file: OwnedFd) -> Result<RootCertStore, TlsSettingsError> {
    let what = "client authorities";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, what)? {
        roots.add(certificate).map_err(unfit(what))?;
    }
    Ok(roots)
}

fn certificates(
    file: OwnedFd,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsSettingsError> {
    let pem = read(file, what)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(unfit(what)("it has no certificate in PEM form")),
        other => other.map_err(unfit(what)),
    }
}

/// The whole file. The buffer never grows, so no copy of a key is left behind by a move.
fn read(file: OwnedFd, what: &'static str) -> Result<Vec<u8>, TlsSettingsError> {
    let failed = |source| TlsSettingsError::Io { what, source };
    let mut file = File::from(file);
    file.rewind().map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_FILE);
    let length = length.ok_or_else(|| unfit(what)(format!("it has more than {MAX_FILE} bytes")))?;
    let mut content = vec![0; length];
    file.read_exact(&mut content).map_err(failed)?;
    Ok(content)
}

fn unfit<E: ToString>(what: &'static str) -> impl Fn(E) -> TlsSettingsError {
    move |reason| TlsSettingsError::Content { what, reason: reason.to_string() }
}
