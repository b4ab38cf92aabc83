//! The routes, one handler a line or three: name the verb, call the host.
//!
//! Owns paths and methods; the shapes are those of `hostd_api::types`.

use super::extract::{Body, Names, Options};
use super::{Call, answer::Refused};
use crate::asker::Asker;
use crate::fault::Fault;
use crate::host::Host;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use hostd_api::error::ApiError;
use hostd_api::types::{
    AttachDisk, CheckReport, CheckVm, ConfirmBackup, CreateDisk, CreateVm, DiskInfo, Force,
    HostStatus, KeyBackup, KeyStatus, MountVm, RegisterVm, ResizeDisk, RotateKeys, RotateReport,
    SetTls, UmountVm, VmInfo,
};
use std::sync::Arc;
use utoipa::OpenApi;

type Answer<T> = Result<Json<T>, Refused>;
type OfDisk = Names<(String, String)>;

#[derive(OpenApi)]
#[openapi(
    paths(
        show_host,
        openapi,
        list_vms,
        create_vm,
        register_vm,
        show_vm,
        delete_vm,
        mount_vm,
        umount_vm,
        lock_vm,
        unlock_vm,
        check_vm,
        set_tls,
        list_disks,
        create_disk,
        show_disk,
        delete_disk,
        attach_disk,
        detach_disk,
        resize_disk,
        disk_ready,
        key_status,
        key_backup,
        confirm_backup,
        rotate_keys
    ),
    components(schemas(ApiError))
)]
pub(super) struct Documented;

pub(super) fn all() -> Router<Arc<Host>> {
    Router::new()
        .route("/v1/host", get(show_host))
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/vms", get(list_vms).post(create_vm))
        .route("/v1/vms/register", post(register_vm))
        .route("/v1/vms/{vm}", get(show_vm).delete(delete_vm))
        .route("/v1/vms/{vm}/mount", post(mount_vm))
        .route("/v1/vms/{vm}/umount", post(umount_vm))
        .route("/v1/vms/{vm}/lock", post(lock_vm))
        .route("/v1/vms/{vm}/unlock", post(unlock_vm))
        .route("/v1/vms/{vm}/check", post(check_vm))
        .route("/v1/vms/{vm}/tls", post(set_tls))
        .route("/v1/vms/{vm}/disks", get(list_disks).post(create_disk))
        .route("/v1/vms/{vm}/disks/{disk}", get(show_disk).delete(delete_disk))
        .route("/v1/vms/{vm}/disks/{disk}/attach", post(attach_disk))
        .route("/v1/vms/{vm}/disks/{disk}/detach", post(detach_disk))
        .route("/v1/vms/{vm}/disks/{disk}/resize", post(resize_disk))
        .route("/v1/vms/{vm}/disks/{disk}/ready", post(disk_ready))
        .route("/v1/keys", get(key_status))
        .route("/v1/keys/backup", get(key_backup))
        .route("/v1/keys/backup/confirm", post(confirm_backup))
        .route("/v1/keys/rotate", post(rotate_keys))
}

/// What this host is, and whether it is safe.
#[utoipa::path(get, path = "/v1/host", tag = "host",
    responses((status = 200, body = HostStatus), (status = "default", body = ApiError)))]
async fn show_host(call: Call) -> Answer<HostStatus> {
    call.look(|host| Ok(host.status())).await
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "host",
    responses((status = 200, description = "OpenAPI 3.1")))]
async fn openapi() -> Result<impl IntoResponse, Refused> {
    let text = super::document().map_err(|e| Refused(Fault::Bug(e.to_string())))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text))
}

/// All VMs.
#[utoipa::path(get, path = "/v1/vms", tag = "vm",
    responses((status = 200, body = Vec<VmInfo>), (status = "default", body = ApiError)))]
async fn list_vms(call: Call) -> Answer<Vec<VmInfo>> {
    call.look(|host| Ok(host.list_vms())).await
}

/// Make a VM: a new key, a new safe.
#[utoipa::path(post, path = "/v1/vms", tag = "vm", request_body = CreateVm,
    responses((status = 200, body = VmInfo), (status = "default", body = ApiError)))]
async fn create_vm(call: Call, Body(body): Body<CreateVm>) -> Answer<VmInfo> {
    call.run("vm-create", body.name.clone(), move |host| host.create_vm(&body)).await
}

/// Take a VM folder of a datastore into the inventory.
#[utoipa::path(post, path = "/v1/vms/register", tag = "vm", request_body = RegisterVm,
    responses((status = 200, body = VmInfo), (status = "default", body = ApiError)))]
async fn register_vm(call: Call, Body(body): Body<RegisterVm>) -> Answer<VmInfo> {
    let target = body.path.display().to_string();
    call.run("vm-register", target, move |host| host.register_vm(&body)).await
}

/// One VM.
#[utoipa::path(get, path = "/v1/vms/{vm}", tag = "vm", params(("vm" = String, Path)),
    responses((status = 200, body = VmInfo), (status = "default", body = ApiError)))]
async fn show_vm(call: Call, Names(vm): Names<String>) -> Answer<VmInfo> {
    call.look(move |host| host.show_vm(&vm)).await
}

/// Delete a VM with everything in its folder; with `force` although another host has its home.
#[utoipa::path(delete, path = "/v1/vms/{vm}", tag = "vm",
    params(("vm" = String, Path), ("force" = Option<bool>, Query, description = "Do it although another host has the home")),
    responses((status = 200, description = "As it was", body = VmInfo), (status = "default", body = ApiError)))]
async fn delete_vm(
    call: Call,
    Names(vm): Names<String>,
    Options(how): Options<Force>,
) -> Answer<VmInfo> {
    call.run("vm-delete", vm.clone(), move |host| host.delete_vm(&vm, &how)).await
}

/// Mount the decrypted home.
#[utoipa::path(post, path = "/v1/vms/{vm}/mount", tag = "vm", params(("vm" = String, Path)), request_body = MountVm,
    responses((status = 200, body = VmInfo), (status = "default", body = ApiError)))]
async fn mount_vm(
    call: Call,
    Names(vm): Names<String>,
    Body(how): Body<MountVm>,
) -> Answer<VmInfo> {
    call.run("vm-mount", vm.clone(), move |host| host.mount_vm(&vm, &how)).await
}

/// Unmount the home.
#[utoipa::path(post, path = "/v1/vms/{vm}/umount", tag = "vm", params(("vm" = String, Path)), request_body = UmountVm,
    responses((status = 200, body = VmInfo), (status = "default", body = ApiError)))]
async fn umount_vm(
    call: Call,
    Names(vm): Names<String>,
    Body(how): Body<UmountVm>,
) -> Answer<VmInfo> {
    call.run("vm-umount", vm.clone(), move |host| host.umount_vm(&vm, &how)).await
}

/// Lock a VM: nothing is served, its key is dropped, also after a restart.
#[utoipa::path(post, path = "/v1/vms/{vm}/lock", tag = "vm", params(("vm" = String, Path)), request_body = Force,
    responses((status = 200, body = VmInfo), (status = "default", body = ApiError)))]
async fn lock_vm(call: Call, Names(vm): Names<String>, Body(how): Body<Force>) -> Answer<VmInfo> {
    call.run("vm-lock", vm.clone(), move |host| host.lock_vm(&vm, &how)).await
}

/// Unlock a VM, and try its keys.
#[utoipa::path(post, path = "/v1/vms/{vm}/unlock", tag = "vm", params(("vm" = String, Path)),
    responses((status = 200, body = VmInfo), (status = "default", body = ApiError)))]
async fn unlock_vm(call: Call, Names(vm): Names<String>) -> Answer<VmInfo> {
    call.run("vm-unlock", vm.clone(), move |host| host.unlock_vm(&vm)).await
}

/// Look at everything that is stored of a VM, and mend what can be mended without a risk for data.
#[utoipa::path(post, path = "/v1/vms/{vm}/check", tag = "vm", params(("vm" = String, Path)), request_body = CheckVm,
    responses((status = 200, body = CheckReport), (status = "default", body = ApiError)))]
async fn check_vm(
    call: Call,
    Names(vm): Names<String>,
    Body(how): Body<CheckVm>,
) -> Answer<CheckReport> {
    let target = vm.clone();
    let check = move |host: &Arc<Host>, asker: &Asker| host.check_vm(&vm, &how, asker);
    call.run_for("vm-check", target, check).await
}

/// Give a VM a network port, or take it away.
#[utoipa::path(post, path = "/v1/vms/{vm}/tls", tag = "vm", params(("vm" = String, Path)), request_body = SetTls,
    responses((status = 200, body = VmInfo), (status = "default", body = ApiError)))]
async fn set_tls(call: Call, Names(vm): Names<String>, Body(how): Body<SetTls>) -> Answer<VmInfo> {
    call.run("vm-tls", vm.clone(), move |host| host.set_tls(&vm, &how)).await
}

/// Disks of a VM.
#[utoipa::path(get, path = "/v1/vms/{vm}/disks", tag = "disk", params(("vm" = String, Path)),
    responses((status = 200, body = Vec<DiskInfo>), (status = "default", body = ApiError)))]
async fn list_disks(call: Call, Names(vm): Names<String>) -> Answer<Vec<DiskInfo>> {
    call.look(move |host| host.list_disks(&vm)).await
}

/// Make a disk.
#[utoipa::path(post, path = "/v1/vms/{vm}/disks", tag = "disk", params(("vm" = String, Path)), request_body = CreateDisk,
    responses((status = 200, body = DiskInfo), (status = "default", body = ApiError)))]
async fn create_disk(
    call: Call,
    Names(vm): Names<String>,
    Body(body): Body<CreateDisk>,
) -> Answer<DiskInfo> {
    let target = format!("{vm}/{}", body.name);
    call.run("disk-create", target, move |host| host.create_disk(&vm, &body)).await
}

/// One disk.
#[utoipa::path(get, path = "/v1/vms/{vm}/disks/{disk}", tag = "disk", params(("vm" = String, Path), ("disk" = String, Path)),
    responses((status = 200, body = DiskInfo), (status = "default", body = ApiError)))]
async fn show_disk(call: Call, Names((vm, disk)): OfDisk) -> Answer<DiskInfo> {
    call.look(move |host| host.show_disk(&vm, &disk)).await
}

/// Delete a disk; with `force` although another host uses the VM.
#[utoipa::path(delete, path = "/v1/vms/{vm}/disks/{disk}", tag = "disk",
    params(("vm" = String, Path), ("disk" = String, Path), ("force" = Option<bool>, Query, description = "Do it although another host uses the VM")),
    responses((status = 200, description = "As it was", body = DiskInfo), (status = "default", body = ApiError)))]
async fn delete_disk(
    call: Call,
    Names((vm, disk)): OfDisk,
    Options(how): Options<Force>,
) -> Answer<DiskInfo> {
    call.run("disk-delete", format!("{vm}/{disk}"), move |host| host.delete_disk(&vm, &disk, &how))
        .await
}

/// Serve a disk.
#[utoipa::path(post, path = "/v1/vms/{vm}/disks/{disk}/attach", tag = "disk", params(("vm" = String, Path), ("disk" = String, Path)), request_body = AttachDisk,
    responses((status = 200, body = DiskInfo), (status = "default", body = ApiError)))]
async fn attach_disk(
    call: Call,
    Names((vm, disk)): OfDisk,
    Body(body): Body<AttachDisk>,
) -> Answer<DiskInfo> {
    call.run("disk-attach", format!("{vm}/{disk}"), move |host| host.attach_disk(&vm, &disk, &body))
        .await
}

/// Serve a disk no more.
#[utoipa::path(post, path = "/v1/vms/{vm}/disks/{disk}/detach", tag = "disk", params(("vm" = String, Path), ("disk" = String, Path)), request_body = Force,
    responses((status = 200, body = DiskInfo), (status = "default", body = ApiError)))]
async fn detach_disk(
    call: Call,
    Names((vm, disk)): OfDisk,
    Body(how): Body<Force>,
) -> Answer<DiskInfo> {
    call.run("disk-detach", format!("{vm}/{disk}"), move |host| host.detach_disk(&vm, &disk, &how))
        .await
}

/// Make a detached disk larger, or smaller with the flag.
#[utoipa::path(post, path = "/v1/vms/{vm}/disks/{disk}/resize", tag = "disk", params(("vm" = String, Path), ("disk" = String, Path)), request_body = ResizeDisk,
    responses((status = 200, body = DiskInfo), (status = "default", body = ApiError)))]
async fn resize_disk(
    call: Call,
    Names((vm, disk)): OfDisk,
    Body(body): Body<ResizeDisk>,
) -> Answer<DiskInfo> {
    call.run("disk-resize", format!("{vm}/{disk}"), move |host| host.resize_disk(&vm, &disk, &body))
        .await
}

/// An import has ended well.
#[utoipa::path(post, path = "/v1/vms/{vm}/disks/{disk}/ready", tag = "disk", params(("vm" = String, Path), ("disk" = String, Path)),
    responses((status = 200, body = DiskInfo), (status = "default", body = ApiError)))]
async fn disk_ready(call: Call, Names((vm, disk)): OfDisk) -> Answer<DiskInfo> {
    call.run("disk-ready", format!("{vm}/{disk}"), move |host| host.disk_ready(&vm, &disk)).await
}

/// Providers and keys, never key bytes.
#[utoipa::path(get, path = "/v1/keys", tag = "key",
    responses((status = 200, body = KeyStatus), (status = "default", body = ApiError)))]
async fn key_status(call: Call) -> Answer<KeyStatus> {
    call.look(Host::key_status).await
}

/// The sealed key file of the native provider.
#[utoipa::path(get, path = "/v1/keys/backup", tag = "key",
    responses((status = 200, body = KeyBackup), (status = "default", body = ApiError)))]
async fn key_backup(call: Call) -> Answer<KeyBackup> {
    call.run("key-backup", "native".into(), |host| host.key_backup()).await
}

/// The backup was stored.
#[utoipa::path(post, path = "/v1/keys/backup/confirm", tag = "key", request_body = ConfirmBackup,
    responses((status = 200, body = KeyStatus), (status = "default", body = ApiError)))]
async fn confirm_backup(call: Call, Body(body): Body<ConfirmBackup>) -> Answer<KeyStatus> {
    call.run("key-backup-confirm", "native".into(), move |host| host.confirm_backup(&body)).await
}

/// New keys, the old wraps replaced.
#[utoipa::path(post, path = "/v1/keys/rotate", tag = "key", request_body = RotateKeys,
    responses((status = 200, body = RotateReport), (status = "default", body = ApiError)))]
async fn rotate_keys(call: Call, Body(body): Body<RotateKeys>) -> Answer<RotateReport> {
    let target = body.vm.clone().unwrap_or_else(|| "all".into());
    call.run("key-rotate", target, move |host| host.rotate_keys(&body)).await
}
