//! The error body of the control API, its stable codes, and why a VM is locked.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for people and for programs. Sent as the body of every non-2xx answer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// Stable code; programs decide by it.
    pub code: ErrorCode,
    /// Names the thing and the reason, in one sentence.
    pub message: String,
    /// What to do next, in one sentence or one command.
    pub remedy: String,
    /// Set when `code` is `vm-locked`: why, and which key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lock: Option<LockReason>,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// Stable error codes of the control API, named by who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request itself is wrong: a bad name, size or combination.
    InvalidArgument,
    /// No such VM, disk, datastore or key.
    NotFound,
    /// A VM or disk of that name or id is there already.
    AlreadyExists,
    /// The thing is in use; stop its users or force it.
    InUse,
    /// The state does not allow it (not attached, not mounted, not ready).
    WrongState,
    /// The VM is locked; see `lock`.
    VmLocked,
    /// The key provider cannot give or make a key now.
    ProviderUnavailable,
    /// The native provider makes no keys until it has been backed up.
    BackupRequired,
    /// A safe, descriptor, header or payload is damaged or was edited.
    Damaged,
    /// The version or a required feature of a file is not known.
    Unsupported,
    /// The datastore is full.
    NoSpace,
    /// The datastore or a file cannot be read or written.
    Storage,
    /// A limit of the host is in the way (memlock, /dev/fuse, ...).
    HostLimit,
    /// The caller may not do this.
    Denied,
    /// What a control plane said is for another host, for another start of it, or older than what it has said since.
    StalePush,
    /// A vmd did not answer or ended.
    DataPlane,
    /// A fault of Coffer itself.
    Internal,
}

/// Why a VM is locked, and which key would unlock it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockReason {
    /// Stable code of the reason.
    pub code: LockCode,
    /// Why the key cannot be had, as vSphere names it (`KeyStateClusterUnreachable` and so on), where it has a word for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The exact key id, `provider/uid`, where one is concerned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_id: Option<String>,
    /// One sentence for people.
    pub detail: String,
}

/// Reasons of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LockCode {
    /// `coffer vm lock` was said.
    LockedByOperator,
    /// The provider has no key of that id.
    KeyNotFound,
    /// The key comes from a control plane, which has not pushed it since the host started.
    KeyNotPushed,
    /// The provider of the key id is not configured on this host.
    ProviderNotConfigured,
    /// The provider cannot be reached or is not open.
    ProviderUnavailable,
    /// The provider answers, but the fetch failed.
    FetchFailed,
    /// The key under the right id has the wrong bytes.
    WrongKey,
    /// The safe or a descriptor is damaged.
    SafeDamaged,
}
