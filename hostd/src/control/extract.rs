//! Parts of a request, with API errors where they are wrong.
//!
//! Owns how bodies, path segments and the caller are read; every rejection is an [`ApiError`] in JSON.
//!
//! [`ApiError`]: hostd_api::error::ApiError

use super::answer::Refused;
use super::{Call, Peer};
use crate::fault::Fault;
use crate::host::Host;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Segments of the path.
pub(super) struct Names<T>(pub(super) T);

/// Options behind the question mark, for verbs whose method has no body.
pub(super) struct Options<T>(pub(super) T);

/// A body in JSON. An empty body is `{}`, so that verbs without options need none.
pub(super) struct Body<T>(pub(super) T);

impl FromRequestParts<Arc<Host>> for Call {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, host: &Arc<Host>) -> Result<Self, Refused> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>().map(|info| info.0.clone());
        let peer =
            peer.ok_or_else(|| Refused(Fault::Bug("a connection without credentials".into())))?;
        Ok(Self { host: Arc::clone(host), peer })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Names<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = Path::<T>::from_request_parts(parts, state).await.map_err(|e| {
            Refused(Fault::invalid(format!("the path is wrong: {e}"), "use plain names in it"))
        })?;
        Ok(Self(path.0))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Options<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let query = Query::<T>::from_request_parts(parts, state).await.map_err(|e| {
            let message = format!("the options behind the path are wrong: {e}");
            Refused(Fault::invalid(message, "see GET /v1/openapi.json"))
        })?;
        Ok(Self(query.0))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let wrong = |e: String| {
            let message = format!("the body of the request is wrong: {e}");
            Refused(Fault::invalid(message, "see GET /v1/openapi.json"))
        };
        let bytes = Bytes::from_request(request, state).await.map_err(|e| wrong(e.to_string()))?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(|e| wrong(e.to_string()))
    }
}
