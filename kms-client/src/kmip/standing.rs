//! What is told of a provider: its health, its servers, and what an operator should act on.
//!
//! Owns the judgement over what the last check found. It asks nobody. Flow: the status is put together from the check, the ledger and the
//! dates of the certificates each time it is asked for.

use super::cluster::Member;
use super::provider::{Inner, lock};
use crate::{Health, ProviderStatus, ServerStatus};

/// Days before a certificate runs out from which on it is an alarm.
const WARN_DAYS: i64 = 30;

impl Inner {
    pub(super) fn status(&self) -> ProviderStatus {
        let servers = self.servers();
        let (health, detail) = health(&servers);
        let days = self.identity.expiries().certificate.map(|v| v.days_left((self.clock)()));
        ProviderStatus {
            kind: "kmip",
            health,
            backed_up_at: None,
            demo: false,
            detail,
            alarms: self.alarms(&servers, days),
            differences: self.ledger.differences((self.clock)()),
            certificate_days: days,
            servers,
        }
    }

    /// What the last check found; before the first one, the addresses alone.
    fn servers(&self) -> Vec<ServerStatus> {
        let checked = lock(&self.checked).clone();
        if !checked.is_empty() {
            return checked;
        }
        let unknown = |member: &Member| ServerStatus {
            address: member.node.address(),
            detail: "not checked yet".to_owned(),
            ..ServerStatus::default()
        };
        self.cluster.members.iter().map(|member| unknown(member)).collect()
    }

    fn alarms(&self, servers: &[ServerStatus], days: Option<i64>) -> Vec<String> {
        let mut alarms = self.ledger.alarms((self.clock)());
        let trusted = self.identity.expiries().trusted.map(|v| v.days_left((self.clock)()));
        alarms.extend(alarms_of(servers, days, trusted));
        alarms.extend(lock(&self.file_problem).clone());
        alarms
    }
}

/// What the servers of a provider can do together, and one sentence on it.
pub(crate) fn health(servers: &[ServerStatus]) -> (Health, String) {
    if servers.iter().all(|server| server.checked_at.is_none()) {
        return (Health::Ready, "its servers were not checked yet".to_owned());
    }
    let gives =
        |server: &&ServerStatus| server.up != Some(false) && server.key_fetched != Some(false);
    let good: Vec<_> = servers.iter().filter(gives).collect();
    let count = format!("{} of {} servers give keys", good.len(), servers.len());
    if good.is_empty() {
        let reasons: Vec<_> = servers.iter().map(|server| server.detail.as_str()).collect();
        return (Health::Unavailable, format!("{count}: {}", reasons.join("; ")));
    }
    if good.iter().all(|server| server.read_only) {
        return (Health::FetchOnly, format!("{count}, but none of them makes any"));
    }
    (Health::Ready, count)
}

/// What an operator should act on, but for what only one kind of provider knows. `ours` and `trusted` are the days that our certificate
/// and what we trust are still valid.
pub(crate) fn alarms_of(
    servers: &[ServerStatus],
    ours: Option<i64>,
    trusted: Option<i64>,
) -> Vec<String> {
    let mut alarms = Vec::new();
    let soon = |days: &i64| *days < WARN_DAYS;
    alarms.extend(ours.filter(soon).map(|days| expiry("our client certificate", days)));
    let what = "an authority or pinned certificate of the key servers";
    alarms.extend(trusted.filter(soon).map(|days| expiry(what, days)));
    for server in servers {
        let what = format!("the certificate of {}", server.address);
        alarms.extend(server.certificate_days.filter(soon).map(|days| expiry(&what, days)));
        if server.up == Some(false) || server.key_fetched == Some(false) {
            alarms.push(server.detail.clone());
        }
    }
    alarms
}

fn expiry(what: &str, days: i64) -> String {
    if days < 0 {
        return format!("{what} ran out {} days ago", days.unsigned_abs());
    }
    format!("{what} runs out in {days} days")
}
