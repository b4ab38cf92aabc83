//! Blocking client of the control API: one HTTP/1.1 request on a fresh Unix connection.
//!
//! Owns transport and error mapping, knows no route. The command line and tests call it; a small tokio
//! runtime lives inside so that callers stay synchronous.

use crate::error::ApiError;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// Largest answer taken, in bytes: 10,000 VMs with a few disks each fit in it.
const MAX_ANSWER: usize = 64 << 20;

/// How long hostd may take: a forced lock of a busy VM drains every disk first.
const ANSWER_LIMIT: Duration = Duration::from_secs(300);

/// Why a request has no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// hostd answered with an error.
    #[error("{error}")]
    Api {
        /// HTTP status.
        status: u16,
        /// What hostd says.
        error: Box<ApiError>,
    },
    /// No hostd there, or no right to talk to it.
    #[error("cannot reach hostd at {}: {reason}", socket.display())]
    Unreachable {
        /// Path of its socket.
        socket: PathBuf,
        /// What the kernel said.
        reason: std::io::Error,
    },
    /// What came back is no answer of this API.
    #[error("hostd gave no valid answer: {0}")]
    Protocol(String),
}

/// A client of one hostd.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the hostd that listens at `socket`; connects with each request.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Path of the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, None)
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::DELETE, path, None)
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Protocol(e.to_string()))?;
        self.request(Method::POST, path, Some(body))
    }

    /// `POST path` with a JSON body, for a verb that takes longer than others.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post_within<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Protocol(e.to_string()))?;
        self.request_within(Method::POST, path, Some(body), limit)
    }

    fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        self.request_within(method, path, body, ANSWER_LIMIT)
    }

    fn request_within<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| ClientError::Protocol(format!("no runtime: {e}")))?;
        let answer = runtime.block_on(async {
            tokio::time::timeout(limit, self.exchange(method, path, body)).await
        });
        let (status, text) = answer.map_err(|_| {
            ClientError::Protocol(format!("no answer within {} s", limit.as_secs()))
        })??;
        decode(status, &text)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|reason| ClientError::Unreachable { socket: self.socket.clone(), reason })?;
        exchange(stream, method, path, body).await.map_err(|e| ClientError::Protocol(e.to_string()))
    }
}

/// Sends one request on a fresh connection, and takes the whole answer.
///
/// # Errors
/// Those of HTTP and of the connection below.
pub async fn exchange<S>(
    stream: S,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself when `sender` is dropped; its error, if any, comes back through `sender`.
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "hostd");
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let text = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes();
    Ok((status, text))
}

/// What an answer says: a value, or the error of the API.
///
/// # Errors
/// [`ClientError::Api`], or [`ClientError::Protocol`] when it is neither.
pub fn decode<T: DeserializeOwned>(status: StatusCode, text: &[u8]) -> Result<T, ClientError> {
    if status.is_success() {
        return serde_json::from_slice(text).map_err(|e| ClientError::Protocol(e.to_string()));
    }
    match serde_json::from_slice::<ApiError>(text) {
        Ok(error) => Err(ClientError::Api { status: status.as_u16(), error: Box::new(error) }),
        Err(_) => Err(ClientError::Protocol(format!("HTTP status {status} without a reason"))),
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
