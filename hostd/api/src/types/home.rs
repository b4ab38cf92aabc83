//! Requests and answers about the mounted home of a VM.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the names in the home of a VM are stored. It is chosen when the VM is made, for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HomeNames {
    /// As they are.
    #[default]
    Plain,
    /// Encrypted, and so are the targets of symbolic links.
    Encrypted,
}

impl HomeNames {
    pub(crate) fn is_default(&self) -> bool {
        *self == HomeNames::default()
    }
}

/// How a home is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HomeMount {
    /// Who else may use the home.
    pub mode: HomeMode,
    /// Whether it is there for new users.
    pub state: HomeState,
    /// Number of the exclusive lease that this host has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epoch: Option<u64>,
}

/// Who else may use the home of a VM while it is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HomeMode {
    /// No other host; the kernel collects writes and believes names and attributes for long.
    Exclusive,
    /// Other hosts, also in this mode; every write goes through, and what they change is seen after a second.
    Shared,
}

/// Whether a mounted home is there for new users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HomeState {
    /// It is.
    Mounted,
    /// It was unmounted lazily: it is gone from the file tree, and served until its last user ends.
    Leaving,
}

/// `POST /v1/vms/{vm}/mount`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MountVm {
    /// Who else may use the home; chosen by the file system of the datastore when absent.
    #[serde(default)]
    pub mode: Option<HomeMode>,
    /// Take it from another host that holds it.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/vms/{vm}/umount`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UmountVm {
    /// Do it although it is in use: users are cut off.
    #[serde(default)]
    pub force: bool,
    /// When it is in use, take it out of the file tree now, and serve it until its last user ends.
    #[serde(default)]
    pub lazy: bool,
}
