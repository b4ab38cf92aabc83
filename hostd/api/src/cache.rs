//! How a disk uses the page cache of the host.
//!
//! Owns the names, for the API and for the link; must not know descriptors. Flow: chosen at attach, told to the vmd, and
//! reported by it, so that a new hostd knows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the page cache of the host is used for, in the terms of QEMU (`cache=` of `-drive`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CacheMode {
    /// Reads and writes go through it; a flush writes back.
    #[default]
    Writeback,
    /// It is kept out (`O_DIRECT`); a flush makes the drive's own cache durable.
    None,
}

impl CacheMode {
    /// Whether it is what is meant when nothing is said: requests then look as they did before there was a choice.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
