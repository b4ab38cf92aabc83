//! What all tests of this binary share: settings, an arena, and errors that must say something.

use crate::pki::{Authority, now};
use crypto::{Arena, KeyId, OpaqueKey};
use kms_client::KmsError;
use kms_client::bao::{BaoProvider, BaoSettings, KeyChoice};
use kms_client::kmip::{Budgets, ServerSettings};
use std::time::Duration;

/// Times that fit a busy machine.
pub(crate) const BUDGETS: Budgets = Budgets {
    connect: Duration::from_secs(10),
    handshake: Duration::from_secs(20),
    request: Duration::from_secs(30),
    operation: Duration::from_secs(120),
};

pub(crate) fn arena() -> Arena {
    Arena::new(256 * 1024).unwrap()
}

/// Settings for servers on these ports, with the certificate of `client`.
pub(crate) fn settings(authority: &Authority, ports: &[u16]) -> BaoSettings {
    let server =
        |port: &u16| ServerSettings { host: "127.0.0.1".into(), port: *port, tls_name: None };
    BaoSettings {
        name: "openbao".into(),
        servers: ports.iter().map(server).collect(),
        tls: authority.files("client"),
        mount: "transit".into(),
        auth_mount: "cert".into(),
        role: Some("coffer".into()),
        namespace: None,
        keys: KeyChoice::Each("coffer-".into()),
        budgets: BUDGETS,
        check_every: None,
    }
}

pub(crate) fn provider(settings: BaoSettings) -> BaoProvider {
    BaoProvider::open(settings, now, &arena()).unwrap()
}

pub(crate) fn key(len: usize, arena: &Arena) -> OpaqueKey {
    OpaqueKey::generate(len, arena).unwrap()
}

pub(crate) fn id(name: &str) -> KeyId {
    KeyId::new("openbao", name).unwrap()
}

/// The text of an error, which must have all these parts.
pub(crate) fn says(error: &KmsError, parts: &[&str]) -> String {
    let said = error.to_string();
    for part in parts {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }
    said
}
