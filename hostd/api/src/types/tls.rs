//! The network port of a VM: request and answer.
//!
//! Owns their shapes; must not know certificates. Flow: a [`SetTls`] goes in, a [`TlsInfo`] is part of what is shown of a VM.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The network port of a VM: all its attached disks, under TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TlsInfo {
    /// Address and port that clients connect to, for example `192.0.2.1:10810`.
    pub address: String,
    /// It is open now; a VM that does not run has it closed.
    pub open: bool,
    /// Connections now, for all disks together.
    pub clients: u32,
}

/// `POST /v1/vms/{vm}/tls`: give a VM a network port, or take it away.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTls {
    /// Whether it has one. Saying so again reads certificates and key anew.
    pub on: bool,
    /// Which port, within the range of the configuration; kept, or chosen, when absent.
    #[serde(default)]
    pub port: Option<u16>,
}
