//! Request and answer of the check of a VM.
//!
//! Owns their shapes, and knows nothing of what can be wrong. Flow: a [`CheckVm`] goes in, a [`CheckReport`] comes back.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/vms/{vm}/check`: look at everything that is stored of a VM.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckVm {
    /// Mend what can be mended without a risk for data.
    #[serde(default)]
    pub repair: bool,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckReport {
    /// Name of the VM.
    pub vm: String,
    /// Files, folders, links and others that were looked at.
    pub objects: u64,
    /// Findings of damage that were not mended.
    pub damaged: u64,
    /// Findings of remains that were not mended.
    pub leftovers: u64,
    /// Findings that were mended.
    pub mended: u64,
    /// Findings that are counted above and not in the list.
    pub unlisted: u64,
    /// The first findings.
    pub findings: Vec<Finding>,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Path below the VM folder; control characters and bytes that are not UTF-8 are escaped as in C.
    pub path: String,
    /// Path in the mounted home, likewise, where the names of the home are encrypted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plain: Option<String>,
    /// How bad it is.
    pub grade: FindingGrade,
    /// What is wrong.
    pub what: String,
    /// What a repair can do, or did.
    pub repair: FindingRepair,
    /// What a repair does, in words that follow "a repair"; or what else can be done, when there is none.
    pub how: String,
    /// Why a repair failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FindingGrade {
    /// Something is not as it was written, and may be lost.
    Damaged,
    /// Remains of work that was cut short, or strays; they harm nothing.
    Leftover,
}

/// What a repair can do about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FindingRepair {
    /// Nothing.
    None,
    /// It can be mended.
    Possible,
    /// It was mended.
    Done,
    /// It could not be mended, and was left as it was.
    Failed,
}
