//! Where a control plane may push keys to.
//!
//! Owns the TOML shape of `[control]`. Must not open the files. The rules between the settings are in `check`.

use cluster::TlsFiles;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A port for the control plane. Without `listen` there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct Control {
    pub listen: Option<SocketAddr>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub ca: Option<PathBuf>,
}

impl Control {
    /// Whether keys may be pushed.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.listen.is_some()
    }

    /// Where to listen, and with which files, when all is set.
    #[must_use]
    pub fn port(&self) -> Option<(SocketAddr, TlsFiles)> {
        let files = TlsFiles {
            certificate: self.certificate.clone()?,
            key: self.key.clone()?,
            ca: self.ca.clone()?,
        };
        Some((self.listen?, files))
    }
}
