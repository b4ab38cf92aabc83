//! Requests on the connections of the control socket.
//!
//! Owns HTTP on a connection and the time that a client has for a request; must not know routes. Flow: [`serve`]
//! takes one connection after the other from the gate, gives each a task, and on a stop waits for the requests that
//! are being answered.

use super::{Gate, Peer};
use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::time::Duration;

/// How long the head of a request may take, counted from the connection or from the answer before it, and how long a
/// client may take nothing of an answer. Clients are processes of this host; one that is silent for longer holds a
/// place that others wait for.
pub const CLIENT_WAIT: Duration = Duration::from_secs(10);

/// Answers requests until `stop`, then ends idle connections and waits for the others. For `client_wait`, see
/// [`CLIENT_WAIT`].
pub async fn serve(gate: Gate, routes: Router, client_wait: Duration, stop: impl Future) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(client_wait);
    let connections = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, peer): (_, Peer) = tokio::select! {
            accepted = gate.accept(client_wait) => accepted,
            _ = &mut stop => break,
        };
        let service =
            TowerToHyperService::new(routes.clone().layer(Extension(ConnectInfo(peer.clone()))));
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // A client that leaves early or says nothing is no event.
            if let Err(e) = connection.await {
                tracing::debug!(%peer, "a control connection ended: {e}");
            }
        });
    }
    drop(gate);
    connections.shutdown().await;
}
