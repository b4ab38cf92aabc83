//! The OpenBao provider: its servers, our certificate, whom to trust, and which keys wrap.
//!
//! Owns the TOML shape of `[provider.openbao]` and the way to the provider's settings. Must not open the files. The rules between
//! the settings are in `check`.

use kms_client::bao::{BaoSettings, KeyChoice, PORT};
use kms_client::kmip::tls::TlsFiles;
use kms_client::kmip::{Budgets, ServerSettings};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An OpenBao cluster. Without servers there is none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct OpenBao {
    pub name: String,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub pinned: Option<PathBuf>,
    pub mount: String,
    pub auth_mount: String,
    pub role: Option<String>,
    pub namespace: Option<String>,
    pub key_prefix: String,
    pub transit_key: Option<String>,
    pub timeout_seconds: u64,
    pub check_seconds: u64,
    pub server: Vec<BaoServer>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct BaoServer {
    pub host: String,
    #[serde(default = "port")]
    pub port: u16,
    pub tls_name: Option<String>,
}

fn port() -> u16 {
    PORT
}

impl Default for OpenBao {
    fn default() -> Self {
        Self {
            name: "openbao".into(),
            certificate: None,
            key: None,
            ca: None,
            pinned: None,
            mount: "transit".into(),
            auth_mount: "cert".into(),
            role: None,
            namespace: None,
            key_prefix: "coffer-".into(),
            transit_key: None,
            timeout_seconds: 30,
            check_seconds: 45,
            server: Vec::new(),
        }
    }
}

impl OpenBao {
    /// Whether it is set up.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.server.is_empty()
    }

    /// The files, with those that are not set in the folder `openbao` of `state_dir`.
    #[must_use]
    pub fn files(&self, state_dir: &Path) -> TlsFiles {
        let [certificate, key, ca, pinned] =
            [&self.certificate, &self.key, &self.ca, &self.pinned].map(Option::as_deref);
        super::kmip::tls_files(&state_dir.join("openbao"), certificate, key, ca, pinned)
    }

    /// The settings of the provider. The steps of an operation have their own times; a short time for all of it shortens each.
    #[must_use]
    pub fn settings(&self, state_dir: &Path) -> BaoSettings {
        let operation = Duration::from_secs(self.timeout_seconds);
        let server = |server: &BaoServer| ServerSettings {
            host: server.host.clone(),
            port: server.port,
            tls_name: server.tls_name.clone(),
        };
        BaoSettings {
            name: self.name.clone(),
            servers: self.server.iter().map(server).collect(),
            tls: self.files(state_dir),
            mount: self.mount.clone(),
            auth_mount: self.auth_mount.clone(),
            role: self.role.clone(),
            namespace: self.namespace.clone(),
            keys: match &self.transit_key {
                Some(name) => KeyChoice::Named(name.clone()),
                None => KeyChoice::Each(self.key_prefix.clone()),
            },
            budgets: Budgets::within(operation),
            check_every: Some(Duration::from_secs(self.check_seconds)),
        }
    }
}
