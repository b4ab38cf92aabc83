//! TLS and HTTP on the listening socket.
//!
//! Owns connections, their limits and times, and what of a request the service needs; must not know routes. Flow: [`serve`] accepts, has TLS verify
//! the client's certificate if it has one, reads each request whole, and calls [`Service::answer`] on a thread that may wait.

use super::{Answer, Asked, Service};
use crate::pki::{fingerprint, uris_of};
use crate::rights::Identity;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Largest body: a record with its names, or a certificate request.
const MAX_BODY: usize = 64 * 1024;

/// Longest text of `coffer-why`.
const MAX_WHY: usize = 1000;

/// Pause after a failed accept: the usual reason is a lack of descriptors, which takes a moment to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most connections at a time.
    pub connections: usize,
    /// How long TLS, the head of a request, or its body may take.
    pub wait: Duration,
}

/// Answers requests until `stop`, then ends idle connections and waits for the others. The TLS settings are read anew for
/// each connection, so that a renewed certificate counts at once.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<Mutex<Arc<ServerConfig>>>,
    service: Arc<Service>,
    limits: Limits,
    stop: impl Future,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let connections = Arc::new(GracefulShutdown::new());
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            _ = &mut stop => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("a connection failed: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let settings = Arc::clone(&tls.lock().unwrap_or_else(PoisonError::into_inner));
        let (service, watcher) = (Arc::clone(&service), connections.watcher());
        tokio::spawn(async move {
            let _place = place;
            // A client that leaves early, or that TLS does not let in, is no event for the operator.
            if let Err(e) = connection(stream, address, settings, service, limits, watcher).await {
                tracing::debug!(%address, "a connection ended: {e}");
            }
        });
    }
    drop(listener);
    if let Some(connections) = Arc::into_inner(connections) {
        connections.shutdown().await;
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    settings: Arc<ServerConfig>,
    service: Arc<Service>,
    limits: Limits,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let accepted = TlsAcceptor::from(settings).accept(stream);
    let stream = tokio::time::timeout(limits.wait, accepted).await??;
    let identity = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        Some(certificate) => {
            Identity::Certificate { sha256: fingerprint(certificate), uris: uris_of(certificate) }
        }
        None => Identity::Nobody,
    };
    let handler = service_fn(move |request| {
        let (service, identity) = (Arc::clone(&service), identity.clone());
        async move { Ok::<_, Infallible>(respond(request, service, identity, address, limits).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.wait);
    watcher.watch(http.serve_connection(TokioIo::new(stream), handler)).await?;
    Ok(())
}

async fn respond(
    request: Request<Incoming>,
    service: Arc<Service>,
    identity: Identity,
    address: SocketAddr,
    limits: Limits,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = tokio::time::timeout(limits.wait, Limited::new(body, MAX_BODY).collect()).await;
    let body = match body {
        Ok(Ok(body)) => body.to_bytes().to_vec(),
        Ok(Err(e)) => return plain(StatusCode::BAD_REQUEST, &format!("the body: {e}")),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    };
    let asked = Asked {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: query(head.uri.query().unwrap_or_default()),
        body,
        identity: with_token(identity, &head.headers),
        address: address.to_string(),
        why: header(&head.headers, "coffer-why").chars().take(MAX_WHY).collect(),
        approval: Some(header(&head.headers, "coffer-approval")).filter(|id| !id.is_empty()),
    };
    let answered = tokio::task::spawn_blocking(move || service.answer(&asked)).await;
    match answered {
        Ok(Answer { status, body }) => json(status, body.to_string()),
        Err(e) => {
            tracing::error!("a request ended without an answer: {e}");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the request ended without an answer")
        }
    }
}

/// A token says who asks, whatever certificate the connection has: that is how one program asks for several people.
fn with_token(identity: Identity, headers: &HeaderMap) -> Identity {
    match header(headers, AUTHORIZATION.as_str()).strip_prefix("Bearer ") {
        Some(token) => Identity::Token(token.trim().to_owned()),
        None => identity,
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Pairs behind the question mark; one that cannot be decoded is left as it is, and is no value of anything then.
fn query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let decode = |part: &str| super::table::decode(part).unwrap_or_else(|| part.to_owned());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn plain(status: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    let fault = super::Fault::invalid(reason);
    json(status, fault.body().to_string())
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
