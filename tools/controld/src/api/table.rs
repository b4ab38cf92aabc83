//! The table of routes: method, path, who may, what it does.
//!
//! Owns the only list there is: requests are found in it, privileges are checked by it, the OpenAPI document is made of it, and a test walks it. A part
//! `{name}` takes one segment of the path, decoded; `{key}` takes two, a key id.

use super::{Call, Fault, people, routes, things};
use crate::rights::Privilege;
use hyper::Method;
use serde_json::Value;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody who can connect: what is asked proves itself, or is no secret.
    Anybody,
    /// A host of the inventory, for itself.
    Host,
    /// Who has this privilege, in the cluster of the path where one is named.
    Needs(Privilege),
}

/// A route.
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path, with `{name}` for what varies.
    pub path: &'static str,
    /// Its name in the audit log and in OpenAPI.
    pub verb: &'static str,
    /// Who may.
    pub access: Access,
    /// It changes something, so the audit log tells of it before and after.
    pub changes: bool,
    /// Somebody else must allow it first.
    pub two_people: bool,
    /// One sentence for people.
    pub summary: &'static str,
    /// What it does.
    pub handler: fn(&Call<'_>) -> Result<Value, Fault>,
}

impl Route {
    const fn new(
        method: Method,
        path: &'static str,
        verb: &'static str,
        access: Access,
        summary: &'static str,
        handler: fn(&Call<'_>) -> Result<Value, Fault>,
    ) -> Self {
        Self { method, path, verb, access, changes: true, two_people: false, summary, handler }
    }

    const fn looks(mut self) -> Self {
        self.changes = false;
        self
    }

    const fn by_two(mut self) -> Self {
        self.two_people = true;
        self
    }

    /// Names of the parts that vary.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let parts = self.path.split('/');
        parts.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    /// The cluster that a path names.
    #[must_use]
    pub fn cluster_in<'p>(&self, parts: &'p [String]) -> Option<&'p str> {
        let at = self.names().position(|name| name == "cluster")?;
        parts.get(at).map(String::as_str)
    }
}

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

const fn needs(privilege: Privilege) -> Access {
    Access::Needs(privilege)
}

use Privilege::{
    Approve, ManageEncryptionPolicy, ManageInventory, ManageKeyServers, ManageKeys, ManageRights,
    Read, ReadAudit, ReadKeyServersInfo, RegisterHost, RegisterVm,
};

/// All routes.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    Route::new(GET, "/v1/openapi.json", "openapi", Access::Anybody, "This document", routes::openapi).looks(),
    Route::new(POST, "/v1/join", "host.join", Access::Anybody, "Join as a host, with a one-time token", routes::join),
    Route::new(POST, "/v1/host/renew", "host.renew", Access::Host, "Renew the certificate of the calling host", routes::renew),
    Route::new(POST, "/v1/host/publish", "host.publish", Access::Host, "Publish address and HPKE key of the calling host", routes::publish),
    Route::new(GET, "/v1/clusters", "cluster.list", needs(Read), "All clusters", things::clusters).looks(),
    Route::new(PUT, "/v1/clusters/{cluster}", "cluster.put", needs(ManageInventory), "Make or change a cluster", things::put_cluster),
    Route::new(DELETE, "/v1/clusters/{cluster}", "cluster.remove", needs(ManageInventory), "Remove an empty cluster", things::remove_cluster),
    Route::new(POST, "/v1/clusters/{cluster}/join-tokens", "host.invite", needs(RegisterHost), "Make a one-time token by which a host joins", routes::invite),
    Route::new(GET, "/v1/hosts", "host.list", needs(Read), "All hosts", things::hosts).looks(),
    Route::new(DELETE, "/v1/hosts/{host}", "host.remove", needs(RegisterHost), "Remove a host; its certificate is worth nothing here any more", things::remove_host),
    Route::new(GET, "/v1/clusters/{cluster}/vms", "vm.list", needs(Read), "VMs of a cluster, in pages", things::vms).looks(),
    Route::new(GET, "/v1/clusters/{cluster}/vms/{vm}", "vm.show", needs(Read), "One VM", things::show_vm).looks(),
    Route::new(PUT, "/v1/clusters/{cluster}/vms/{vm}", "vm.put", needs(RegisterVm), "Register or change a VM", things::put_vm),
    Route::new(DELETE, "/v1/clusters/{cluster}/vms/{vm}", "vm.remove", needs(RegisterVm), "Forget a VM and its disks", things::remove_vm),
    Route::new(GET, "/v1/clusters/{cluster}/vms/{vm}/disks", "disk.list", needs(Read), "Disks of a VM", things::disks).looks(),
    Route::new(PUT, "/v1/clusters/{cluster}/vms/{vm}/disks/{disk}", "disk.put", needs(RegisterVm), "Register or change a disk", things::put_disk),
    Route::new(DELETE, "/v1/clusters/{cluster}/vms/{vm}/disks/{disk}", "disk.remove", needs(RegisterVm), "Forget a disk", things::remove_disk),
    Route::new(GET, "/v1/policies", "policy.list", needs(Read), "All policies", things::policies).looks(),
    Route::new(PUT, "/v1/policies/{policy}", "policy.put", needs(ManageEncryptionPolicy), "Make or change a policy", things::put_policy),
    Route::new(DELETE, "/v1/policies/{policy}", "policy.remove", needs(ManageEncryptionPolicy), "Remove a policy", things::remove_policy),
    Route::new(GET, "/v1/providers", "provider.list", needs(ReadKeyServersInfo), "All key providers", things::providers).looks(),
    Route::new(PUT, "/v1/providers/{provider}", "provider.put", needs(ManageKeyServers), "Make or change a key provider", things::put_provider),
    Route::new(DELETE, "/v1/providers/{provider}", "provider.remove", needs(ManageKeyServers), "Remove a key provider", things::remove_provider),
    Route::new(GET, "/v1/keys/{key}/users", "key.users", needs(ReadKeyServersInfo), "What needs a key", things::key_users).looks(),
    Route::new(GET, "/v1/keys/{key}/verdict", "key.verdict", needs(ReadKeyServersInfo), "Whether a key may be destroyed", things::key_verdict).looks(),
    Route::new(POST, "/v1/keys/{key}/retire", "key.retire", needs(ManageKeys), "See to it that nothing needs a key and nothing will", things::retire_key).by_two(),
    Route::new(GET, "/v1/roles", "role.list", needs(Read), "All roles", people::roles).looks(),
    Route::new(PUT, "/v1/roles/{role}", "role.put", needs(ManageRights), "Make or change a custom role", people::put_role),
    Route::new(DELETE, "/v1/roles/{role}", "role.remove", needs(ManageRights), "Remove a custom role", people::remove_role),
    Route::new(GET, "/v1/bindings", "binding.list", needs(Read), "Who has which role", people::bindings).looks(),
    Route::new(POST, "/v1/bindings", "binding.put", needs(ManageRights), "Give somebody a role", people::bind),
    Route::new(POST, "/v1/bindings/remove", "binding.remove", needs(ManageRights), "Take a role away", people::unbind),
    Route::new(GET, "/v1/tokens", "token.list", needs(ManageRights), "All API tokens, without their secrets", people::tokens).looks(),
    Route::new(POST, "/v1/tokens", "token.make", needs(ManageRights), "Make an API token; its text is shown once", people::make_token),
    Route::new(DELETE, "/v1/tokens/{token}", "token.remove", needs(ManageRights), "End an API token", people::remove_token),
    Route::new(GET, "/v1/approvals", "approval.list", needs(Read), "Requests that need a second person", people::approvals).looks(),
    Route::new(POST, "/v1/approvals/{approval}/allow", "approval.allow", needs(Approve), "Allow what somebody else asked for", people::allow),
    Route::new(POST, "/v1/approvals/{approval}/refuse", "approval.refuse", needs(Approve), "Refuse a request", people::refuse),
    Route::new(GET, "/v1/audit", "audit.export", needs(ReadAudit), "Lines of the audit log", routes::export_audit).looks(),
    Route::new(GET, "/v1/audit/verify", "audit.verify", needs(ReadAudit), "Check the audit log", routes::verify_audit).looks(),
];

/// The route of a request, and the parts of its path.
pub(super) fn find(method: &Method, path: &str) -> Result<(&'static Route, Vec<String>), Fault> {
    let mut other_method = false;
    for route in ROUTES {
        let Some(parts) = fit(route.path, path) else { continue };
        if route.method == *method {
            return Ok((route, parts?));
        }
        other_method = true;
    }
    if other_method {
        return Err(Fault::invalid(format!("{path} cannot be used with {method}")));
    }
    Err(Fault::NoRoute(path.to_owned()))
}

/// The parts, when the path fits; the inner error is a part that cannot be decoded.
fn fit(template: &str, path: &str) -> Option<Result<Vec<String>, Fault>> {
    let mut given = path.split('/');
    let mut parts = Vec::new();
    for wanted in template.split('/') {
        let segment = given.next()?;
        match wanted {
            "{key}" => parts.push(format!("{segment}/{}", given.next()?)),
            _ if wanted.starts_with('{') => parts.push(segment.to_owned()),
            _ if wanted == segment => {}
            _ => return None,
        }
    }
    if given.next().is_some() {
        return None;
    }
    let decoded = parts.iter().map(|part| {
        decode(part)
            .ok_or_else(|| Fault::invalid(format!("{part:?} in the path cannot be decoded")))
    });
    Some(decoded.collect())
}

/// Percent-decoding (RFC 3986 section 2.1).
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}
