//! The TLS port that a control plane pushes keys to.
//!
//! Owns accepting, the handshake and its time, and who is let in; must not know routes. Flow: [`Port::serve`] takes one connection
//! after the other, and gives each a task: handshake, a look at the role in the client's certificate, HTTP. A client of the
//! right authority and the wrong role or cluster is told so by an answer, any other by a TLS alert.

use super::answer::Refused;
use super::{Peer, whole_body};
use crate::fault::Fault;
use crate::plane::ControlPlane;
use axum::extract::ConnectInfo;
use axum::{Extension, Router, middleware};
use cluster::{Identity, Loaded, Member, Role};
use cryptfs::quota::LogQuota;
use hostd_api::error::ErrorCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Most connections at a time; a cluster has a few control planes, and each opens one for a call. More wait in the kernel's
/// queue.
const MAX_CONNECTIONS: usize = 32;

/// Largest request body in bytes: a push of as many keys as are allowed at once, with the longest ids.
pub(super) const MAX_BODY: usize = hostd_api::control::MAX_PUSHED_AT_ONCE * 512;

/// What a client that was refused may still send before the connection is closed, in bytes. To close it with something
/// unread would make the kernel drop what says why.
const MAX_REST: u64 = 64 * 1024;

/// Pause after a failed accept: the usual reason is a lack of descriptors, which takes a moment to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long parts of a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The TLS handshake.
    pub handshake: Duration,
    /// The head of a request, counted from the handshake or from the answer before it.
    pub head: Duration,
    /// All of the connection: who reads its answer too slowly holds a place, too.
    pub whole: Duration,
    /// What follows a refused handshake.
    pub rest: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { handshake: seconds(10), head: seconds(10), whole: seconds(120), rest: seconds(1) }
    }
}

/// The listening port.
pub struct Port {
    socket: TcpListener,
    shared: Arc<Shared>,
}

/// What every connection needs.
struct Shared {
    identity: Arc<Identity>,
    routes: Router,
    times: Times,
    refusals: LogQuota,
}

impl Port {
    /// Listens for the control plane.
    ///
    /// # Errors
    /// A refusal with code `host-limit` that names the address.
    pub async fn bind(plane: &ControlPlane, routes: Router, times: Times) -> Result<Self, Fault> {
        let address = plane.listen();
        let socket = TcpListener::bind(address).await.map_err(|e| {
            Fault::refused(
                ErrorCode::HostLimit,
                format!("cannot listen on {address} for the control plane: {e}"),
                "choose another control.listen in the configuration",
            )
        })?;
        let identity = Arc::clone(plane.identity());
        let shared = Shared { identity, routes, times, refusals: LogQuota::default() };
        Ok(Self { socket, shared: Arc::new(shared) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Answers until `stop`. Connections end with the runtime: what was pushed is of no use after it.
    pub async fn serve(self, stop: impl Future) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = async {
                // The semaphore is never closed, so there is always a permit in the end.
                let permit = Arc::clone(&permits).acquire_owned().await.ok();
                (self.socket.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                accepted = accepted => accepted,
                _ = &mut stop => break,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!("a connection of the control plane failed: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                let talk = shared.talk(stream, from);
                if tokio::time::timeout(shared.times.whole, talk).await.is_err() {
                    shared.refused(from, "it was not done in time");
                }
                drop(permit);
            });
        }
    }
}

impl Shared {
    /// One connection, from the handshake to its end.
    async fn talk(&self, stream: TcpStream, from: SocketAddr) {
        let loaded = self.identity.now();
        let accept = TlsAcceptor::from(loaded.server()).accept(stream).into_fallible();
        let stream = match tokio::time::timeout(self.times.handshake, accept).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((e, stream))) => {
                self.refused(from, &e.to_string());
                let _late = tokio::time::timeout(self.times.rest, hang_up(stream)).await;
                return;
            }
            Err(_) => return self.refused(from, "the TLS handshake was not done in time"),
        };
        let routes = match who(&stream, &loaded) {
            Ok(member) => {
                let peer = Peer::ControlPlane(member.to_string().into());
                self.routes.clone().layer(Extension(ConnectInfo(peer)))
            }
            Err(reason) => {
                self.refused(from, &reason);
                denied(&reason)
            }
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.times.head);
        let service = TowerToHyperService::new(routes);
        if let Err(e) = http.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%from, "a connection of the control plane ended: {e}");
        }
    }

    /// Logs why a client was not served, within a limit: anybody on the network can make such lines.
    fn refused(&self, from: SocketAddr, reason: &str) {
        if let Some(unsaid) = self.refusals.admit(Instant::now()) {
            tracing::warn!(unsaid, "a client at the control port, {from}, was refused: {reason}");
        }
    }
}

/// Who the client is, or why it is not let in.
fn who(stream: &TlsStream<TcpStream>, loaded: &Loaded) -> Result<Member, String> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let first = certificates.first().ok_or("it showed no certificate")?;
    let member = Member::of(first).map_err(|e| e.to_string())?;
    member.is_a(Role::Controld, loaded.member().cluster()).map_err(|e| e.to_string())?;
    Ok(member)
}

/// The answer to everything for one who is not let in.
fn denied(reason: &str) -> Router {
    let reason = reason.to_owned();
    let remedy = "use a certificate of this cluster with a name coffer://CLUSTER/controld/NAME among its URIs";
    let answer = move || async move { Refused(Fault::refused(ErrorCode::Denied, reason, remedy)) };
    Router::new()
        .fallback(answer)
        .layer(middleware::from_fn(|request, next| whole_body(MAX_BODY, request, next)))
}

/// Ends a connection so that the last that was sent arrives.
async fn hang_up(mut stream: TcpStream) {
    if stream.shutdown().await.is_ok() {
        let mut rest = stream.take(MAX_REST);
        let _count = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
