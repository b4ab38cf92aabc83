//! Trust in pinned certificates.
//!
//! Owns the comparison with the pinned ones. It must not know files. Flow: the TLS library shows the certificate of the server, and
//! then the signature by which the server proves that it has the key.

use super::x509::Validity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use std::sync::Arc;
use std::time::Duration;

/// Trust in certificates themselves. The server proves by its signature that it has the key of one; who signed it and for which
/// name does not matter, as an operator has looked at it.
#[derive(Debug)]
pub(super) struct Pinned {
    certificates: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

/// The certificate is none of the pinned ones.
#[derive(Debug, thiserror::Error)]
#[error("SHA-256 {found} is not pinned")]
pub(super) struct NotPinned {
    /// Fingerprint of the certificate that came.
    pub(super) found: String,
}

impl Pinned {
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { certificates, provider }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.certificates.iter().any(|pinned| pinned.as_ref() == certificate.as_ref()) {
            let found = NotPinned { found: crypto::sha256_hex(certificate) };
            return Err(CertificateError::Other(OtherError(Arc::new(found))).into());
        }
        let validity = Validity::of(certificate).ok_or(CertificateError::BadEncoding)?;
        if now.as_secs() > validity.until {
            let not_after = UnixTime::since_unix_epoch(Duration::from_secs(validity.until));
            return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
        }
        if now.as_secs() < validity.from {
            return Err(CertificateError::NotValidYet.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
