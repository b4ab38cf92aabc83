//! The other routes: joining, the calling host itself, the audit log, and the document.
//!
//! Owns what each of them reads and writes. A host learns who controld is from its join token before it sends anything; what it sends is
//! proven by the token, later by its certificate.

use super::things::json_of;
use super::{Call, Fault, openapi as document};
use crate::audit::{Head, Trouble, export, verify};
use crate::inventory::{Held, Host, Inventory, Name, Record};
use crate::pki::{Issued, Joining, Member, Role};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{self, Write};
use utoipa::ToSchema;

/// Most bytes of the audit log in one answer; who wants more asks again from the next line on.
const EXPORT: usize = 4 << 20;

/// Seconds that a join token is good for when nothing is said.
const JOIN_LIFE: u64 = 3600;

/// Longest HPKE public key that is taken, in hex digits: the largest of RFC 9180 section 7.1 (P-521) has 133 bytes; hybrid ones are larger.
const MAX_HPKE: usize = 4096;

type Done = Result<Value, Fault>;

/// Body of `host.invite`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Invite {
    /// Name of the host that may join.
    #[schema(value_type = String)]
    pub(super) host: Name,
    /// How long the token is good for, in seconds; an hour when absent.
    #[serde(default)]
    pub(super) life: Option<u64>,
}

/// Body of `host.join`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Join {
    /// The last part of the token.
    pub(super) secret: String,
    /// A certificate request (PKCS #10), PEM.
    pub(super) request: String,
    /// Where controld reaches the host, `HOST:PORT`.
    #[serde(default)]
    pub(super) address: Option<String>,
    /// Its public HPKE key, hex.
    #[serde(default)]
    pub(super) hpke_key: Option<String>,
}

/// Body of `host.renew`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Renew {
    /// A certificate request (PKCS #10), PEM.
    pub(super) request: String,
}

/// Body of `host.publish`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    /// Where controld reaches the host, `HOST:PORT`; kept when absent.
    #[serde(default)]
    pub(super) address: Option<String>,
    /// Its public HPKE key, hex; a new one with each start.
    pub(super) hpke_key: String,
}

pub(super) fn openapi(_: &Call<'_>) -> Done {
    json_of(&document::document())
}

pub(super) fn invite(call: &Call<'_>) -> Done {
    let body: Invite = call.body()?;
    let service = call.service;
    let cluster: Name = call.part(0)?;
    service.inventory.get::<crate::inventory::Cluster>(cluster.as_str())?;
    let joining = Joining { host: body.host, cluster, until: 0 };
    let life = body.life.unwrap_or(JOIN_LIFE);
    let ca = service.ca.sha256();
    let token = service.joins.make(&service.site, &ca, &joining, life, call.now)?;
    Ok(json!({ "host": joining.host, "until": call.now + life, "token": token.text() }))
}

pub(super) fn join(call: &Call<'_>) -> Done {
    let body: Join = call.body()?;
    let hpke_key = body.hpke_key.as_deref().map(hpke).transpose()?;
    let service = call.service;
    // Used up before anything is made: whatever fails later, the token is spent.
    let joining = service.joins.redeem(&body.secret, call.now)?;
    let issued = sign(call, &body.request, &joining.host)?;
    let host = Host {
        name: joining.host.clone(),
        cluster: joining.cluster,
        address: body.address,
        certificate: issued.sha256.clone(),
        previous_certificate: None,
        certificate_until: issued.until,
        hpke_key,
        joined_at: call.now,
    };
    // A host that was there joins anew: an administrator has made a token for it.
    let held = found(&service.inventory, &host)?;
    service.inventory.put(&host, held.as_ref())?;
    Ok(certified(call, &issued, &host))
}

pub(super) fn renew(call: &Call<'_>) -> Done {
    let body: Renew = call.body()?;
    let held: Held<Host> = call.service.inventory.get(&call.pass.name)?;
    let issued = sign(call, &body.request, &held.record.name)?;
    let used = match &call.asked.identity {
        crate::rights::Identity::Certificate { sha256, .. } => Some(sha256.clone()),
        _ => None,
    };
    let host = Host {
        certificate: issued.sha256.clone(),
        previous_certificate: used,
        certificate_until: issued.until,
        ..held.record.clone()
    };
    call.service.inventory.put(&host, Some(&held))?;
    Ok(certified(call, &issued, &host))
}

pub(super) fn publish(call: &Call<'_>) -> Done {
    let body: Publish = call.body()?;
    let held: Held<Host> = call.service.inventory.get(&call.pass.name)?;
    let address = body.address.or_else(|| held.record.address.clone());
    let host = Host { address, hpke_key: Some(hpke(&body.hpke_key)?), ..held.record.clone() };
    call.service.inventory.put(&host, Some(&held))?;
    json_of(&host)
}

pub(super) fn export_audit(call: &Call<'_>) -> Done {
    let from = call.option("from")?.unwrap_or(1);
    let mut out = Bounded::default();
    let exported = export(call.service.audit.log().folder(), from, &mut out)?;
    let lines: Result<Vec<Value>, _> = out
        .text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect();
    let lines = lines.map_err(|e| Fault::Bug(e.to_string()))?;
    let trouble = exported.err().map(|trouble| trouble.to_string());
    Ok(json!({ "lines": lines, "more": out.is_full, "trouble": trouble }))
}

pub(super) fn verify_audit(call: &Call<'_>) -> Done {
    let seq = call.option("seq")?;
    let hash = call.option("hash")?;
    let anchor = match (seq, hash) {
        (Some(seq), Some(hash)) => Some(Head { seq, hash }),
        (None, None) => Some(call.service.audit.head()?),
        _ => return Err(Fault::invalid("seq and hash go together")),
    };
    match verify(call.service.audit.log().folder(), anchor.as_ref())? {
        Ok(report) => Ok(json!({ "holds": true, "report": report })),
        // A line that is being written just now has no end yet.
        Err(Trouble::Torn { .. }) => Err(Fault::invalid("a line is being written; try again")),
        Err(trouble) => Ok(json!({ "holds": false, "trouble": trouble.to_string() })),
    }
}

fn sign(call: &Call<'_>, request: &str, host: &Name) -> Result<Issued, Fault> {
    let service = call.service;
    let member = Member { site: service.site.clone(), role: Role::Host, name: host.clone() };
    Ok(service.ca.sign(request, &member, call.now)?)
}

fn certified(call: &Call<'_>, issued: &Issued, host: &Host) -> Value {
    let ca = call.service.ca.pem();
    json!({ "certificate": issued.pem, "ca": ca, "until": issued.until, "host": host.name, "cluster": host.cluster })
}

fn found(inventory: &Inventory, host: &Host) -> Result<Option<Held<Host>>, Fault> {
    match inventory.get(&host.place()) {
        Ok(held) => Ok(Some(held)),
        Err(crate::inventory::InventoryError::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A public key in hex, in lower case.
fn hpke(text: &str) -> Result<String, Fault> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && !text.is_empty() && text.len() <= MAX_HPKE && text.len().is_multiple_of(2) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Fault::invalid("hpke_key is no public key in hex"))
}

/// Takes whole lines until there are enough of them.
#[derive(Default)]
struct Bounded {
    text: Vec<u8>,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The line feed of a line that was taken comes by itself.
        if bytes != b"\n" && self.text.len() + bytes.len() > EXPORT {
            self.is_full = true;
        }
        if !self.is_full {
            self.text.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
