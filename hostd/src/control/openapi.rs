//! The OpenAPI 3.1 document, generated from the handlers and types.
//!
//! Owns title and tags; every path comes from `routes`, `kmip`, `plane` and `tpm`.

use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Coffer host API",
        description = "Control API of hostd, on its Unix socket; paths under /v1/control are for a control plane, on the TLS port only. Every answer that is not 2xx has an ApiError as its body."
    ),
    tags(
        (name = "host", description = "This host"),
        (name = "vm", description = "Virtual machines"),
        (name = "disk", description = "Disks of a virtual machine"),
        (name = "key", description = "Key providers and key-encrypting keys"),
        (name = "control", description = "For a control plane, on the TLS port only")
    )
)]
struct Head;

/// The document, as JSON.
///
/// # Errors
/// None in practice: the document is made of strings and maps.
pub fn document() -> Result<String, serde_json::Error> {
    let mut document = Head::openapi();
    document.merge(super::routes::Documented::openapi());
    document.merge(super::kmip::Documented::openapi());
    document.merge(super::tpm::Documented::openapi());
    document.merge(super::plane::Documented::openapi());
    serde_json::to_string_pretty(&document)
}
