//! The KMIP provider: its servers, our certificate, and whom to trust.
//!
//! Owns the TOML shape of `[provider.kmip]` and the way to the provider's settings. Must not open the files. The rules between
//! the settings are in `check`.

use kms_client::kmip::credential::Account;
use kms_client::kmip::node::PORT;
use kms_client::kmip::tls::{TlsFiles, Trust};
use kms_client::kmip::values::Version;
use kms_client::kmip::{Budgets, KmipSettings, ServerSettings};
use serde::{Deserialize, Deserializer, de::Error};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A KMIP cluster. Without servers there is none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct Kmip {
    pub name: String,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub password_credential: Option<String>,
    pub pinned: Option<PathBuf>,
    pub version: KmipVersion,
    pub timeout_seconds: u64,
    pub operation_policy: Option<String>,
    pub copies: usize,
    pub check_seconds: u64,
    pub allow_compromised: bool,
    pub server: Vec<KmipServer>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct KmipServer {
    pub host: String,
    #[serde(default = "port")]
    pub port: u16,
    pub tls_name: Option<String>,
}

/// A version, written as `"1.1"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KmipVersion(pub Version);

fn port() -> u16 {
    PORT
}

impl Default for Kmip {
    fn default() -> Self {
        Self {
            name: "kmip".into(),
            certificate: None,
            key: None,
            ca: None,
            user: None,
            password_file: None,
            password_credential: None,
            pinned: None,
            version: KmipVersion(Version::V1_1),
            timeout_seconds: 15,
            operation_policy: None,
            copies: 2,
            check_seconds: 45,
            allow_compromised: true,
            server: Vec::new(),
        }
    }
}

impl Kmip {
    /// Whether it is set up.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.server.is_empty()
    }

    /// The files, with those that are not set in the folder `kmip` of `state_dir`.
    #[must_use]
    pub fn files(&self, state_dir: &Path) -> TlsFiles {
        let [certificate, key, ca, pinned] =
            [&self.certificate, &self.key, &self.ca, &self.pinned].map(Option::as_deref);
        tls_files(&state_dir.join("kmip"), certificate, key, ca, pinned)
    }

    /// User name, and the file of the password; a systemd credential lies in the folder `credentials`.
    fn account(&self, credentials: &Path) -> Option<Account> {
        let user = self.user.clone()?;
        if let Some(password) = self.password_file.clone() {
            return Some(Account { user, password, sheltered: false });
        }
        // systemd sets owner and mode of credentials; the folder itself is closed to others.
        let password = credentials.join(self.password_credential.as_ref()?);
        Some(Account { user, password, sheltered: true })
    }

    /// The settings of the provider. The steps of an operation have their own times; a short time for all of it shortens each.
    #[must_use]
    pub fn settings(&self, state_dir: &Path, credentials: &Path) -> KmipSettings {
        let operation = Duration::from_secs(self.timeout_seconds);
        let server = |server: &KmipServer| ServerSettings {
            host: server.host.clone(),
            port: server.port,
            tls_name: server.tls_name.clone(),
        };
        KmipSettings {
            name: self.name.clone(),
            servers: self.server.iter().map(server).collect(),
            tls: self.files(state_dir),
            account: self.account(credentials),
            version: self.version.0,
            budgets: Budgets::within(operation),
            allow_compromised: self.allow_compromised,
            operation_policy: self.operation_policy.clone(),
            copies: self.copies,
            check_every: Some(Duration::from_secs(self.check_seconds)),
        }
    }
}

/// The files of a provider, with those that are not set in `folder`.
pub(super) fn tls_files(
    folder: &Path,
    certificate: Option<&Path>,
    key: Option<&Path>,
    ca: Option<&Path>,
    pinned: Option<&Path>,
) -> TlsFiles {
    let path =
        |set: Option<&Path>, name: &str| set.map_or_else(|| folder.join(name), Path::to_path_buf);
    TlsFiles {
        certificate: path(certificate, "client.pem"),
        key: path(key, "client.key"),
        trust: match ca {
            Some(ca) => Trust::Authority(ca.to_owned()),
            None => Trust::Pinned(path(pinned, "pinned.pem")),
        },
    }
}

impl<'de> Deserialize<'de> for KmipVersion {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        String::deserialize(source)?.parse().map(Self).map_err(D::Error::custom)
    }
}
