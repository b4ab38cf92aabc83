//! The control API: HTTP/1.1 and JSON on a Unix socket.
//!
//! Owns routes, parsing, the audit line of every verb and the way from a fault to an API error. Must not decide
//! anything: each handler is one call of [`Host`]. Verbs block, so they run on threads that may wait.

mod answer;
mod extract;
mod kmip;
mod listen;
mod openapi;
mod routes;
mod serve;
mod tpm;

pub use answer::{api_error, status};
pub use listen::{Gate, Peer, bind};
pub use openapi::document;
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

/// The routes, over this host.
pub fn router(host: Arc<Host>) -> axum::Router {
    routes::all()
        .merge(kmip::all())
        .merge(tpm::all())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn(whole_body))
        .with_state(host)
}

/// Reads the body before anything is answered. An answer that comes earlier closes the connection, and a client
/// that is still sending takes that for a lost one.
async fn whole_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let read = tokio::time::timeout(BODY_WAIT, axum::body::to_bytes(body, MAX_BODY)).await;
    let reason = match read {
        Ok(Ok(bytes)) => return next.run(Request::from_parts(parts, bytes.into())).await,
        Ok(Err(e)) => format!("{e} (the limit is {MAX_BODY} bytes)"),
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
        let audit = Audit { peer: self.peer, verb, target, is_told: false };
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
        match &outcome {
            Ok(_) => tracing::info!(
                target: "hostd::audit", uid = peer.uid, pid = peer.pid, verb, on = target, outcome = "done"
            ),
            Err(fault) => self.refused(&fault.to_string()),
        }
        self.is_told = true;
        outcome
    }

    fn refused(&self, reason: &str) {
        let Self { peer, verb, target, .. } = self;
        tracing::warn!(
            target: "hostd::audit", uid = peer.uid, pid = peer.pid, verb, on = target,
            outcome = "refused", reason
        );
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
