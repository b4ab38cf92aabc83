//! What one server is asked: the handful of calls that Coffer makes.
//!
//! Owns paths, bodies, and which answer belongs to which call. It must not know when to ask again. Flow: the cluster makes a [`Talk`] with a
//! server and gives it a token; the provider strings calls together. [`Talk::step`] says which one was last, for messages.

use super::answer::{Answer, Asked, KeyFacts, Login};
use super::fault::BaoFault;
use super::node::{Node, Over};
use super::request::{Body, Request};
use super::wrapped::Shape;
use crypto::{Arena, OpaqueKey, Wrapped};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroizing;

/// Where things are on the servers, the same on all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// The transit engine.
    pub(super) mount: String,
    /// The auth method of certificates.
    pub(super) auth_mount: String,
    /// The role to log in by; the server looks for one that fits when it is `None`.
    pub(super) role: Option<String>,
    /// The namespace of both.
    pub(super) namespace: Option<String>,
}

/// A conversation with one server.
pub(super) struct Talk<'a> {
    pub(super) node: &'a Node,
    pub(super) places: &'a Places,
    pub(super) token: Option<Arc<Zeroizing<String>>>,
    pub(super) end: Instant,
    step: Cell<&'static str>,
}

impl<'a> Talk<'a> {
    pub(super) fn new(node: &'a Node, places: &'a Places, end: Instant) -> Self {
        Self { node, places, token: None, end, step: Cell::new("connecting") }
    }

    /// What was asked last.
    pub(super) fn step(&self) -> &'static str {
        self.step.get()
    }

    /// Logs in by the certificate that the connection shows.
    pub(super) fn login(&self) -> Result<Login, BaoFault> {
        self.step.set("log-in by certificate");
        let mount = &self.places.auth_mount;
        let name = self.places.role.as_deref();
        let body = name.map_or_else(|| Body::texts(&[]), |name| Body::texts(&[("name", name)]));
        let path = format!("auth/{mount}/login");
        let request = Request {
            method: "POST",
            path: &path,
            token: None,
            namespace: self.places.namespace.as_deref(),
            body,
        };
        let asked = Asked { mount, name: name.unwrap_or("any role"), needed: "" };
        let answer = self.node.exchange(&request, Over::Kept, self.end)?;
        let status = answer.status();
        let mount = format!("auth/{mount}");
        answer
            .checked(&asked)
            .map_err(|fault| match fault {
                BaoFault::Forbidden { message, .. } | BaoFault::Refused { message, .. } => {
                    BaoFault::LoginRefused { status, message, mount }
                }
                other => other,
            })?
            .login()
    }

    /// The state of a key that can be used.
    pub(super) fn key(&self, name: &str) -> Result<KeyFacts, BaoFault> {
        self.call("reading the key", "GET", "keys", name, "", Body::default(), Over::Kept)?
            .key(name)
    }

    /// Makes a key; one that is there stays as it is.
    pub(super) fn make(&self, name: &str) -> Result<(), BaoFault> {
        let body = Body::texts(&[("type", "aes256-gcm96")]);
        self.call("making the key", "POST", "keys", name, "", body, Over::Kept).map(drop)
    }

    /// Gives a key a new version, and says which; older servers do not say it. Not to be repeated blindly.
    pub(super) fn rotate(&self, name: &str) -> Result<Option<u64>, BaoFault> {
        let body = Body::default();
        let answer =
            self.call("rotating the key", "POST", "keys", name, "/rotate", body, Over::New)?;
        if answer.status() == 204 { Ok(None) } else { Ok(Some(answer.key(name)?.version)) }
    }

    /// Wraps a data key.
    pub(super) fn encrypt(
        &self,
        name: &str,
        data: &OpaqueKey,
        bound: &str,
    ) -> Result<(Wrapped, Shape), BaoFault> {
        let body = Body::plaintext(data, bound);
        let answer = self.call("encrypt", "POST", "encrypt", name, "", body, Over::Kept)?;
        answer.ciphertext(data.key_len())
    }

    /// Opens a wrap, whose text is one that [`Shape`] has looked at.
    pub(super) fn decrypt(
        &self,
        name: &str,
        wrapped: &Wrapped,
        bound: &str,
        arena: &Arena,
    ) -> Result<OpaqueKey, BaoFault> {
        let unfit = BaoFault::Unfitting("the wrap is none of a transit engine");
        let Some(shape) = Shape::of_wrapped(wrapped) else { return Err(unfit) };
        let bound = crate::kmip::pem::base64(bound.as_bytes());
        let text = String::from_utf8_lossy(&wrapped.blob);
        let body = Body::texts(&[("ciphertext", &text), ("associated_data", &bound)]);
        let answer = self.call("decrypt", "POST", "decrypt", name, "", body, Over::Kept)?;
        answer.plaintext(shape.key_len, arena)
    }

    /// The state of the server as the status of its answer: 200 active, 429 and 473 standby, 503 sealed and so on. Asked without a token.
    pub(super) fn health(&self) -> Result<u16, BaoFault> {
        self.step.set("asking for its health");
        let request = Request {
            method: "GET",
            path: "sys/health",
            token: None,
            namespace: None,
            body: Body::default(),
        };
        Ok(self.node.exchange(&request, Over::Kept, self.end)?.status())
    }

    #[expect(clippy::too_many_arguments, reason = "private, and each is one part of the request")]
    fn call(
        &self,
        step: &'static str,
        method: &'static str,
        verb: &str,
        name: &str,
        suffix: &str,
        body: Body<'_>,
        over: Over,
    ) -> Result<Answer, BaoFault> {
        self.step.set(step);
        let mount = &self.places.mount;
        let path = format!("{mount}/{verb}/{name}{suffix}");
        let right = if method == "GET" { "read" } else { "update" };
        let needed = format!("{right} on {path}");
        let token = self.token.as_ref().map(|token| token.as_str());
        let namespace = self.places.namespace.as_deref();
        let request = Request { method, path: &path, token, namespace, body };
        let answer = self.node.exchange(&request, over, self.end)?;
        answer.checked(&Asked { mount, name, needed: &needed })
    }
}
