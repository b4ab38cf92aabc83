//! Verbs on the key servers: health, and the set-up of trust.
//!
//! Owns the way from the API to `kms_client`; never sees a key. The files are those of the configuration. KMIP and OpenBao servers
//! know a host by its certificate, and are trusted, in the same way; a verb names the provider where both are set up.

use crate::config::{Kmip, OpenBao};
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
use std::path::Path;

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
        let request =
            setup::request(&self.tls_files(body.provider.as_deref())?, &body.common_name)?;
        Ok(SigningRequest { request })
    }

    /// `POST /v1/keys/kmip/certificate`.
    ///
    /// # Errors
    /// No request was made, or it is for another key; faults of the files.
    pub fn kmip_import(&self, body: &ImportCertificate) -> Result<CertificateInfo, Fault> {
        let shown =
            setup::import(&self.tls_files(body.provider.as_deref())?, &body.certificate, now)?;
        Ok(info(shown, false))
    }

    /// `POST /v1/keys/kmip/self-signed`.
    ///
    /// # Errors
    /// A name that cannot be in a certificate; faults of the files.
    pub fn kmip_self_signed(&self, body: &CommonName) -> Result<CertificateInfo, Fault> {
        let shown =
            setup::self_signed(&self.tls_files(body.provider.as_deref())?, &body.common_name, now)?;
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
        let files = self.tls_files(body.provider.as_deref())?;
        let shown = setup::install(&files, &body.certificate, &body.key, now)?;
        Ok(info(shown, false))
    }

    /// `POST /v1/keys/kmip/server`: looks at a server's certificate, and pins it if it is the one that the caller has seen.
    ///
    /// # Errors
    /// A server that is not configured or shows no certificate; another certificate than the one that was seen.
    pub fn kmip_server(&self, body: &TrustServer) -> Result<CertificateInfo, Fault> {
        let provider = self.key_servers(body.provider.as_deref())?;
        let server = provider.server(&body.server).ok_or_else(|| {
            Fault::refused(
                ErrorCode::NotFound,
                format!(
                    "{} is none of the servers in [[{}.server]]",
                    body.server,
                    provider.section()
                ),
                "see `coffer key provider status`",
            )
        })?;
        let files = provider.files(&self.config.state_dir);
        let (host, port, name) = server;
        let shown = setup::look(host, port, name, &files, now)?;
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

    fn tls_files(&self, provider: Option<&str>) -> Result<TlsFiles, Fault> {
        Ok(self.key_servers(provider)?.files(&self.config.state_dir))
    }

    /// The provider of this name; without one, the only one that has key servers.
    fn key_servers(&self, name: Option<&str>) -> Result<KeyServers<'_>, Fault> {
        let (kmip, openbao) = (&self.config.provider.kmip, &self.config.provider.openbao);
        let kmip = kmip.is_on().then_some(KeyServers::Kmip(kmip));
        let openbao = openbao.is_on().then_some(KeyServers::OpenBao(openbao));
        let known: Vec<_> = kmip.into_iter().chain(openbao).collect();
        let chosen: Vec<_> =
            known.iter().filter(|one| name.is_none_or(|name| name == one.name())).collect();
        match (chosen.as_slice(), known.as_slice()) {
            ([one], _) => Ok(**one),
            (_, []) => Err(Fault::wrong_state(
                "no provider with key servers is set up on this host",
                "add a [[provider.kmip.server]] or [[provider.openbao.server]] to the configuration, and restart hostd",
            )),
            ([], _) => Err(Fault::refused(
                ErrorCode::NotFound,
                format!("there is no provider {} with key servers", name.unwrap_or_default()),
                "see `coffer key provider status`",
            )),
            _ => Err(Fault::invalid(
                "more than one provider has key servers",
                "name one with --provider",
            )),
        }
    }
}

/// A provider that has key servers.
#[derive(Clone, Copy)]
enum KeyServers<'a> {
    Kmip(&'a Kmip),
    OpenBao(&'a OpenBao),
}

impl<'a> KeyServers<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::Kmip(kmip) => &kmip.name,
            Self::OpenBao(openbao) => &openbao.name,
        }
    }

    /// Its section of the configuration.
    fn section(self) -> &'static str {
        match self {
            Self::Kmip(_) => "provider.kmip",
            Self::OpenBao(_) => "provider.openbao",
        }
    }

    fn files(self, state_dir: &Path) -> TlsFiles {
        match self {
            Self::Kmip(kmip) => kmip.files(state_dir),
            Self::OpenBao(openbao) => openbao.files(state_dir),
        }
    }

    /// Host, port and TLS name of a server that is called `HOST` or `HOST:PORT`.
    fn server(self, called: &str) -> Option<(&'a str, u16, Option<&'a str>)> {
        let all: Vec<_> = match self {
            Self::Kmip(kmip) => kmip
                .server
                .iter()
                .map(|s| (s.host.as_str(), s.port, s.tls_name.as_deref()))
                .collect(),
            Self::OpenBao(openbao) => openbao
                .server
                .iter()
                .map(|s| (s.host.as_str(), s.port, s.tls_name.as_deref()))
                .collect(),
        };
        let is_it = |(host, port, _): &(&str, u16, Option<&str>)| {
            called == *host || called == format!("{host}:{port}")
        };
        all.into_iter().find(is_it)
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
