//! Verbs on the key servers: health, and the set-up of trust.
//!
//! Owns the way from the API to `kms_client`; never sees a key. The files are those of the configuration.

use crate::fault::Fault;
use crate::host::Host;
use crate::keys::{now, provider_info};
use hostd_api::error::ErrorCode;
use hostd_api::kms::{
    CertificateInfo, CommonName, ImportCertificate, InstallPair, SigningRequest, TrustServer,
};
use hostd_api::types::ProviderInfo;
use kms_client::kmip::setup::{self, Shown};
use kms_client::kmip::tls::TlsFiles;

impl Host {
    /// `GET /v1/keys/providers`: checks every provider, and tells how it is.
    ///
    /// # Errors
    /// None; what is wrong is in the answer.
    pub fn check_providers(&self) -> Result<Vec<ProviderInfo>, Fault> {
        // All at the same time: each has its own deadline.
        std::thread::scope(|scope| {
            for provider in self.keyring.providers() {
                scope.spawn(|| provider.check());
            }
        });
        let providers = self.keyring.providers().iter().enumerate();
        Ok(providers.map(|(index, p)| provider_info(p.as_ref(), index == 0)).collect())
    }

    /// `POST /v1/keys/kmip/csr`.
    ///
    /// # Errors
    /// A name that cannot be in a certificate; faults of the files.
    pub fn kmip_csr(&self, body: &CommonName) -> Result<SigningRequest, Fault> {
        let request = setup::request(&self.kmip_files()?, &body.common_name)?;
        Ok(SigningRequest { request })
    }

    /// `POST /v1/keys/kmip/certificate`.
    ///
    /// # Errors
    /// No request was made, or it is for another key; faults of the files.
    pub fn kmip_import(&self, body: &ImportCertificate) -> Result<CertificateInfo, Fault> {
        let shown = setup::import(&self.kmip_files()?, &body.certificate, now)?;
        Ok(info(shown, false))
    }

    /// `POST /v1/keys/kmip/self-signed`.
    ///
    /// # Errors
    /// A name that cannot be in a certificate; faults of the files.
    pub fn kmip_self_signed(&self, body: &CommonName) -> Result<CertificateInfo, Fault> {
        let shown = setup::self_signed(&self.kmip_files()?, &body.common_name, now)?;
        Ok(info(shown, false))
    }

    /// `POST /v1/keys/kmip/pair`.
    ///
    /// # Errors
    /// Files that do not belong together or can be read by others; faults of the files.
    pub fn kmip_pair(&self, body: &InstallPair) -> Result<CertificateInfo, Fault> {
        for path in [&body.certificate, &body.key] {
            if !path.is_absolute() {
                let message = format!("{} is relative", path.display());
                return Err(Fault::invalid(message, "write the whole path"));
            }
        }
        let files = self.kmip_files()?;
        let shown = setup::install(&files, &body.certificate, &body.key, now)?;
        Ok(info(shown, false))
    }

    /// `POST /v1/keys/kmip/server`: looks at a server's certificate, and pins it if it is the one that the caller has seen.
    ///
    /// # Errors
    /// A server that is not configured or shows no certificate; another certificate than the one that was seen.
    pub fn kmip_server(&self, body: &TrustServer) -> Result<CertificateInfo, Fault> {
        let files = self.kmip_files()?;
        let server = self.config.provider.kmip.server.iter().find(|server| {
            body.server == server.host || body.server == format!("{}:{}", server.host, server.port)
        });
        let server = server.ok_or_else(|| {
            Fault::refused(
                ErrorCode::NotFound,
                format!("{} is none of the servers in [[provider.kmip.server]]", body.server),
                "see `coffer key provider status`",
            )
        })?;
        let name = server.tls_name.as_deref();
        let shown = setup::look(&server.host, server.port, name, &files, now)?;
        let Some(seen) = &body.sha256 else { return Ok(info(shown, false)) };
        let seen: String = seen.chars().filter(|c| *c != ':' && !c.is_whitespace()).collect();
        if !seen.eq_ignore_ascii_case(&shown.sha256) {
            return Err(Fault::wrong_state(
                format!("{} shows a certificate with the SHA-256 {}", body.server, shown.sha256),
                "compare it with what the server itself tells, and pin the one that it is",
            ));
        }
        setup::pin(&files, &shown)?;
        Ok(info(shown, true))
    }

    fn kmip_files(&self) -> Result<TlsFiles, Fault> {
        let kmip = &self.config.provider.kmip;
        if kmip.is_on() {
            return Ok(kmip.files(&self.config.state_dir));
        }
        Err(Fault::wrong_state(
            "no KMIP provider is set up on this host",
            "add a [[provider.kmip.server]] to the configuration, and restart hostd",
        ))
    }
}

fn info(shown: Shown, pinned: bool) -> CertificateInfo {
    CertificateInfo {
        certificate: shown.pem,
        sha256: shown.sha256,
        names: shown.names,
        days_left: shown.days_left,
        pinned,
    }
}
