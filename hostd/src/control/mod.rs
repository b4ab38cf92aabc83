//! The control API: HTTP/1.1 and JSON on a Unix socket, and for a control plane on a TLS port.
//!
//! Owns routes, parsing, the audit line of every verb and the way from a fault to an API error. Must not decide
//! anything: each handler is one call of [`Host`]. Verbs block, so they run on threads that may wait.

mod answer;
mod extract;
mod kmip;
mod listen;
mod openapi;
mod plane;
mod port;
mod routes;
mod serve;
mod tpm;

pub use answer::{api_error, status};
pub use listen::{Gate, Peer, bind};
pub use openapi::document;
pub use port::{Port, Times};
pub use serve::{CLIENT_WAIT, serve};

use crate::asker::Asker;
use crate::fault::Fault;
use crate::host::Host;
use answer::Refused;
use axum::Json;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hostd_api::error::ErrorCode;
use std::sync::Arc;
use std::time::Duration;

/// Largest request body in bytes: a request has a name and a few numbers.
const MAX_BODY: usize = 64 * 1024;

/// How long the body of a request may take to arrive; it comes from a process of this host.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// The routes of the Unix socket, over this host.
pub fn router(host: Arc<Host>) -> axum::Router {
    over(host, routes::all().merge(kmip::all()).merge(tpm::all()), MAX_BODY)
}

/// The routes of the port for the control plane; none of the others can be reached there.
pub fn plane_router(host: Arc<Host>) -> axum::Router {
    over(host, plane::all(), port::MAX_BODY)
}

fn over(host: Arc<Host>, routes: axum::Router<Arc<Host>>, max_body: usize) -> axum::Router {
    routes
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn(move |request, next| whole_body(max_body, request, next)))
        .with_state(host)
}

/// Reads the body before anything is answered. An answer that comes earlier closes the connection, and a client
/// that is still sending takes that for a lost one.
async fn whole_body(max: usize, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let read = tokio::time::timeout(BODY_WAIT, axum::body::to_bytes(body, max)).await;
    let reason = match read {
        Ok(Ok(bytes)) => return next.run(Request::from_parts(parts, bytes.into())).await,
        Ok(Err(e)) => format!("{e} (the limit is {max} bytes)"),
        Err(_) => format!("it did not arrive within {} s", BODY_WAIT.as_secs()),
    };
    let message = format!("the body of the request is wrong: {reason}");
    Refused(Fault::invalid(message, "see GET /v1/openapi.json")).into_response()
}

async fn no_route(uri: axum::http::Uri) -> Refused {
    Refused(Fault::refused(
        ErrorCode::NotFound,
        format!("there is no {} in this API", uri.path()),
        "see GET /v1/openapi.json",
    ))
}

async fn no_method(method: axum::http::Method, uri: axum::http::Uri) -> Refused {
    Refused(Fault::invalid(
        format!("{} cannot be used with {method}", uri.path()),
        "see GET /v1/openapi.json",
    ))
}

/// One request: the host and who asks.
pub(crate) struct Call {
    host: Arc<Host>,
    peer: Peer,
}

impl Call {
    /// Runs a verb that changes something on a thread that may wait, and writes the audit line.
    async fn run<T, F>(
        self,
        verb: &'static str,
        target: String,
        work: F,
    ) -> Result<Json<T>, Refused>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Host>) -> Result<T, Fault> + Send + 'static,
    {
        self.run_for(verb, target, move |host, _| work(host)).await
    }

    /// The same for a verb that takes long, and ends early when its client has left: this future goes with the
    /// connection then. The audit line is written all the same.
    async fn run_for<T, F>(
        self,
        verb: &'static str,
        target: String,
        work: F,
    ) -> Result<Json<T>, Refused>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Host>, &Asker) -> Result<T, Fault> + Send + 'static,
    {
        let audit = Audit { peer: self.peer.clone(), verb, target, is_told: false };
        let asker = Asker::default();
        let _waiting = asker.waits();
        let outcome = self.wait(move |host| audit.of(work(host, &asker))).await;
        outcome.map(Json).map_err(Refused)
    }

    /// Runs a verb that only looks.
    async fn look<T, F>(self, work: F) -> Result<Json<T>, Refused>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Host>) -> Result<T, Fault> + Send + 'static,
    {
        self.wait(work).await.map(Json).map_err(Refused)
    }

    async fn wait<T, F>(self, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Host>) -> Result<T, Fault> + Send + 'static,
    {
        let done = tokio::task::spawn_blocking(move || work(&self.host)).await;
        done.unwrap_or_else(|e| Err(Fault::Bug(format!("a verb ended without an answer: {e}"))))
    }
}

/// The audit line of one verb.
struct Audit {
    peer: Peer,
    verb: &'static str,
    target: String,
    is_told: bool,
}

impl Audit {
    /// Writes it.
    fn of<T>(mut self, outcome: Result<T, Fault>) -> Result<T, Fault> {
        let Self { peer, verb, target, .. } = &self;
        match (&outcome, peer) {
            (Ok(_), Peer::Local { uid, pid }) => tracing::info!(
                target: "hostd::audit", uid, pid, verb, on = target, outcome = "done"
            ),
            (Ok(_), Peer::ControlPlane(name)) => tracing::info!(
                target: "hostd::audit", %name, verb, on = target, outcome = "done"
            ),
            (Err(fault), _) => self.refused(&fault.to_string()),
        }
        self.is_told = true;
        outcome
    }

    fn refused(&self, reason: &str) {
        let Self { peer, verb, target, .. } = self;
        match peer {
            Peer::Local { uid, pid } => tracing::warn!(
                target: "hostd::audit", uid, pid, verb, on = target, outcome = "refused", reason
            ),
            Peer::ControlPlane(name) => tracing::warn!(
                target: "hostd::audit", %name, verb, on = target, outcome = "refused", reason
            ),
        }
    }
}

impl Drop for Audit {
    /// A panic ends a verb without an outcome.
    fn drop(&mut self) {
        if !self.is_told {
            self.refused("the verb ended without an answer");
        }
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
