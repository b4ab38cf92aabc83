//! Checks: what is found out about servers, and what an operator is told.

use super::{Pair, open, settings};
use crate::pki::{Authority, now};
use crate::server::{Act, Server};
use crate::session::arena;
use kms_client::kmip::values::Operation;
use kms_client::kmip::{KmipProvider, KmipSettings};
use kms_client::{Health, KeyProvider, KmsError};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn health_is_found_out_by_fetching_a_key() {
    let mut pair = Pair::replicated();
    let provider = pair.provider();
    let status = provider.status();
    assert!(status.servers.iter().all(|server| server.up.is_none()), "{status:?}");
    provider.check();
    let status = provider.status();
    assert_eq!(status.health, Health::Ready);
    assert!(status.certificate_days.unwrap() > 1000);
    for server in &status.servers {
        assert_eq!((server.trusted, server.trusts_us), (Some(true), Some(true)));
        assert_eq!((server.up, server.key_fetched), (Some(true), Some(true)));
        assert!(server.certificate_days.unwrap() > 1000 && server.latency_ms.is_some());
    }
    // The key for checks is one, however often it is checked.
    provider.check();
    assert_eq!(pair.first.store.lock().unwrap().keys.len(), 1);

    // Somebody destroys it: another one is made, and nobody is alarmed.
    pair.first.store.lock().unwrap().keys.clear();
    provider.check();
    assert_eq!(provider.status().health, Health::Ready, "{:?}", provider.status());

    // A server that answers, but whose hardware module is down, and one that is gone.
    let failing = Act::Edit(Arc::new(|_| b"not a message".repeat(2)));
    pair.first.always(Operation::Get, failing);
    pair.second.kill();
    provider.check();
    let status = provider.status();
    assert_eq!(status.health, Health::Unavailable);
    let [first, second] = &status.servers[..] else { panic!("two servers") };
    assert_eq!((first.up, first.key_fetched), (Some(true), Some(false)));
    assert_eq!(first.reason, Some("KeyStateClusterInvalid"));
    assert_eq!((second.up, second.key_fetched), (Some(false), None));
    assert_eq!(second.reason, Some("KeyStateClusterUnreachable"));
    assert_eq!(status.alarms.len(), 2, "{:?}", status.alarms);
}

#[test]
fn trust_is_told_for_each_direction() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::start(&theirs);
    let arena = arena();
    let provider = open(settings(&ours, &[server.address]), &arena);
    provider.check();
    let status = provider.status();
    assert_eq!((status.servers[0].trusted, status.servers[0].trusts_us), (Some(false), None));

    let mut halfway = settings(&ours, &[server.address]);
    halfway.tls.trust = kms_client::kmip::tls::Trust::Authority(theirs.path("ca.pem"));
    let provider = open(halfway, &arena);
    provider.check();
    let status = provider.status();
    let found = (status.servers[0].trusted, status.servers[0].trusts_us);
    assert_eq!(found, (Some(true), Some(false)));
    assert_eq!(status.servers[0].reason, Some("KeyStateClusterInvalid"));
}

#[test]
fn certificates_that_will_run_out_are_alarms() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let arena = arena();
    // A clock ten days before the end of the year 4000, when all certificates of the tests end.
    let late = || 64_092_211_200 - 10 * 86_400;
    let provider = KmipProvider::open(settings(&authority, &[server.address]), late, &arena);
    let provider = provider.unwrap();
    provider.check();
    let alarms = provider.status().alarms;
    let soon = alarms.iter().filter(|alarm| alarm.contains("runs out in")).count();
    assert!(soon >= 2, "{alarms:?}");
}

#[test]
fn a_provider_opens_while_its_servers_are_down_and_checks_by_itself() {
    let authority = Authority::new();
    let mut server = Server::start(&authority);
    let store = server.store.clone();
    let arena = arena();
    let checked = KmipSettings {
        check_every: Some(Duration::from_millis(50)),
        ..settings(&authority, &[server.address])
    };
    let provider = open(checked, &arena);
    let wait = |wanted: fn(&KmipProvider) -> bool| {
        for _ in 0..1000 {
            if wanted(&provider) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it did not come to that: {:?}", provider.status());
    };
    wait(|p| p.status().servers[0].key_fetched == Some(true));
    server.kill();
    wait(|p| p.status().health == Health::Unavailable);
    assert_eq!(store.lock().unwrap().keys.len(), 1);
    // Dropping ends the thread.
    drop(provider);
    let never = settings(&authority, &[server.address]);
    let provider = open(never, &arena);
    let error = provider.create_key().unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let authority = Authority::new();
    let arena = arena();
    let mut bad = settings(&authority, &["127.0.0.1:1".parse().unwrap()]);
    bad.servers[0].host = "no name".into();
    let error = KmipProvider::open(bad, now, &arena).map(drop).unwrap_err();
    assert!(error.to_string().contains("no name of a machine"), "{error}");
    let mut bad = settings(&authority, &[]);
    bad.name = "a/b".into();
    assert!(matches!(KmipProvider::open(bad, now, &arena), Err(KmsError::Config { .. })));
}
