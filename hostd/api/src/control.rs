//! What a control plane and a host say to each other (routes under `/v1/control`, on the host's TLS port only).
//!
//! Owns the shapes. A key crosses this API only sealed to the key pair that the host made at its start. Flow: the control
//! plane asks who the host is, seals the keys that it wants, pushes them, and looks which VMs are still locked.

use crate::error::LockReason;
use crate::types::VmState;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Most keys of one push: as many VMs as a large host runs. More are pushed one batch after the other.
pub const MAX_PUSHED_AT_ONCE: usize = 1000;

/// `GET /v1/control/identity`: who this host is, to whom keys are sealed, and which it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostIdentity {
    /// Identity of the host; stays.
    pub host_id: Uuid,
    /// Identity of this start of hostd; another one after each.
    pub boot_id: Uuid,
    /// Cluster and name of the host, from its certificate.
    pub cluster: String,
    /// Name of the host.
    pub name: String,
    /// Public key that keys are sealed to (RFC 9180, DHKEM(X25519, HKDF-SHA256)), 64 hex digits; another one after each
    /// start.
    pub public_key: String,
    /// Newest state of the key list that the control plane has told this start of the host; 0 before the first.
    pub generation: u64,
    /// Version of hostd.
    pub version: String,
    /// Whether keys can be used here.
    pub crypto_state: CryptoState,
    /// Ids of the keys that were pushed and are here.
    pub has: Vec<String>,
    /// Ids of keys that VMs of this host name and that it cannot get by itself.
    pub wants: Vec<String>,
}

/// Whether a host can use keys, in the words of vSphere (`HostCryptoState`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CryptoState {
    /// No key can come here: no provider is open, and no control plane may push.
    #[default]
    Incapable,
    /// A control plane may push keys, and none has since this start.
    Prepared,
    /// Keys can be used: a provider is open, or a control plane has pushed since this start.
    Safe,
}

/// Where and for which cluster this host takes keys from a control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ControlInfo {
    /// Address and port that it listens on.
    pub listen: String,
    /// Name of the cluster, from the certificate of this host.
    pub cluster: String,
    /// Name of this host in it.
    pub name: String,
    /// Newest state of the key list that the control plane has told since this start; 0 before the first.
    pub generation: u64,
    /// Number of keys that were pushed and are here.
    pub keys: u32,
}

/// `POST /v1/control/keys`: keys for one start of one host.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushKeys {
    /// The host that they are sealed to.
    pub host_id: Uuid,
    /// The start of it that they are sealed to.
    pub boot_id: Uuid,
    /// State of the key list that they are from; it never falls.
    pub generation: u64,
    /// The keys, at most [`MAX_PUSHED_AT_ONCE`].
    pub keys: Vec<SealedKey>,
}

/// One key, sealed for one host, start, id and generation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SealedKey {
    /// `provider/uid`.
    pub id: String,
    /// The encapsulated key and the ciphertext (RFC 9180), 160 hex digits.
    pub sealed: String,
}

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushAnswer {
    /// The generation that counts now.
    pub generation: u64,
    /// One entry a key, in the order of the request.
    pub keys: Vec<PushedKey>,
}

/// What became of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushedKey {
    /// The id as it was sent.
    pub id: String,
    /// What became of it.
    pub outcome: PushOutcome,
    /// Why it was not taken, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// What became of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PushOutcome {
    /// It is here now.
    Taken,
    /// It was here already.
    Present,
    /// The id is none.
    BadId,
    /// It does not open: it was sealed to another host, another start, for another id or generation, or was changed.
    SealedElsewhere,
    /// Another key is here under this id; evict that first.
    OtherKey,
    /// This host has a provider of this name, and fetches its keys itself.
    OwnProvider,
    /// An operator of this host locked the VMs that use it.
    LockedByOperator,
    /// The host has no room for it.
    NoRoom,
}

impl PushOutcome {
    /// Whether the key is here now.
    #[must_use]
    pub fn is_here(self) -> bool {
        matches!(self, Self::Taken | Self::Present)
    }
}

/// Options of `DELETE /v1/control/keys/{provider}/{uid}`.
#[derive(Debug, Clone, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EvictKey {
    /// State of the key list without the key: newer than any that had it.
    pub generation: u64,
    /// Do it although VMs that run use the key; they run on with their own keys until they stop.
    #[serde(default)]
    pub force: bool,
}

/// What became of an eviction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvictAnswer {
    /// The generation that counts now.
    pub generation: u64,
    /// Whether the key was here.
    pub was_here: bool,
    /// VMs that run and used it.
    pub used_by: Vec<String>,
}

/// `GET /v1/control/vms`: one VM and its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmKeys {
    /// Name.
    pub name: String,
    /// Identity in the safe.
    pub id: Uuid,
    /// Locked, unlocked, or running.
    pub state: VmState,
    /// Ids of all keys that its safe and disks name.
    pub key_ids: Vec<String>,
    /// Why it is locked, and which key would unlock it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lock: Option<LockReason>,
    /// Who must act to unlock it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub who: Option<Actor>,
}

/// Who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// The control plane: push the key.
    ControlPlane,
    /// Who administers this host: unlock the VM, or configure or open a provider.
    HostOperator,
    /// Who administers the key provider: bring it back, or restore the key.
    KeyAdministrator,
    /// Who administers the storage: restore files of the VM.
    StorageAdministrator,
}
