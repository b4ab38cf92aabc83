//! The configuration file: what may be set, its defaults, and what is wrong with it.
//!
//! Owns the TOML shape; must not open anything but the file itself. Unknown keys are errors.

use crate::inventory::Name;
use crate::store::{EtcdSettings, EtcdTls};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The sample, with every key, its default and its meaning.
pub const SAMPLE: &str = include_str!("../config.sample.toml");

/// Where the configuration is when no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/coffer/controld.toml";

/// Bounds of connections.
const CONNECTIONS: std::ops::RangeInclusive<usize> = 4..=10_000;

/// Bounds of the wait in seconds.
const WAIT: std::ops::RangeInclusive<u64> = 1..=300;

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
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct Config {
    pub site: Name,
    pub name: Name,
    pub names: Vec<String>,
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    #[serde(default)]
    pub ca: Option<CaFiles>,
    #[serde(default)]
    pub etcd: Option<Etcd>,
    #[serde(default)]
    pub limits: Limits,
}

/// An authority of one's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct CaFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The store in etcd.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct Etcd {
    pub endpoints: Vec<String>,
    #[serde(default = "prefix")]
    pub prefix: String,
    #[serde(default)]
    pub ca: Option<PathBuf>,
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// Limits, each with its reason in the sample.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct Limits {
    pub connections: usize,
    pub wait_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 256, wait_seconds: 10 }
    }
}

fn listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8470))
}

fn state_dir() -> PathBuf {
    "/var/lib/coffer-controld".into()
}

fn prefix() -> String {
    "/coffer/".into()
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let problem = |key: &str, reason: String, remedy: &str| ConfigError {
            file: file.to_owned(),
            key: key.into(),
            reason,
            remedy: remedy.into(),
        };
        let text = std::fs::read_to_string(file)
            .map_err(|e| problem("the file", e.to_string(), "see `controld sample-config`"))?;
        let config: Self = toml::from_str(&text).map_err(|e| {
            problem("the file", e.message().to_owned(), "see `controld sample-config`")
        })?;
        match config.fault() {
            None => Ok(config),
            Some((key, reason, remedy)) => Err(problem(key, reason, remedy)),
        }
    }

    fn fault(&self) -> Option<(&'static str, String, &'static str)> {
        let ca = self.ca.iter().flat_map(|ca| [&ca.certificate, &ca.key]);
        let etcd = self.etcd.iter().flat_map(|e| [&e.ca, &e.certificate, &e.key]).flatten();
        let mut paths = [&self.state_dir].into_iter().chain(ca).chain(etcd);
        if let Some(path) = paths.find(|path| !path.is_absolute()) {
            return Some((
                "a path",
                format!("{} is relative", path.display()),
                "write the whole path",
            ));
        }
        if self.names.is_empty() {
            let remedy = "name what hosts connect by, for example [\"ctl1.example.org\"]";
            return Some(("names", "there is none".into(), remedy));
        }
        if !CONNECTIONS.contains(&self.limits.connections) {
            let reason = format!("{} is out of bounds", self.limits.connections);
            return Some(("limits.connections", reason, "choose 4 to 10000"));
        }
        if !WAIT.contains(&self.limits.wait_seconds) {
            let reason = format!("{} is out of bounds", self.limits.wait_seconds);
            return Some(("limits.wait_seconds", reason, "choose 1 to 300"));
        }
        let etcd = self.etcd.as_ref()?;
        if etcd.certificate.is_some() != etcd.key.is_some()
            || (etcd.key.is_some() && etcd.ca.is_none())
        {
            let reason = "certificate, key and ca go together".into();
            return Some(("etcd", reason, "set certificate, key and ca, or ca alone, or none"));
        }
        None
    }

    /// Certificate and key of the authority.
    #[must_use]
    pub fn ca_files(&self) -> (PathBuf, PathBuf) {
        match &self.ca {
            Some(files) => (files.certificate.clone(), files.key.clone()),
            None => (self.state_dir.join("ca.pem"), self.state_dir.join("ca.key")),
        }
    }

    /// Settings of etcd, when it is the store.
    #[must_use]
    pub fn etcd_settings(&self) -> Option<EtcdSettings> {
        let etcd = self.etcd.clone()?;
        let identity = etcd.certificate.zip(etcd.key);
        let tls = etcd.ca.map(|ca| EtcdTls { ca, identity });
        Some(EtcdSettings { endpoints: etcd.endpoints, prefix: etcd.prefix, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("controld.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn the_sample_is_valid_and_its_comments_are_the_defaults() {
        let config = read(SAMPLE).unwrap();
        assert_eq!(config.limits.connections, 256);
        assert!(config.etcd.is_none() && config.ca.is_none());
        let all: String = SAMPLE
            .lines()
            .map(|line| {
                let is_key = line.starts_with('#') && !line.starts_with("# ");
                format!("{}\n", if is_key { &line[1..] } else { line })
            })
            .collect();
        let all = read(&all).unwrap();
        assert_eq!((all.listen, &all.state_dir), (config.listen, &config.state_dir));
        assert_eq!(all.limits.wait_seconds, config.limits.wait_seconds);
        let etcd = all.etcd_settings().unwrap();
        assert_eq!((etcd.endpoints.len(), etcd.prefix.as_str()), (3, "/coffer/"));
        assert!(etcd.tls.unwrap().identity.is_some());
    }

    #[test]
    fn faults_name_the_key() {
        let base = "site = \"s\"\nname = \"c\"\nnames = [\"c\"]\n";
        read(base).unwrap();
        for (more, named) in [
            ("listne = 1\n", "listne"),
            ("state_dir = \"x\"\n", "relative"),
            ("[limits]\nconnections = 1\n", "limits.connections"),
            ("[limits]\nwait_seconds = 0\n", "limits.wait_seconds"),
            ("[etcd]\nendpoints = []\nkey = \"/k\"\n", "go together"),
        ] {
            let message = read(&format!("{base}{more}")).unwrap_err();
            assert!(message.contains(named), "{message}");
        }
        assert!(read(&base.replace("[\"c\"]", "[]")).unwrap_err().contains("names"));
        assert!(read(&base.replace("\"s\"", "\"a/b\"")).unwrap_err().contains("no name"));
    }
}
