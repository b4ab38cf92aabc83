//! Requests and answers of the control API (HTTP/1.1 + JSON on hostd's Unix socket, routes under `/v1`).

mod check;
mod disk;
mod home;
mod rotate;
mod tls;

pub use crate::cache::CacheMode;
pub use check::{CheckReport, CheckVm, Finding, FindingGrade, FindingRepair};
pub use disk::ResizeDisk;
pub use home::{HomeMode, HomeMount, HomeNames, HomeState, MountVm, UmountVm};
pub use rotate::{RotateKeys, RotateReport, RotatedVm};
pub use tls::{SetTls, TlsInfo};

use crate::control::{ControlInfo, CryptoState};
use crate::error::LockReason;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use utoipa::ToSchema;
use uuid::Uuid;

/// `GET /v1/host`: what this host is, and whether it is safe.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HostStatus {
    /// Version of hostd.
    pub version: String,
    /// Process id of hostd.
    pub pid: u32,
    /// Seconds since hostd started.
    pub uptime_seconds: u64,
    /// `secret-memory` (`memfd_secret`) or `locked-memory` (mlock).
    pub key_memory: String,
    /// Bytes of the key arena in use, and in all.
    pub key_memory_used: u64,
    /// Capacity of the key arena in bytes.
    pub key_memory_capacity: u64,
    /// XTS engine in use, `aws-lc` or `portable`.
    pub engine: String,
    /// Whether keys can be used here.
    #[serde(default)]
    pub crypto_state: CryptoState,
    /// The control plane that may push keys here; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub control: Option<ControlInfo>,
    /// Confinement that a vmd gets here, for example `["landlock", "seccomp", "capabilities"]`.
    pub confinement: Vec<String>,
    /// Warnings that an operator should act on: danger zone in use, demo mode, backup missing.
    pub warnings: Vec<String>,
    /// The datastores of the configuration.
    pub datastores: Vec<DatastoreInfo>,
    /// Number of known VMs.
    pub vms: u32,
    /// Number of running vmd processes.
    pub running: u32,
}

/// One datastore.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DatastoreInfo {
    /// Name from the configuration.
    pub name: String,
    /// Its folder.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Usable, or the reason why not.
    pub state: DatastoreState,
    /// Bytes free, where known.
    pub free_bytes: Option<u64>,
    /// Folders that look like a VM but could not be registered, with the reason.
    pub problems: Vec<String>,
}

/// Whether a datastore can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reason")]
pub enum DatastoreState {
    /// Readable and writable.
    Ready,
    /// Readable only.
    ReadOnly,
    /// Missing, not a folder, or held by another hostd; the text says which.
    Unavailable(String),
}

/// `POST /v1/vms`: make a VM.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    /// 1 to 64 characters of `A-Z a-z 0-9 . _ -`, not starting with `.` or `-`.
    pub name: String,
    /// Name of a datastore; the first one when absent.
    #[serde(default)]
    pub datastore: Option<String>,
    /// How names in the home are stored, for as long as there is the VM.
    #[serde(default, skip_serializing_if = "HomeNames::is_default")]
    pub names: HomeNames,
    /// Key to wrap by, `provider/uid`: one of a provider of this host, or one that was pushed. A new one of the default
    /// provider when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// `POST /v1/vms/register`: take a VM folder of a datastore into the inventory.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterVm {
    /// Folder of the VM, inside one of the datastores.
    #[schema(value_type = String)]
    pub path: PathBuf,
}

/// A VM as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VmInfo {
    /// Name.
    pub name: String,
    /// Identity in the safe.
    pub id: Uuid,
    /// Name of its datastore.
    pub datastore: String,
    /// Its folder.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Locked, unlocked, or running.
    pub state: VmState,
    /// Why it is locked, when it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lock: Option<LockReason>,
    /// Key ids that wrap the home key.
    pub key_ids: Vec<String>,
    /// How names in the home are stored; absent while the safe cannot be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub names: Option<HomeNames>,
    /// Where the decrypted home is mounted, when it is.
    #[schema(value_type = Option<String>)]
    pub home: Option<PathBuf>,
    /// How the home is mounted, when it is, or while programs still use an earlier mount.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub home_mount: Option<HomeMount>,
    /// Why the home was stopped, when that was not asked for here; gone with the next mount.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub home_problem: Option<String>,
    /// Process id of its vmd, when it runs.
    pub vmd_pid: Option<u32>,
    /// How often its vmd had to be started again since hostd started.
    pub vmd_restarts: u32,
    /// Its network port, when it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tls: Option<TlsInfo>,
    /// Its disks.
    pub disks: Vec<DiskInfo>,
}

/// State of a VM on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// The keys may not or cannot be used; see the reason.
    Locked,
    /// The keys can be used; nothing is served now.
    Unlocked,
    /// A vmd serves disks or the home.
    Running,
    /// Its vmd ended again and again and is not started any more; detach and unmount, then try again.
    Failed,
}

/// `POST /v1/vms/{vm}/disks`: make a disk.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDisk {
    /// Same rules as a VM name.
    pub name: String,
    /// Size in bytes; padded up to a multiple of 512.
    pub size: u64,
    /// Data unit in bytes, 4096 or 512; chosen by the size when absent.
    #[serde(default)]
    pub unit: Option<u32>,
    /// The disk stays in state `importing`, and only an attach for import is allowed, until it is said to be ready.
    #[serde(default)]
    pub importing: bool,
}

/// `POST /v1/vms/{vm}/disks/{disk}/attach`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachDisk {
    /// Serve it without writes.
    #[serde(default)]
    pub read_only: bool,
    /// Attach a disk that is being imported.
    #[serde(default)]
    pub importing: bool,
    /// Who alone may connect, besides root: `USER`, or `USER:GROUP` for the members of a group as well. Names of
    /// `/etc/passwd` and `/etc/group`, or numbers. Absent: as `[socket]` in the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What the page cache of the host is used for.
    #[serde(default, skip_serializing_if = "CacheMode::is_default")]
    pub cache: CacheMode,
}

/// Body of verbs that can be forced: lock, detach. Options of `DELETE /v1/vms/{vm}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Force {
    /// Do it although it is in use.
    #[serde(default)]
    pub force: bool,
}

/// A disk as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DiskInfo {
    /// Name.
    pub name: String,
    /// Identity in the descriptor.
    pub id: Uuid,
    /// Size in bytes as the guest sees it.
    pub size: u64,
    /// Bytes that the payload occupies on the datastore.
    pub allocated: u64,
    /// Data unit in bytes.
    pub unit: u32,
    /// Key ids that wrap the disk key.
    pub key_ids: Vec<String>,
    /// State.
    pub state: DiskState,
    /// What is wrong, when the state is `damaged`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
    /// How to reach it, when it is attached.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attachment: Option<Attachment>,
}

/// State of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// Not served.
    Detached,
    /// Served by the VM's vmd.
    Attached,
    /// An import has not finished.
    Importing,
    /// Descriptor or payload is missing or damaged.
    Damaged,
}

/// How to reach an attached disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// Unix socket of the NBD server.
    #[schema(value_type = String)]
    pub socket: PathBuf,
    /// `nbd+unix:///NAME?socket=PATH`.
    pub uri: String,
    /// No writes allowed.
    pub read_only: bool,
    /// What the page cache of the host is used for.
    #[serde(default)]
    pub cache: CacheMode,
    /// Clients connected now.
    pub clients: u32,
}

/// `GET /v1/keys`: providers and keys, never key bytes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyStatus {
    /// The providers.
    pub providers: Vec<ProviderInfo>,
    /// Every key that a provider knows or a VM uses.
    pub keys: Vec<KeyInfo>,
}

/// One key provider.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProviderInfo {
    /// Name, the part of a key id before the slash.
    pub name: String,
    /// `native`, `kmip` or `openbao`.
    pub kind: String,
    /// New keys come from here.
    pub default: bool,
    /// Can give keys now.
    pub available: bool,
    /// When it was last backed up, seconds since 1970; absent when never.
    pub backed_up_at: Option<u64>,
    /// Demo mode: makes keys without a backup.
    pub demo: bool,
    /// One sentence on its health.
    pub detail: String,
    /// Its servers, best first; none when it has no servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<crate::kms::ServerInfo>,
    /// Whole days until the certificate of this host for its servers runs out; negative when it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_days: Option<i64>,
    /// What an operator should act on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// Keys that its servers do not agree on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<crate::kms::KeyDifferenceInfo>,
}

/// One key-encrypting key, by id.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyInfo {
    /// `provider/uid`.
    pub id: String,
    /// When it was made, seconds since 1970, where known.
    pub created_at: Option<u64>,
    /// State in the keyring of this host.
    pub keyring: KeyringState,
    /// It was pushed by a control plane, and is here until that evicts it or hostd ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pushed: bool,
    /// What it wraps, as `VM` for a home and `VM/DISK` for a disk.
    pub used_by: Vec<String>,
}

/// State of a key in the keyring of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyringState {
    /// Not here.
    Absent,
    /// Being fetched.
    Fetching,
    /// Here.
    Present,
    /// Here, and to be dropped at a set time.
    Expiring,
    /// Dropped on request; not fetched again until a VM that needs it is unlocked.
    Evicted,
    /// In use here, but kept by its provider, which is asked each time.
    Remote,
}

/// `GET /v1/keys/backup`: the sealed key file, to be written away by the caller.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyBackup {
    /// Content of the backup file (text; sealed by the provider's passphrase).
    pub content: String,
    /// SHA-256 of `content` in hex; sent back to confirm that it was stored.
    pub sha256: String,
}

/// `POST /v1/keys/backup/confirm`: the backup was stored.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmBackup {
    /// SHA-256 of what was stored, in hex.
    pub sha256: String,
}
