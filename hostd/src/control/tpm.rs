//! The routes of the TPM seal.
//!
//! Owns paths and methods; the shapes are those of `hostd_api::kms`.

use super::extract::Body;
use super::{Call, answer::Refused};
use crate::host::Host;
use axum::routing::{get, post};
use axum::{Json, Router};
use hostd_api::error::ApiError;
use hostd_api::kms::{SealToTpm, TpmStatus};
use std::sync::Arc;
use utoipa::OpenApi;

type Answer<T> = Result<Json<T>, Refused>;

#[derive(OpenApi)]
#[openapi(paths(tpm_status, seal_to_tpm, remove_seal), components(schemas(ApiError)))]
pub(super) struct Documented;

pub(super) fn all() -> Router<Arc<Host>> {
    Router::new()
        .route("/v1/keys/tpm", get(tpm_status).delete(remove_seal))
        .route("/v1/keys/tpm/seal", post(seal_to_tpm))
}

/// Whether the key file is sealed to the TPM, and whether that opens it now.
#[utoipa::path(get, path = "/v1/keys/tpm", tag = "key",
    responses((status = 200, body = TpmStatus), (status = "default", body = ApiError)))]
async fn tpm_status(call: Call) -> Answer<TpmStatus> {
    call.look(|host| host.tpm_status()).await
}

/// Seal the key file to the TPM, so that hostd starts without its passphrase.
#[utoipa::path(post, path = "/v1/keys/tpm/seal", tag = "key", request_body = SealToTpm,
    responses((status = 200, body = TpmStatus), (status = "default", body = ApiError)))]
async fn seal_to_tpm(call: Call, Body(body): Body<SealToTpm>) -> Answer<TpmStatus> {
    call.run("key-tpm-seal", "native".into(), move |host| host.seal_to_tpm(&body)).await
}

/// Remove the TPM seal: the passphrase is needed again.
#[utoipa::path(delete, path = "/v1/keys/tpm", tag = "key",
    responses((status = 200, body = TpmStatus), (status = "default", body = ApiError)))]
async fn remove_seal(call: Call) -> Answer<TpmStatus> {
    call.run("key-tpm-remove", "native".into(), |host| host.remove_seal()).await
}
