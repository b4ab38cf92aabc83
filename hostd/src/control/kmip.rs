//! The routes of key servers.
//!
//! Owns paths and methods; the shapes are those of `hostd_api::kms`.

use super::extract::Body;
use super::{Call, answer::Refused};
use crate::host::Host;
use axum::routing::{get, post};
use axum::{Json, Router};
use hostd_api::error::ApiError;
use hostd_api::kms::{
    CertificateInfo, CommonName, DestroyKey, EndedKey, ImportCertificate, InstallPair, RevokeKey,
    SigningRequest, TrustServer,
};
use hostd_api::types::ProviderInfo;
use std::sync::Arc;
use utoipa::OpenApi;

type Answer<T> = Result<Json<T>, Refused>;

#[derive(OpenApi)]
#[openapi(
    paths(check_providers, revoke, destroy, csr, certificate, self_signed, pair, server),
    components(schemas(ApiError))
)]
pub(super) struct Documented;

pub(super) fn all() -> Router<Arc<Host>> {
    Router::new()
        .route("/v1/keys/providers", get(check_providers))
        .route("/v1/keys/revoke", post(revoke))
        .route("/v1/keys/destroy", post(destroy))
        .route("/v1/keys/kmip/csr", post(csr))
        .route("/v1/keys/kmip/certificate", post(certificate))
        .route("/v1/keys/kmip/self-signed", post(self_signed))
        .route("/v1/keys/kmip/pair", post(pair))
        .route("/v1/keys/kmip/server", post(server))
}

/// Check every provider now: its servers, and a key that exists for this.
#[utoipa::path(get, path = "/v1/keys/providers", tag = "key",
    responses((status = 200, body = Vec<ProviderInfo>), (status = "default", body = ApiError)))]
async fn check_providers(call: Call) -> Answer<Vec<ProviderInfo>> {
    call.look(|host| host.check_providers()).await
}

/// Take a key back at its provider, once nothing here is encrypted by it.
#[utoipa::path(post, path = "/v1/keys/revoke", tag = "key", request_body = RevokeKey,
    responses((status = 200, body = EndedKey), (status = "default", body = ApiError)))]
async fn revoke(call: Call, Body(body): Body<RevokeKey>) -> Answer<EndedKey> {
    call.run("key-revoke", body.key.clone(), move |host| host.revoke_key(&body)).await
}

/// Destroy a key that was taken back, once nothing here is encrypted by it.
#[utoipa::path(post, path = "/v1/keys/destroy", tag = "key", request_body = DestroyKey,
    responses((status = 200, body = EndedKey), (status = "default", body = ApiError)))]
async fn destroy(call: Call, Body(body): Body<DestroyKey>) -> Answer<EndedKey> {
    call.run("key-destroy", body.key.clone(), move |host| host.destroy_key(&body)).await
}

/// Make a new private key, and a request for its certificate.
#[utoipa::path(post, path = "/v1/keys/kmip/csr", tag = "key", request_body = CommonName,
    responses((status = 200, body = SigningRequest), (status = "default", body = ApiError)))]
async fn csr(call: Call, Body(body): Body<CommonName>) -> Answer<SigningRequest> {
    let target = body.common_name.clone();
    call.run("kmip-csr", target, move |host| host.kmip_csr(&body)).await
}

/// Take the certificate that answers the last request.
#[utoipa::path(post, path = "/v1/keys/kmip/certificate", tag = "key", request_body = ImportCertificate,
    responses((status = 200, body = CertificateInfo), (status = "default", body = ApiError)))]
async fn certificate(call: Call, Body(body): Body<ImportCertificate>) -> Answer<CertificateInfo> {
    call.run("kmip-import", "client".into(), move |host| host.kmip_import(&body)).await
}

/// Make a private key and a certificate that it signs itself.
#[utoipa::path(post, path = "/v1/keys/kmip/self-signed", tag = "key", request_body = CommonName,
    responses((status = 200, body = CertificateInfo), (status = "default", body = ApiError)))]
async fn self_signed(call: Call, Body(body): Body<CommonName>) -> Answer<CertificateInfo> {
    let target = body.common_name.clone();
    call.run("kmip-self-signed", target, move |host| host.kmip_self_signed(&body)).await
}

/// Take a certificate and its private key from two files of this host.
#[utoipa::path(post, path = "/v1/keys/kmip/pair", tag = "key", request_body = InstallPair,
    responses((status = 200, body = CertificateInfo), (status = "default", body = ApiError)))]
async fn pair(call: Call, Body(body): Body<InstallPair>) -> Answer<CertificateInfo> {
    let target = body.certificate.display().to_string();
    call.run("kmip-pair", target, move |host| host.kmip_pair(&body)).await
}

/// Look at the certificate of a server, or trust it by its fingerprint.
#[utoipa::path(post, path = "/v1/keys/kmip/server", tag = "key", request_body = TrustServer,
    responses((status = 200, body = CertificateInfo), (status = "default", body = ApiError)))]
async fn server(call: Call, Body(body): Body<TrustServer>) -> Answer<CertificateInfo> {
    let target = body.server.clone();
    call.run("kmip-server", target, move |host| host.kmip_server(&body)).await
}
