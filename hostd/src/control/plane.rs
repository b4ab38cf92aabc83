//! The routes of the control plane, on the TLS port only.
//!
//! Owns paths and methods; the shapes are those of `hostd_api::control`.

use super::extract::{Body, Names, Options};
use super::{Call, answer::Refused};
use crate::host::Host;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use hostd_api::control::{EvictAnswer, EvictKey, HostIdentity, PushAnswer, PushKeys, VmKeys};
use hostd_api::error::ApiError;
use std::sync::Arc;
use utoipa::OpenApi;

type Answer<T> = Result<Json<T>, Refused>;

#[derive(OpenApi)]
#[openapi(paths(identity, push, evict, vms), components(schemas(ApiError)))]
pub(super) struct Documented;

pub(super) fn all() -> Router<Arc<Host>> {
    Router::new()
        .route("/v1/control/identity", get(identity))
        .route("/v1/control/keys", post(push))
        .route("/v1/control/keys/{provider}/{uid}", delete(evict))
        .route("/v1/control/vms", get(vms))
}

/// Who this host is, to whom keys are sealed, and which it lacks. TLS port only, as all of these.
#[utoipa::path(get, path = "/v1/control/identity", tag = "control",
    responses((status = 200, body = HostIdentity), (status = "default", body = ApiError)))]
async fn identity(call: Call) -> Answer<HostIdentity> {
    call.look(Host::control_identity).await
}

/// Take keys that are sealed to this start of this host.
#[utoipa::path(post, path = "/v1/control/keys", tag = "control", request_body = PushKeys,
    responses((status = 200, body = PushAnswer), (status = "default", body = ApiError)))]
async fn push(call: Call, Body(body): Body<PushKeys>) -> Answer<PushAnswer> {
    let target = format!("{} keys of generation {}", body.keys.len(), body.generation);
    call.run("key-push", target, move |host| host.push_keys(&body)).await
}

/// Forget a pushed key.
#[utoipa::path(delete, path = "/v1/control/keys/{provider}/{uid}", tag = "control",
    params(("provider" = String, Path), ("uid" = String, Path), EvictKey),
    responses((status = 200, body = EvictAnswer), (status = "default", body = ApiError)))]
async fn evict(
    call: Call,
    Names((provider, uid)): Names<(String, String)>,
    Options(how): Options<EvictKey>,
) -> Answer<EvictAnswer> {
    let key = format!("{provider}/{uid}");
    call.run("key-evict", key.clone(), move |host| host.evict_pushed(&key, &how)).await
}

/// The VMs of this host, and which of them are locked, why, and who must act.
#[utoipa::path(get, path = "/v1/control/vms", tag = "control",
    responses((status = 200, body = Vec<VmKeys>), (status = "default", body = ApiError)))]
async fn vms(call: Call) -> Answer<Vec<VmKeys>> {
    call.look(Host::control_vms).await
}
