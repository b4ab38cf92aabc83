//! Verbs on keys: status and backup. Rotation is in `vm`, as it changes files of VMs.
//!
//! Owns the way from providers and keyring to what the API shows; never sees a key.

use crate::fault::Fault;
use crate::host::Host;
use crypto::KeyId;
use hostd_api::error::ErrorCode;
use hostd_api::kms::{KeyDifferenceInfo, ServerInfo, ServerSaid};
use hostd_api::types::{ConfirmBackup, KeyBackup, KeyInfo, KeyStatus, ProviderInfo, VmInfo};
use kms_client::native::NativeProvider;
use kms_client::{Health, KeyDifference, KeyProvider, KeyState, Said, ServerStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the built-in provider, the part of its key ids before the slash.
pub const NATIVE: &str = "native";

impl Host {
    /// `GET /v1/keys`.
    ///
    /// # Errors
    /// Faults of a provider whose keys cannot be listed.
    pub fn key_status(self: &Arc<Self>) -> Result<KeyStatus, Fault> {
        let providers = self.keyring.providers().iter().enumerate();
        let mut infos: Vec<_> = providers.map(|(i, p)| provider_info(p.as_ref(), i == 0)).collect();
        let default = infos.is_empty();
        infos.extend(self.keyring.closed().iter().map(|closed| ProviderInfo {
            name: closed.name.clone(),
            kind: closed.name.clone(),
            default,
            available: false,
            backed_up_at: None,
            demo: false,
            detail: closed.reason.clone(),
            servers: Vec::new(),
            certificate_days: None,
            alarms: Vec::new(),
            differences: Vec::new(),
        }));
        Ok(KeyStatus { providers: infos, keys: self.key_infos()? })
    }

    /// `GET /v1/keys/backup`.
    ///
    /// # Errors
    /// `provider-unavailable` when the native provider is not open.
    pub fn key_backup(&self) -> Result<KeyBackup, Fault> {
        let content = self.native()?.backup();
        let sha256 = crypto::sha256_hex(content.as_bytes());
        Ok(KeyBackup { content, sha256 })
    }

    /// `POST /v1/keys/backup/confirm`.
    ///
    /// # Errors
    /// `provider-unavailable`; `wrong-state` when it is not the digest of the key file as it is.
    pub fn confirm_backup(self: &Arc<Self>, request: &ConfirmBackup) -> Result<KeyStatus, Fault> {
        let digest = request.sha256.trim();
        if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Fault::invalid(
                "sha256 is not the 64 hex digits of a SHA-256",
                "send back what GET /v1/keys/backup gave",
            ));
        }
        self.native()?.confirm_backup(digest, now())?;
        self.key_status()
    }

    /// Tells the providers which keys VMs are encrypted by, so that their states are looked at.
    pub(crate) fn watch_keys(&self) {
        let keys = self.inventory.all().iter().flat_map(|vm| vm.keys()).collect();
        self.keyring.providers().iter().for_each(|provider| provider.watch(&keys));
    }

    /// Puts alarms of providers into the log, each when it comes up.
    pub(crate) fn tell_alarms(&self) {
        let alarms = self.keyring.providers().iter().flat_map(|provider| {
            let sentence = |alarm| format!("key provider {}: {alarm}", provider.name());
            provider.status().alarms.into_iter().map(sentence)
        });
        let alarms: BTreeSet<String> = alarms.collect();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        alarms.difference(&told).for_each(|alarm| tracing::warn!("{alarm}"));
        *told = alarms;
    }

    pub(crate) fn native(&self) -> Result<&Arc<NativeProvider>, Fault> {
        self.native.as_ref().ok_or_else(|| {
            Fault::refused(
                ErrorCode::ProviderUnavailable,
                "the native key provider is not open",
                "see `coffer key status`",
            )
        })
    }

    /// Every key that a provider lists, a control plane pushed or a VM names.
    fn key_infos(self: &Arc<Self>) -> Result<Vec<KeyInfo>, Fault> {
        let mut keys: BTreeMap<KeyId, (Option<u64>, Vec<String>)> = BTreeMap::new();
        for provider in self.keyring.providers() {
            for record in provider.keys()? {
                keys.insert(record.id, (record.created_at, Vec::new()));
            }
        }
        for key in self.keyring.pushed_ids() {
            keys.entry(key).or_default();
        }
        for vm in self.list_vms() {
            for (key, used) in uses(&vm) {
                keys.entry(key).or_default().1.push(used);
            }
        }
        let info = |(id, (created_at, used_by)): (KeyId, (Option<u64>, Vec<String>))| KeyInfo {
            id: id.to_string(),
            created_at,
            keyring: self.keyring.state(&id),
            pushed: self.keyring.is_pushed(&id),
            used_by,
        };
        Ok(keys.into_iter().map(info).collect())
    }
}

/// The keys of a VM with what each wraps: `VM`, `VM/DISK`.
fn uses(vm: &VmInfo) -> Vec<(KeyId, String)> {
    let home = vm.key_ids.iter().map(|key| (key, vm.name.clone()));
    let disks = vm.disks.iter().flat_map(|disk| {
        disk.key_ids.iter().map(|key| (key, format!("{}/{}", vm.name, disk.name)))
    });
    home.chain(disks).filter_map(|(key, used)| Some((key.parse().ok()?, used))).collect()
}

pub(crate) fn provider_info(provider: &dyn KeyProvider, default: bool) -> ProviderInfo {
    let status = provider.status();
    ProviderInfo {
        name: provider.name().to_owned(),
        kind: status.kind.to_owned(),
        default,
        available: status.health != Health::Unavailable,
        backed_up_at: status.backed_up_at,
        demo: status.demo,
        detail: status.detail,
        servers: status.servers.into_iter().map(server_info).collect(),
        certificate_days: status.certificate_days,
        alarms: status.alarms,
        differences: status.differences.into_iter().map(difference_info).collect(),
    }
}

pub(crate) fn said_info(said: Said) -> ServerSaid {
    ServerSaid { server: said.server, state: said.state }
}

fn difference_info(difference: KeyDifference) -> KeyDifferenceInfo {
    KeyDifferenceInfo {
        key: difference.key.to_string(),
        servers: difference.said.into_iter().map(said_info).collect(),
        may_wrap: difference.counts == KeyState::Active,
        reason: difference.reason.to_owned(),
        since: difference.since,
        may_be_lag: difference.may_be_lag,
        detail: difference.detail,
    }
}

fn server_info(server: ServerStatus) -> ServerInfo {
    ServerInfo {
        address: server.address,
        up: server.up,
        trusted: server.trusted,
        trusts_us: server.trusts_us,
        certificate_days: server.certificate_days,
        latency_ms: server.latency_ms,
        key_fetched: server.key_fetched,
        read_only: server.read_only,
        reason: server.reason.map(ToOwned::to_owned),
        detail: server.detail,
        checked_at: server.checked_at,
    }
}

/// Seconds since 1970; the one place of this daemon that reads the wall clock.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
