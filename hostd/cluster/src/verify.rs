//! Whether a server is a host of our cluster.
//!
//! Owns the check that takes the place of the one of DNS names: hosts are known by their names in the cluster, whatever
//! address they are reached at. It must not know what is asked of the host. Flow: the chain must lead to an authority of the
//! cluster (RFC 5280), then the name must be that of a host of it.

use crate::member::{Member, MemberError, Role};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use std::sync::Arc;

/// Takes hosts of one cluster, or one host of it.
#[derive(Debug)]
pub(crate) struct HostVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    cluster: String,
    name: Option<String>,
}

impl HostVerifier {
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        cluster: &str,
        name: Option<&str>,
    ) -> Self {
        Self { roots, provider, cluster: cluster.to_owned(), name: name.map(ToOwned::to_owned) }
    }

    fn is_wanted(&self, certificate: &CertificateDer<'_>) -> Result<(), MemberError> {
        let found = Member::of(certificate)?;
        found.is_a(Role::Host, &self.cluster)?;
        match &self.name {
            Some(wanted) if found.name() != wanted => {
                Err(MemberError::OtherName { found, wanted: wanted.clone() })
            }
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for HostVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        self.is_wanted(end_entity)
            .map_err(|e| Error::from(CertificateError::Other(OtherError(Arc::new(e)))))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
