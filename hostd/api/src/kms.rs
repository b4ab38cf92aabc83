//! Key servers in the control API: their health, and the set-up of trust; and the TPM seal of the native provider.
//!
//! Owns the shapes. No private key crosses this API: those are made by hostd, or read by it from a file that is named.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use utoipa::ToSchema;

/// One server of a key provider, by the last check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerInfo {
    /// Its address, `host:port`.
    pub address: String,
    /// Whether it answered; absent before the first check.
    pub up: Option<bool>,
    /// Whether its certificate is trusted; absent when it did not come to that.
    pub trusted: Option<bool>,
    /// Whether it trusts the certificate of this host; absent when it did not come to that.
    pub trusts_us: Option<bool>,
    /// Whole days until its certificate runs out; negative when it has.
    pub certificate_days: Option<i64>,
    /// Time of one question and its answer, in milliseconds.
    pub latency_ms: Option<u64>,
    /// Whether the key that exists for checks was really fetched; absent when there is none.
    pub key_fetched: Option<bool>,
    /// It gives keys, but makes none.
    pub read_only: bool,
    /// Why keys cannot be had from it, as vSphere names it: `KeyStateClusterUnreachable`, `KeyStateClusterInvalid`,
    /// `KeyStateMissingInKMS`, `KeyStateNotActiveOrEnabled`, `NoPermissionToAccessKeyProvider`.
    pub reason: Option<String>,
    /// One sentence on it.
    pub detail: String,
    /// When it was checked, seconds since 1970.
    pub checked_at: Option<u64>,
}

/// A key that the servers of a provider do not agree on, by the last check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyDifferenceInfo {
    /// Id of the key.
    pub key: String,
    /// What each server that answered says.
    pub servers: Vec<ServerSaid>,
    /// Whether anything new may be encrypted by it, by what all servers say together.
    pub may_wrap: bool,
    /// `KeyStateDiffers` when states differ; `KeyStateMissingInKMS`, as vSphere names it, when a server lacks it.
    pub reason: String,
    /// When they were seen to differ first, seconds since 1970.
    pub since: u64,
    /// It may be that the servers are still telling each other.
    pub may_be_lag: bool,
    /// One sentence on it.
    pub detail: String,
}

/// What one server says of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerSaid {
    /// Its address.
    pub server: String,
    /// `Active` and the other states of KMIP, `not found`, `not found any more`, or `there, state not told`.
    pub state: String,
}

/// `POST /v1/keys/revoke`: take a key back that nothing here uses any more.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeKey {
    /// Id of the key.
    pub key: String,
    /// Somebody else may know it.
    #[serde(default)]
    pub compromised: bool,
    /// A sentence for the log of the key server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// `POST /v1/keys/destroy`: destroy a key that was taken back.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DestroyKey {
    /// Id of the key.
    pub key: String,
}

/// A key that was taken back or destroyed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EndedKey {
    /// Id of the key.
    pub key: String,
    /// What each server that answers says of it now.
    pub servers: Vec<ServerSaid>,
    /// Datastores that were looked through for users of the key.
    pub datastores: Vec<String>,
    /// Safes and descriptors that were looked at.
    pub files: u64,
}

/// `POST /v1/keys/kmip/csr` and `/self-signed`: the name that servers are to know this host by.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommonName {
    /// Common name of the certificate.
    pub common_name: String,
    /// The provider, where more than one has key servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

/// A request for a certificate.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SigningRequest {
    /// PKCS #10, PEM.
    pub request: String,
}

/// `POST /v1/keys/kmip/certificate`: the answer to the last request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportCertificate {
    /// The certificate, then those that lead to its authority, PEM.
    pub certificate: String,
    /// The provider, where more than one has key servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

/// `POST /v1/keys/kmip/pair`: files of this host that hostd takes over as copies.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallPair {
    /// PEM file with the certificate.
    #[schema(value_type = String)]
    pub certificate: PathBuf,
    /// PEM file with its private key, readable by its owner only.
    #[schema(value_type = String)]
    pub key: PathBuf,
    /// The provider, where more than one has key servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

/// `POST /v1/keys/kmip/server`: which server to look at, and whether to trust what it shows.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustServer {
    /// A server of the configuration, `host` or `host:port`.
    pub server: String,
    /// Trust its certificate from now on, if this is its SHA-256; only look at it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The provider, where more than one has key servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

/// A certificate, as it is shown to a person.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CertificateInfo {
    /// PEM.
    pub certificate: String,
    /// SHA-256 of its DER form in hex.
    pub sha256: String,
    /// DNS names in it.
    pub names: Vec<String>,
    /// Whole days until it runs out; negative when it has.
    pub days_left: Option<i64>,
    /// It is trusted as a server's from now on.
    pub pinned: bool,
}

/// `POST /v1/keys/tpm/seal`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SealToTpm {
    /// PCRs (0 to 23) that must keep the values that they have now.
    #[serde(default)]
    pub pcrs: Vec<u8>,
}

/// The TPM seal of the native provider's key file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TpmStatus {
    /// Where the TPM is, by the configuration.
    pub tpm: String,
    /// There is a seal.
    pub sealed: bool,
    /// When it was made, seconds since 1970.
    pub sealed_at: Option<u64>,
    /// PCRs that it depends on.
    pub pcrs: Vec<u8>,
    /// Whether the TPM opens the key file now; absent without a seal.
    pub opens: Option<bool>,
    /// What opened the key file when hostd started; absent when nothing did.
    pub opened_by: Option<TpmOpener>,
    /// One sentence on it.
    pub detail: String,
}

/// What opened the key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TpmOpener {
    /// Its passphrase.
    Passphrase,
    /// Its TPM seal.
    Tpm,
}
