//! The API: HTTP/1.1 and JSON over TLS, every route in one table with the privilege that it needs.
//!
//! Owns the way of a request: find the route, name the caller, check the privilege, write the audit line, act, answer. Must not know
//! how anything is done: a handler is a few calls of `inventory`, `rights` and `pki`. Flow: `http` -> [`Service::answer`] -> [`table::ROUTES`] -> a handler of
//! `routes` -> [`Fault`] or JSON.

mod audited;
mod fault;
mod http;
mod openapi;
mod people;
mod routes;
pub mod table;
mod things;

pub use audited::{Auditor, anchor_key};
pub use fault::Fault;
pub use http::{Limits, serve};
pub use openapi::document;
pub use table::{Access, Route};

use crate::audit::{Outcome, Target};
use crate::inventory::{Host, Inventory, Name};
use crate::pki::{Ca, Joins, Member, Role};
use crate::rights::{Identity, Pass, Refusal, Rights, RightsError};
use crate::store::Store;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

/// Everything that a request needs.
pub struct Service {
    /// The site: everything under one CA.
    pub site: Name,
    /// The inventory.
    pub inventory: Inventory,
    /// Rights.
    pub rights: Rights,
    /// Tokens of hosts that are to join.
    pub joins: Joins,
    /// The authority.
    pub ca: Ca,
    /// The audit log.
    pub audit: Auditor,
    /// Seconds since 1970.
    pub clock: fn() -> u64,
}

/// One request, read.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// The path, without what comes after the question mark.
    pub path: String,
    /// What comes after the question mark, decoded.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Who asks.
    pub identity: Identity,
    /// Address of the other end.
    pub address: String,
    /// Why, in the words of who asks (`coffer-why`).
    pub why: String,
    /// An approval that is to be used (`coffer-approval`).
    pub approval: Option<String>,
}

/// A request on its way through a handler.
pub struct Call<'a> {
    /// Everything.
    pub service: &'a Service,
    /// What was asked.
    pub asked: &'a Asked,
    /// Who asks.
    pub pass: Pass,
    /// The parts of the path that have names, in order.
    pub parts: Vec<String>,
    /// Seconds since 1970.
    pub now: u64,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// JSON.
    pub body: Value,
}

impl Service {
    /// Everything over one store.
    #[must_use]
    pub fn new(
        store: &Arc<dyn Store>,
        site: Name,
        ca: Ca,
        audit: Auditor,
        clock: fn() -> u64,
    ) -> Self {
        Self {
            site,
            inventory: Inventory::new(Arc::clone(store)),
            rights: Rights::new(Arc::clone(store)),
            joins: Joins::new(Arc::clone(store)),
            ca,
            audit,
            clock,
        }
    }

    /// Answers a request. It may wait for store and disk, so it is called on a thread that may.
    #[must_use]
    pub fn answer(&self, asked: &Asked) -> Answer {
        match self.try_answer(asked) {
            Ok(answer) => answer,
            Err(fault) => {
                if fault.status() == StatusCode::INTERNAL_SERVER_ERROR {
                    tracing::error!("{} {}: {fault}", asked.method, asked.path);
                }
                Answer { status: fault.status(), body: fault.body() }
            }
        }
    }

    fn try_answer(&self, asked: &Asked) -> Result<Answer, Fault> {
        let (route, parts) = table::find(&asked.method, &asked.path)?;
        let now = (self.clock)();
        let target = target(route, &parts);
        let pass = match self.admit(route, &parts, asked, now) {
            Ok(pass) => pass,
            Err(fault) => {
                let outcome = match &fault {
                    Fault::Rights(RightsError::Refused(_)) => Outcome::Denied(fault.to_string()),
                    other => Outcome::Failed(other.to_string()),
                };
                self.audit.denied(asked, route.verb, target, outcome, now)?;
                return Err(fault);
            }
        };
        let call = Call { service: self, asked, pass, parts, now };
        if !route.changes {
            return (route.handler)(&call).map(ok);
        }
        if route.two_people
            && let Some(waiting) = call.second_person(route)?
        {
            return Ok(waiting);
        }
        self.audit.write(asked, &call.pass, route.verb, &target, Outcome::Begun, now)?;
        let done = (route.handler)(&call);
        let outcome = match &done {
            Ok(_) => Outcome::Done,
            Err(fault) => Outcome::Failed(fault.to_string()),
        };
        self.audit.write(asked, &call.pass, route.verb, &target, outcome, (self.clock)())?;
        done.map(ok)
    }

    /// Whether the caller may use the route.
    fn admit(
        &self,
        route: &Route,
        parts: &[String],
        asked: &Asked,
        now: u64,
    ) -> Result<Pass, Fault> {
        match route.access {
            Access::Anybody => Ok(Pass { name: String::new(), by: asked.identity.kind() }),
            Access::Host => self.host_pass(&asked.identity),
            Access::Needs(privilege) => {
                let cluster = route.cluster_in(parts).map(str::parse::<Name>).transpose();
                let cluster = cluster.map_err(|e| Fault::invalid(e.to_string()))?;
                Ok(self.rights.check(&asked.identity, privilege, cluster.as_ref(), now)?)
            }
        }
    }

    /// A host that the inventory knows, by the certificate that it has now or had before the last renewal.
    fn host_pass(&self, identity: &Identity) -> Result<Pass, Fault> {
        let unknown = || {
            let who = "this caller, as a host".to_owned();
            Fault::Rights(RightsError::Refused(Refusal::Unknown { who }))
        };
        let Identity::Certificate { sha256, uris } = identity else { return Err(unknown()) };
        let members = uris.iter().filter_map(|uri| Member::parse(uri));
        let member = members.into_iter().find(|m| m.role == Role::Host && m.site == self.site);
        let name = member.ok_or_else(unknown)?.name;
        let host = match self.inventory.get::<Host>(name.as_str()) {
            Ok(held) => held.record,
            Err(crate::inventory::InventoryError::NotFound { .. }) => return Err(unknown()),
            Err(e) => return Err(e.into()),
        };
        let known =
            host.certificate == *sha256 || host.previous_certificate.as_ref() == Some(sha256);
        if !known {
            return Err(unknown());
        }
        Ok(Pass { name: name.to_string(), by: "certificate" })
    }
}

impl Call<'_> {
    /// A part of the path that has a name, as what it must be.
    pub(crate) fn part<T: std::str::FromStr>(&self, index: usize) -> Result<T, Fault>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.parts.get(index).map_or("", String::as_str);
        text.parse().map_err(|e: T::Err| Fault::invalid(e.to_string()))
    }

    /// The body.
    pub(crate) fn body<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        let text: &[u8] = if self.asked.body.is_empty() { b"{}" } else { &self.asked.body };
        serde_json::from_slice(text).map_err(|e| Fault::invalid(format!("the body is wrong: {e}")))
    }

    /// An option behind the question mark.
    pub(crate) fn option<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Fault> {
        let found = self.asked.query.iter().find(|(key, _)| key == name);
        let parsed = found.map(|(_, text)| text.parse().map_err(|_| text));
        parsed
            .transpose()
            .map_err(|text| Fault::invalid(format!("{name}={text} is no value for it")))
    }

    /// Without an approval to use, asks for one, and that is the answer. With one, uses it up.
    fn second_person(&self, route: &Route) -> Result<Option<Answer>, Fault> {
        let (rights, asked) = (&self.service.rights, self.asked);
        if let Some(id) = &asked.approval {
            rights.use_up(&self.pass, id, route.verb, &asked.path, &asked.body, self.now)?;
            return Ok(None);
        }
        let approval =
            rights.ask(&self.pass, route.verb, &asked.path, &asked.body, &asked.why, self.now)?;
        let other = Some(format!("{} with the request {}", asked.path, approval.id));
        let target = Target { other, ..Target::default() };
        let audit = &self.service.audit;
        audit.write(asked, &self.pass, "approval.ask", &target, Outcome::Done, self.now)?;
        Ok(Some(Answer { status: StatusCode::ACCEPTED, body: json!({ "approval": approval }) }))
    }
}

/// What the audit log says of the parts of a path.
fn target(route: &Route, parts: &[String]) -> Target {
    let mut target = Target::default();
    for (name, part) in route.names().zip(parts) {
        match name {
            "key" => target.key_id = Some(part.clone()),
            "vm" => target.vm = Some(part.clone()),
            "host" => target.host = Some(part.clone()),
            _ => {
                let other = target.other.get_or_insert_default();
                if !other.is_empty() {
                    other.push(' ');
                }
                other.push_str(&format!("{name} {part}"));
            }
        }
    }
    target
}

fn ok(body: Value) -> Answer {
    Answer { status: StatusCode::OK, body }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
