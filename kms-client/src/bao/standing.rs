//! What is told of a provider: its health, its servers, and what an operator should act on.
//!
//! Owns how it is put together from the last check, what is remembered of keys, and the dates of the certificates. It asks nobody.

use super::cluster::Member;
use super::provider::{Inner, lock};
use crate::kmip::standing::{alarms_of, health};
use crate::{ProviderStatus, ServerStatus};

impl Inner {
    pub(super) fn status(&self) -> ProviderStatus {
        let servers = self.servers();
        let (health, detail) = health(&servers);
        let expiries = self.identity.expiries();
        let [ours, trusted] = [expiries.certificate, expiries.trusted]
            .map(|validity| validity.map(|validity| validity.days_left((self.clock)())));
        let mut alarms = alarms_of(&servers, ours, trusted);
        alarms.extend(self.leaving().into_iter().map(|name| {
            format!("key {name} can be exported or backed up in plain, so it may leave OpenBao")
        }));
        alarms.extend(lock(&self.file_problem).clone());
        ProviderStatus {
            kind: "openbao",
            health,
            backed_up_at: None,
            demo: false,
            detail,
            servers,
            certificate_days: ours,
            alarms,
            differences: Vec::new(),
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
        self.cluster.members.iter().map(unknown).collect()
    }
}
