//! Request and answer of a rotation of keys.
//!
//! Owns their shapes, and knows nothing of files. Flow: a [`RotateKeys`] goes in, a [`RotateReport`] comes back.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/keys/rotate`: a new KEK, the old wraps replaced (shallow recrypt).
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKeys {
    /// Only this VM; all VMs when absent.
    #[serde(default)]
    pub vm: Option<String>,
    /// Key to wrap by, `provider/uid`: one of a provider of this host, or one that was pushed. A new one of the default
    /// provider for each VM when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Do it although another host uses a VM.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Make no new key or version: bring files to the newest version of their key, and finish what a rotation left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rewrap: bool,
}

/// What a rotation did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RotateReport {
    /// One entry a VM.
    pub vms: Vec<RotatedVm>,
}

/// What a rotation did to one VM.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RotatedVm {
    /// Name of the VM.
    pub vm: String,
    /// The new key id, when it went well.
    pub key_id: Option<String>,
    /// Number of safes and descriptors rewritten.
    pub rewrapped: u32,
    /// What went wrong, when it did; the old key still opens the VM then.
    pub error: Option<String>,
}
