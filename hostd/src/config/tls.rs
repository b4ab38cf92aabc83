//! The network ports of VMs: where they are, with which certificate, and for whom.
//!
//! Owns the TOML shape of `[tls]` and what one VM's part of it is. Must not open the files. The rules between the
//! settings are in `check`.

use cryptfs::name::Name;
use serde::{Deserialize, Deserializer, de::Error};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Network ports of VMs. Without the three files there are none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct Tls {
    pub listen: IpAddr,
    pub ports: PortRange,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
    pub client: Vec<TlsClient>,
}

/// A client, and what it may open.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.sample.toml documents every key")]
pub struct TlsClient {
    pub name: String,
    pub disks: Vec<DiskPattern>,
}

/// `VM/DISK`, each a name or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPattern {
    /// Name of the VM; every VM when absent.
    pub vm: Option<Name>,
    /// Name of the disk; every disk when absent.
    pub disk: Option<Name>,
}

/// Ports, written as `"10810-10899"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl Default for Tls {
    fn default() -> Self {
        Self {
            listen: Ipv4Addr::UNSPECIFIED.into(),
            ports: PortRange(10810..=10899),
            certificate: None,
            key: None,
            client_ca: None,
            client: Vec::new(),
        }
    }
}

impl Tls {
    /// Certificate chain, private key and client authorities, when all three are set.
    #[must_use]
    pub fn files(&self) -> Option<[&Path; 3]> {
        Some([self.certificate.as_deref()?, self.key.as_deref()?, self.client_ca.as_deref()?])
    }

    /// Who may open which disks of a VM; `*` stands for all. Clients without any are left out.
    #[must_use]
    pub fn clients_of(&self, vm: &Name) -> Vec<hostd_api::link::TlsClient> {
        let of = |client: &TlsClient| {
            let here = client.disks.iter().filter(|p| p.vm.as_ref().is_none_or(|name| name == vm));
            let disk = |p: &DiskPattern| p.disk.as_ref().map_or("*".into(), ToString::to_string);
            hostd_api::link::TlsClient {
                name: client.name.clone(),
                disks: here.map(disk).collect(),
            }
        };
        self.client.iter().map(of).filter(|client| !client.disks.is_empty()).collect()
    }
}

impl<'de> Deserialize<'de> for DiskPattern {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = String::deserialize(source)?;
        let part = |part: &str| match part {
            "*" => Ok(None),
            name => name.parse().map(Some),
        };
        let (vm, disk) = text.split_once('/').ok_or_else(|| {
            D::Error::custom(format!("{text:?} names no disk; write VM/DISK, each a name or *"))
        })?;
        let bad = |e| D::Error::custom(format!("{text:?}: {e}"));
        Ok(Self { vm: part(vm).map_err(bad)?, disk: part(disk).map_err(bad)? })
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = String::deserialize(source)?;
        let range = text.split_once('-').and_then(|(first, last)| {
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first > 0 && first <= last).then_some(first..=last)
        });
        range.map(Self).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is no range of ports; write it as \"10810-10899\""))
        })
    }
}
