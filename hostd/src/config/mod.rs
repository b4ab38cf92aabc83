//! The configuration file: what may be set, its defaults, and what is wrong with it.
//!
//! Owns the TOML shape and all defaults; must not open anything but the file itself and `/etc/group`. The text
//! is parsed strictly (unknown keys are errors), then `check` turns every contradiction into a
//! [`ConfigError`] that names file, key, reason and remedy.

mod check;
mod control;
mod kmip;
mod openbao;
mod tls;
mod values;

pub use control::Control;
pub use kmip::{Kmip, KmipServer, KmipVersion};
pub use openbao::{BaoServer, OpenBao};
pub use tls::{DiskPattern, PortRange, Tls, TlsClient};
pub use values::{FileMode, Group, Owner, OwnerError};

use kms_client::native::Keeper;
use kms_client::native::tpm::Address;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The sample, with every key, its default and its meaning.
pub const SAMPLE: &str = include_str!("../../config.sample.toml");

/// Where the configuration is when no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/coffer/hostd.toml";

/// Largest configuration file in bytes: a thousand datastores fit in it.
const MAX_FILE: u64 = 256 * 1024;

/// What is wrong with a configuration.
#[derive(Debug, Error)]
#[error("{}: {key}: {reason}; {remedy}", file.display())]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The key, or where in the file.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// The whole configuration. Field docs are in the sample, where operators read them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct Config {
    pub run_dir: PathBuf,
    pub state_dir: PathBuf,
    pub vmd: Option<PathBuf>,
    pub on_stop: OnStop,
    pub socket: Socket,
    pub datastore: Vec<DatastoreConfig>,
    pub provider: Providers,
    pub tls: Tls,
    pub control: Control,
    pub limits: Limits,
    pub danger_zone: DangerZone,
}

/// What a stop of the daemon does to running VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnStop {
    /// They go on; the next hostd adopts them.
    Leave,
    /// They are stopped: exports drained, homes unmounted, keys wiped.
    Drain,
}

/// Who may reach the sockets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct Socket {
    pub mode: FileMode,
    pub group: Option<Group>,
    pub disk_mode: FileMode,
    pub disk_group: Option<Group>,
}

/// One datastore.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct DatastoreConfig {
    pub name: String,
    pub path: PathBuf,
}

/// The key providers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct Providers {
    pub default: Option<String>,
    pub native: Native,
    pub kmip: Kmip,
    pub openbao: OpenBao,
}

/// The built-in provider.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct Native {
    pub file: Option<PathBuf>,
    pub passphrase_file: Option<PathBuf>,
    pub credential: Option<String>,
    pub prompt: bool,
    pub tpm: Address,
}

impl Native {
    /// Whether the passphrase has a source.
    #[must_use]
    pub fn has_passphrase(&self) -> bool {
        self.passphrase_file.is_some() || self.credential.is_some() || self.prompt
    }
}

/// Limits, each with its reason in the sample.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct Limits {
    pub key_memory_kib: usize,
    pub key_idle_seconds: u64,
    pub vms: usize,
    pub disk_connections: u32,
    pub tls_connections: u32,
    pub control_connections: usize,
    pub polling_threads: Option<u32>,
}

/// Insecure options: each needs `enabled` as well, and is reported as a warning of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct DangerZone {
    pub enabled: bool,
    pub allow_unconfined_vmd: bool,
    pub allow_readable_passphrase: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            run_dir: "/run/coffer".into(),
            state_dir: "/var/lib/coffer".into(),
            vmd: None,
            on_stop: OnStop::Leave,
            socket: Socket::default(),
            datastore: Vec::new(),
            provider: Providers::default(),
            tls: Tls::default(),
            control: Control::default(),
            limits: Limits::default(),
            danger_zone: DangerZone::default(),
        }
    }
}

impl Default for Socket {
    fn default() -> Self {
        Self { mode: FileMode(0o660), group: None, disk_mode: FileMode(0o660), disk_group: None }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_memory_kib: 1024,
            key_idle_seconds: 300,
            vms: 10_000,
            disk_connections: 16,
            tls_connections: 64,
            control_connections: 64,
            polling_threads: None,
        }
    }
}

impl Config {
    /// Reads, parses and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |e: std::io::Error| ConfigError {
            file: path.to_owned(),
            key: "file".into(),
            reason: format!("cannot be read: {e}"),
            remedy: "make one with `hostd sample-config`, or name another with --config".into(),
        };
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > MAX_FILE {
            return Err(ConfigError {
                file: path.to_owned(),
                key: "file".into(),
                reason: format!("has {length} bytes, the limit is {MAX_FILE}"),
                remedy: "check that it is the right file".into(),
            });
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text, path)
    }

    /// Parses and checks `text`, which came from `file`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| ConfigError {
            file: file.to_owned(),
            key: place(text, &e),
            reason: e.message().trim().replace('\n', " "),
            remedy: "see `hostd sample-config` for what can be set".into(),
        })?;
        check::check(&config, file)?;
        Ok(config)
    }

    /// Control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("hostd.sock")
    }

    /// Folder of the folders of running VMs.
    #[must_use]
    pub fn vm_runs(&self) -> PathBuf {
        self.run_dir.join("vm")
    }

    /// Folder of the locks of VMs whose own folders have none.
    #[must_use]
    pub fn locks(&self) -> PathBuf {
        self.run_dir.join("locks")
    }

    /// Key file of the native provider.
    #[must_use]
    pub fn native_file(&self) -> PathBuf {
        self.provider.native.file.clone().unwrap_or_else(|| self.state_dir.join("native.keys"))
    }

    /// The TPM that the key file may be sealed to.
    #[must_use]
    pub fn keeper(&self) -> Keeper {
        Keeper { address: self.provider.native.tpm.clone(), wait: Keeper::WAIT }
    }

    /// Name of the provider that new keys come from.
    #[must_use]
    pub fn default_provider(&self) -> &str {
        let (kmip, openbao) = (&self.provider.kmip, &self.provider.openbao);
        let unsaid = match (kmip.is_on(), openbao.is_on()) {
            (true, _) => &kmip.name,
            (false, true) => &openbao.name,
            (false, false) => crate::keys::NATIVE,
        };
        self.provider.default.as_deref().unwrap_or(unsaid)
    }

    /// One warning for each insecure option in force.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let zone = &self.danger_zone;
        let named = [
            (zone.allow_unconfined_vmd, "allow_unconfined_vmd: a vmd may run without confinement"),
            (
                zone.allow_readable_passphrase,
                "allow_readable_passphrase: other users may read the passphrase file",
            ),
        ];
        let on = named.iter().filter(|(on, _)| zone.enabled && *on);
        on.map(|(_, text)| format!("danger zone: {text}")).collect()
    }
}

/// Line and, where it can be told, the key of a parse error.
fn place(text: &str, error: &toml::de::Error) -> String {
    let Some(span) = error.span() else { return "file".into() };
    let before = text.get(..span.start).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let content = text.lines().nth(line - 1).unwrap_or("").trim();
    let key = content.split('=').next().unwrap_or("").trim();
    if key.is_empty() { format!("line {line}") } else { format!("line {line}, {key}") }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
