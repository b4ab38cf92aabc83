//! A provider over several servers: failover, keys made once, lag told from loss, states, health.

mod ending;
mod fetching;
mod health;
mod making;
mod split;
mod states;

use crate::pki::{Authority, now};
use crate::server::Server;
use crate::session::{BUDGETS, arena};
use crate::store::Store;
use crypto::Arena;
use kms_client::kmip::values::{Operation, Version};
use kms_client::kmip::{Budgets, KmipProvider, KmipSettings, ServerSettings};
use std::net::SocketAddr;
use std::time::Duration;

/// Silence ends soon, and so does an operation of which nothing comes.
const SHORT: Budgets =
    Budgets { request: Duration::from_millis(500), operation: Duration::from_secs(8), ..BUDGETS };

pub(crate) fn settings(authority: &Authority, servers: &[SocketAddr]) -> KmipSettings {
    let server = |address: &SocketAddr| ServerSettings {
        host: address.ip().to_string(),
        port: address.port(),
        tls_name: None,
    };
    KmipSettings {
        name: "kmip".into(),
        servers: servers.iter().map(server).collect(),
        tls: authority.files("client"),
        account: None,
        version: Version::V1_1,
        budgets: BUDGETS,
        allow_compromised: false,
        operation_policy: None,
        copies: 2,
        check_every: None,
    }
}

fn open(settings: KmipSettings, arena: &Arena) -> KmipProvider {
    KmipProvider::open(settings, now, arena).unwrap()
}

/// Two servers, and a provider over them.
struct Pair {
    authority: Authority,
    first: Server,
    second: Server,
    arena: Arena,
}

impl Pair {
    /// Two with the same keys.
    fn replicated() -> Self {
        let store = Store::shared();
        Self::over(store.clone(), store)
    }

    /// Two of which neither knows the other's keys.
    fn apart() -> Self {
        Self::over(Store::numbered(1, 2), Store::numbered(2, 2))
    }

    fn over(first: crate::store::Shared, second: crate::store::Shared) -> Self {
        let authority = Authority::new();
        let first = Server::with(&authority, "server", first);
        let second = Server::with(&authority, "server", second);
        Self { authority, first, second, arena: arena() }
    }

    fn settings(&self) -> KmipSettings {
        settings(&self.authority, &[self.first.address, self.second.address])
    }

    fn provider(&self) -> KmipProvider {
        open(self.settings(), &self.arena)
    }

    fn short(&self) -> KmipProvider {
        open(KmipSettings { budgets: SHORT, ..self.settings() }, &self.arena)
    }
}

fn count(server: &Server, operation: Operation) -> usize {
    server.store.lock().unwrap().count(operation)
}
