//! Requests about a disk that is not attached.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/vms/{vm}/disks/{disk}/resize`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeDisk {
    /// New size in bytes; padded up to a multiple of the data unit.
    pub size: u64,
    /// Must be set to make a disk smaller: what lies behind the new end is lost.
    #[serde(default)]
    pub shrink: bool,
    /// Do it although another host uses the VM.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}
