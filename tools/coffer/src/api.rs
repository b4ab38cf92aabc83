//! The routes of hostd that the command line uses, as typed calls.
//!
//! Owns paths and the escaping of names in them, so that no name can reach another route. Decides nothing.

use hostd_api::client::{Client, ClientError};
use hostd_api::kms::{
    CertificateInfo, CommonName, DestroyKey, EndedKey, ImportCertificate, InstallPair, RevokeKey,
    SealToTpm, SigningRequest, TpmStatus, TrustServer,
};
use hostd_api::types::{
    AttachDisk, CheckReport, CheckVm, ConfirmBackup, CreateDisk, CreateVm, DiskInfo, Force,
    HostStatus, KeyBackup, KeyStatus, MountVm, ProviderInfo, RegisterVm, ResizeDisk, RotateKeys,
    RotateReport, SetTls, UmountVm, VmInfo,
};
use serde::de::IgnoredAny;
use std::path::Path;
use std::time::Duration;

type Answer<T> = Result<T, ClientError>;

/// How long a check may take: homes with millions of files lie on slow storage.
const CHECK_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Body of verbs without settings.
#[derive(Debug, serde::Serialize)]
struct Nothing {}

/// A hostd.
#[derive(Debug)]
pub(crate) struct Api(Client);

impl Api {
    /// The hostd that listens at `socket`.
    pub(crate) fn new(socket: &Path) -> Self {
        Self(Client::new(socket))
    }

    pub(crate) fn host(&self) -> Answer<HostStatus> {
        self.0.get("/v1/host")
    }

    pub(crate) fn vms(&self) -> Answer<Vec<VmInfo>> {
        self.0.get("/v1/vms")
    }

    pub(crate) fn vm(&self, vm: &str) -> Answer<VmInfo> {
        self.0.get(&vm_path(vm))
    }

    pub(crate) fn create_vm(&self, body: &CreateVm) -> Answer<VmInfo> {
        self.0.post("/v1/vms", body)
    }

    pub(crate) fn register_vm(&self, body: &RegisterVm) -> Answer<VmInfo> {
        self.0.post("/v1/vms/register", body)
    }

    pub(crate) fn mount(&self, vm: &str, body: &MountVm) -> Answer<VmInfo> {
        self.0.post(&(vm_path(vm) + "/mount"), body)
    }

    pub(crate) fn umount(&self, vm: &str, body: &UmountVm) -> Answer<VmInfo> {
        self.0.post(&(vm_path(vm) + "/umount"), body)
    }

    pub(crate) fn lock(&self, vm: &str, force: bool) -> Answer<VmInfo> {
        self.0.post(&(vm_path(vm) + "/lock"), &Force { force })
    }

    pub(crate) fn unlock(&self, vm: &str) -> Answer<VmInfo> {
        self.0.post(&(vm_path(vm) + "/unlock"), &Nothing {})
    }

    pub(crate) fn check(&self, vm: &str, body: &CheckVm) -> Answer<CheckReport> {
        self.0.post_within(&(vm_path(vm) + "/check"), body, CHECK_LIMIT)
    }

    pub(crate) fn set_tls(&self, vm: &str, body: &SetTls) -> Answer<VmInfo> {
        self.0.post(&(vm_path(vm) + "/tls"), body)
    }

    pub(crate) fn delete_vm(&self, vm: &str, force: bool) -> Answer<()> {
        let options = if force { "?force=true" } else { "" };
        self.0.delete::<IgnoredAny>(&(vm_path(vm) + options)).map(|_| ())
    }

    pub(crate) fn create_disk(&self, vm: &str, body: &CreateDisk) -> Answer<DiskInfo> {
        self.0.post(&(vm_path(vm) + "/disks"), body)
    }

    pub(crate) fn attach(&self, vm: &str, disk: &str, body: &AttachDisk) -> Answer<DiskInfo> {
        self.0.post(&(disk_path(vm, disk) + "/attach"), body)
    }

    pub(crate) fn detach(&self, vm: &str, disk: &str, force: bool) -> Answer<DiskInfo> {
        self.0.post(&(disk_path(vm, disk) + "/detach"), &Force { force })
    }

    pub(crate) fn resize(&self, vm: &str, disk: &str, body: &ResizeDisk) -> Answer<DiskInfo> {
        self.0.post(&(disk_path(vm, disk) + "/resize"), body)
    }

    pub(crate) fn ready(&self, vm: &str, disk: &str) -> Answer<DiskInfo> {
        self.0.post(&(disk_path(vm, disk) + "/ready"), &Nothing {})
    }

    pub(crate) fn delete_disk(&self, vm: &str, disk: &str, force: bool) -> Answer<()> {
        let options = if force { "?force=true" } else { "" };
        self.0.delete::<IgnoredAny>(&(disk_path(vm, disk) + options)).map(|_| ())
    }

    pub(crate) fn keys(&self) -> Answer<KeyStatus> {
        self.0.get("/v1/keys")
    }

    pub(crate) fn backup(&self) -> Answer<KeyBackup> {
        self.0.get("/v1/keys/backup")
    }

    pub(crate) fn confirm_backup(&self, body: &ConfirmBackup) -> Answer<()> {
        self.0.post::<_, IgnoredAny>("/v1/keys/backup/confirm", body).map(|_| ())
    }

    pub(crate) fn revoke(&self, body: &RevokeKey) -> Answer<EndedKey> {
        self.0.post("/v1/keys/revoke", body)
    }

    pub(crate) fn destroy(&self, body: &DestroyKey) -> Answer<EndedKey> {
        self.0.post("/v1/keys/destroy", body)
    }

    pub(crate) fn providers(&self) -> Answer<Vec<ProviderInfo>> {
        self.0.get("/v1/keys/providers")
    }

    pub(crate) fn kmip_csr(&self, body: &CommonName) -> Answer<SigningRequest> {
        self.0.post("/v1/keys/kmip/csr", body)
    }

    pub(crate) fn kmip_import(&self, body: &ImportCertificate) -> Answer<CertificateInfo> {
        self.0.post("/v1/keys/kmip/certificate", body)
    }

    pub(crate) fn kmip_self_signed(&self, body: &CommonName) -> Answer<CertificateInfo> {
        self.0.post("/v1/keys/kmip/self-signed", body)
    }

    pub(crate) fn kmip_pair(&self, body: &InstallPair) -> Answer<CertificateInfo> {
        self.0.post("/v1/keys/kmip/pair", body)
    }

    pub(crate) fn kmip_server(&self, body: &TrustServer) -> Answer<CertificateInfo> {
        self.0.post("/v1/keys/kmip/server", body)
    }

    pub(crate) fn tpm_status(&self) -> Answer<TpmStatus> {
        self.0.get("/v1/keys/tpm")
    }

    pub(crate) fn tpm_seal(&self, body: &SealToTpm) -> Answer<TpmStatus> {
        self.0.post("/v1/keys/tpm/seal", body)
    }

    pub(crate) fn tpm_remove(&self) -> Answer<TpmStatus> {
        self.0.delete("/v1/keys/tpm")
    }

    pub(crate) fn rotate(&self, body: &RotateKeys) -> Answer<RotateReport> {
        self.0.post("/v1/keys/rotate", body)
    }
}

fn vm_path(vm: &str) -> String {
    format!("/v1/vms/{}", segment(vm))
}

fn disk_path(vm: &str, disk: &str) -> String {
    format!("{}/disks/{}", vm_path(vm), segment(disk))
}

/// `name` as one path segment: all but the unreserved characters of RFC 3986 section 2.3 are percent-encoded,
/// and names of dots only too, which some servers would resolve.
fn segment(name: &str) -> String {
    let dots = name.bytes().all(|b| b == b'.');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_~".contains(&b) || (b == b'.' && !dots);
    name.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_segment() {
        assert_eq!(disk_path("web-01_a.b", "root"), "/v1/vms/web-01_a.b/disks/root");
        assert_eq!(vm_path("../keys"), "/v1/vms/..%2Fkeys");
        assert_eq!(vm_path(".."), "/v1/vms/%2E%2E");
        assert_eq!(vm_path("a?b#c d\r\n"), "/v1/vms/a%3Fb%23c%20d%0D%0A");
    }
}
