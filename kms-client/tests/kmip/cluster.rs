//! A provider over several servers: failover, keys made once, lag told from loss, states, health.

use crate::pki::{Authority, now};
use crate::server::{Act, Server};
use crate::session::{BUDGETS, arena};
use crate::store::Store;
use crypto::{Arena, KeyId};
use kms_client::kmip::values::{Operation, Version};
use kms_client::kmip::{Budgets, KmipProvider, KmipSettings, ServerSettings};
use kms_client::{Health, KeyProvider, KeyState, KmsError};
use std::net::SocketAddr;
use std::sync::Arc;
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
        version: Version::V1_1,
        budgets: BUDGETS,
        allow_compromised: false,
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

#[test]
fn a_key_is_made_active_tagged_and_fetched() {
    let pair = Pair::replicated();
    let provider = pair.provider();
    let id = provider.create_key().unwrap();
    assert_eq!(id.to_string(), "kmip/1");
    let value = provider.fetch(&id, &pair.arena).unwrap().check_value();
    assert_eq!(provider.fetch(&id, &pair.arena).unwrap().check_value(), value);
    {
        let store = pair.first.store.lock().unwrap();
        let key = &store.keys["1"];
        assert_eq!(key.state, 2);
        assert_eq!(key.attributes["x-Product"], "Coffer");
        assert!(key.name.as_deref().unwrap().starts_with("coffer-"));
    }
    let keys = provider.keys().unwrap();
    assert_eq!((keys.len(), keys[0].state), (1, KeyState::Active));
    assert!(keys[0].created_at.is_some());
    assert!(provider.status().alarms.is_empty(), "{:?}", provider.status().alarms);
    assert_eq!(pair.arena.usage().used, 0);
    let other = KeyId::new("native", "1").unwrap();
    assert!(matches!(provider.fetch(&other, &pair.arena), Err(KmsError::NotFound { .. })));
}

#[test]
fn the_second_server_takes_over() {
    let mut pair = Pair::replicated();
    let provider = pair.provider();
    let id = provider.create_key().unwrap();
    pair.first.kill();
    provider.fetch(&id, &pair.arena).unwrap();
    let other = provider.create_key().unwrap();
    assert_ne!(id, other);
    let alarms = provider.status().alarms;
    assert!(alarms.iter().any(|a| a.contains("found on 1 of 2 servers")), "{alarms:?}");
    pair.second.kill();
    let error = provider.fetch(&id, &pair.arena).unwrap_err();
    assert!(error.is_transient(), "{error}");
    for server in [&pair.first, &pair.second] {
        assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    }
}

#[test]
fn servers_that_are_left_alone_are_asked_rather_than_failing() {
    let pair = Pair::replicated();
    let provider = pair.provider();
    let id = provider.create_key().unwrap();
    for server in [&pair.first, &pair.second] {
        server.always(Operation::Get, Act::Drop);
    }
    let error = provider.fetch(&id, &pair.arena).unwrap_err();
    assert!(matches!(error, KmsError::Unavailable { .. }), "{error}");
    // Both are in their pause now, and well again.
    pair.first.behave();
    pair.second.behave();
    provider.fetch(&id, &pair.arena).unwrap();
}

#[test]
fn silence_goes_on_to_the_next_server() {
    let pair = Pair::replicated();
    let provider = pair.short();
    let id = provider.create_key().unwrap();
    pair.first.always(Operation::Get, Act::Silent);
    provider.fetch(&id, &pair.arena).unwrap();
    let asked = pair.first.connections.load(std::sync::atomic::Ordering::SeqCst);
    provider.fetch(&id, &pair.arena).unwrap();
    let again = pair.first.connections.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(asked, again, "a silent server is left alone for a while");
    pair.second.always(Operation::Get, Act::Silent);
    let error = provider.fetch(&id, &pair.arena).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("no whole answer"), "{error}");
}

#[test]
fn missing_everywhere_is_told_from_not_reachable() {
    let mut pair = Pair::apart();
    let provider = pair.provider();
    let id = KeyId::new("kmip", "4711").unwrap();
    let error = provider.fetch(&id, &pair.arena).unwrap_err();
    assert!(matches!(error, KmsError::NotFound { .. }), "{error}");
    pair.second.kill();
    let error = provider.fetch(&id, &pair.arena).unwrap_err();
    assert!(matches!(error, KmsError::Unavailable { .. }), "the other may have it: {error}");
}

#[test]
fn a_create_in_doubt_makes_one_key() {
    for act in [Act::DoneAndDrop, Act::Truncate(20), Act::HalfClose, Act::Silent] {
        let pair = Pair::replicated();
        let provider = pair.short();
        pair.first.once(Operation::Create, act);
        let id = provider.create_key().unwrap();
        assert_eq!(count(&pair.first, Operation::Create), 1, "no second Create");
        assert_eq!(pair.first.store.lock().unwrap().keys.len(), 1);
        provider.fetch(&id, &pair.arena).unwrap();
    }
}

#[test]
fn a_create_that_left_no_trace_is_done_anew_and_told() {
    let pair = Pair::replicated();
    let provider = pair.provider();
    pair.first.once(Operation::Create, Act::Drop);
    let id = provider.create_key().unwrap();
    assert!(count(&pair.first, Operation::Locate) >= 1, "it was looked for");
    assert_eq!(pair.first.store.lock().unwrap().keys.len(), 1);
    let alarms = provider.status().alarms;
    assert!(alarms.iter().any(|a| a.contains("that nobody uses")), "{alarms:?}");
    provider.fetch(&id, &pair.arena).unwrap();
    // A server that never says what it did does not get endless tries.
    for server in [&pair.first, &pair.second] {
        server.always(Operation::Create, Act::Drop);
    }
    let before = provider.status().alarms.len();
    let error = provider.create_key().unwrap_err();
    assert!(error.is_transient(), "{error}");
    let left = provider.status().alarms.len() - before;
    assert_eq!(left, 3, "each Create that was sent may have left a key");
}

#[test]
fn a_key_that_cannot_be_activated_is_told_as_left_over() {
    let pair = Pair::replicated();
    let provider = pair.provider();
    pair.first.store.lock().unwrap().lacks.push(Operation::Activate.number());
    assert!(provider.create_key().is_err());
    let alarms = provider.status().alarms;
    assert!(alarms.iter().any(|a| a.contains("that nobody uses")), "{alarms:?}");
}

#[test]
fn an_activation_in_doubt_is_looked_at() {
    let pair = Pair::replicated();
    let provider = pair.provider();
    pair.first.once(Operation::Activate, Act::DoneAndDrop);
    let id = provider.create_key().unwrap();
    assert_eq!(pair.first.store.lock().unwrap().keys[id.uid()].state, 2);
    pair.first.once(Operation::Activate, Act::Drop);
    let id = provider.create_key().unwrap();
    assert_eq!(pair.first.store.lock().unwrap().keys[id.uid()].state, 2);
}

#[test]
fn tags_are_not_worth_a_key() {
    let pair = Pair::replicated();
    let provider = pair.provider();
    pair.first.store.lock().unwrap().lacks.push(Operation::AddAttribute.number());
    provider.create_key().unwrap();
    pair.first.once(Operation::AddAttribute, Act::DoneAndDrop);
    let id = provider.create_key().unwrap();
    provider.fetch(&id, &pair.arena).unwrap();
}

#[test]
fn a_server_that_makes_no_keys_gives_them() {
    let pair = Pair::apart();
    let provider = open(KmipSettings { copies: 1, ..pair.settings() }, &pair.arena);
    pair.first.store.lock().unwrap().lacks.push(Operation::Create.number());
    let id = provider.create_key().unwrap();
    let copy = pair.second.store.lock().unwrap().keys[id.uid()].clone();
    pair.first.store.lock().unwrap().keys.insert(id.uid().into(), copy);
    provider.fetch(&id, &pair.arena).unwrap();
    let asked = count(&pair.first, Operation::Create);
    provider.create_key().unwrap();
    assert_eq!(count(&pair.first, Operation::Create), asked, "it is known now");
    pair.second.store.lock().unwrap().lacks.push(Operation::Create.number());
    let error = provider.create_key().unwrap_err();
    assert!(error.to_string().contains("no server that answers makes keys"), "{error}");
    provider.check();
    assert_eq!(provider.status().health, Health::FetchOnly);
}

#[test]
fn a_young_key_that_a_server_does_not_know_is_late_not_lost() {
    let mut pair = Pair::apart();
    let provider = open(KmipSettings { copies: 1, ..pair.settings() }, &pair.arena);
    let id = provider.create_key().unwrap();
    let value = provider.fetch(&id, &pair.arena).unwrap().check_value();
    pair.first.kill();
    let (first, second) = (pair.first.store.clone(), pair.second.store.clone());
    let replicate = std::thread::spawn(move || {
        // After the fetch below has been told that there is no such key.
        while second.lock().unwrap().count(Operation::GetAttributes) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let from = first.lock().unwrap();
        second.lock().unwrap().copy_from(&from);
    });
    assert_eq!(provider.fetch(&id, &pair.arena).unwrap().check_value(), value);
    replicate.join().unwrap();
}

#[test]
fn a_new_key_is_waited_for_on_a_second_server() {
    let pair = Pair::apart();
    let provider = pair.provider();
    let (first, second) = (pair.first.store.clone(), pair.second.store.clone());
    let replicate = std::thread::spawn(move || {
        while second.lock().unwrap().count(Operation::Get) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let from = first.lock().unwrap();
        second.lock().unwrap().copy_from(&from);
    });
    let id = provider.create_key().unwrap();
    replicate.join().unwrap();
    assert!(pair.second.store.lock().unwrap().keys.contains_key(id.uid()));
    assert!(provider.status().alarms.is_empty(), "{:?}", provider.status().alarms);
}

#[test]
fn one_fetch_serves_all_who_want_the_key() {
    let pair = Pair::replicated();
    let provider = pair.provider();
    let id = provider.create_key().unwrap();
    let before = count(&pair.first, Operation::Get);
    pair.first.always(Operation::Get, Act::Late(Duration::from_millis(500)));
    let ready = std::sync::Barrier::new(16);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                ready.wait();
                provider.fetch(&id, &pair.arena).unwrap();
            });
        }
    });
    let fetches = count(&pair.first, Operation::Get) - before;
    assert!(fetches < 16, "{fetches} fetches for 16 who came together");
    assert_eq!(pair.arena.usage().used, 0);
}

#[test]
fn a_stampede_is_let_in_a_few_at_a_time() {
    let pair = Pair::replicated();
    let provider = pair.provider();
    let ids: Vec<_> = (0..20).map(|_| provider.create_key().unwrap()).collect();
    pair.first.always(Operation::Get, Act::Late(Duration::from_millis(20)));
    std::thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| provider.fetch(id, &pair.arena).unwrap());
        }
    });
    let most = pair.first.most_busy.load(std::sync::atomic::Ordering::SeqCst);
    assert!((1..=4).contains(&most), "{most} at a time");
}

#[test]
fn states_decide_what_a_key_may_do() {
    let pair = Pair::replicated();
    let provider = pair.provider();
    let id = provider.create_key().unwrap();
    let set =
        |state| pair.first.store.lock().unwrap().keys.get_mut(id.uid()).unwrap().state = state;
    // Pre-Active: somebody made it by hand. It is activated.
    set(1);
    provider.fetch(&id, &pair.arena).unwrap();
    assert_eq!(pair.first.store.lock().unwrap().keys[id.uid()].state, 2);
    assert!(provider.may_wrap(&id).is_ok());
    // Deactivated: unwraps, wraps nothing, and is an alarm.
    set(3);
    provider.fetch(&id, &pair.arena).unwrap();
    let error = provider.may_wrap(&id).unwrap_err();
    assert!(matches!(error, KmsError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("deactivated"), "{error}");
    assert!(provider.status().alarms[0].contains("deactivated"));
    assert_eq!(provider.keys().unwrap()[0].state, KeyState::Deactivated);
    // Compromised: only by leave.
    set(4);
    let error = provider.fetch(&id, &pair.arena).unwrap_err();
    assert!(matches!(error, KmsError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("allow_compromised"), "{error}");
    let by_leave = KmipSettings { allow_compromised: true, ..pair.settings() };
    let by_leave = open(by_leave, &pair.arena);
    by_leave.fetch(&id, &pair.arena).unwrap();
    assert!(by_leave.may_wrap(&id).is_err());
    assert!(by_leave.status().alarms[0].contains("compromised"));
    // Destroyed, as servers tell it that keep a record.
    for state in [5, 6] {
        set(state);
        let error = provider.fetch(&id, &pair.arena).unwrap_err();
        assert!(matches!(error, KmsError::NotFound { .. }), "{error}");
        assert!(error.to_string().contains("Destroyed"), "{error}");
    }
    // A server that tells no states gives keys all the same.
    set(2);
    pair.first.store.lock().unwrap().lacks.push(Operation::GetAttributes.number());
    provider.fetch(&id, &pair.arena).unwrap();
}

#[test]
fn a_server_that_gives_rubbish_is_passed_over_or_named() {
    let pair = Pair::apart();
    let provider = open(KmipSettings { copies: 1, ..pair.settings() }, &pair.arena);
    let id = provider.create_key().unwrap();
    let good = pair.first.store.lock().unwrap().keys[id.uid()].clone();
    pair.second.store.lock().unwrap().keys.insert(id.uid().into(), good);
    pair.first.store.lock().unwrap().keys.get_mut(id.uid()).unwrap().bytes = vec![0; 32];
    provider.fetch(&id, &pair.arena).unwrap();
    pair.second.store.lock().unwrap().keys.get_mut(id.uid()).unwrap().bytes = vec![1; 16];
    let error = provider.fetch(&id, &pair.arena).unwrap_err();
    assert!(matches!(error, KmsError::BadKey { .. }), "{error}");
    assert!(error.to_string().contains("all zeros") && error.to_string().contains("16 bytes"));
}

#[test]
fn a_refusal_is_an_answer() {
    let pair = Pair::replicated();
    let provider = pair.provider();
    let id = provider.create_key().unwrap();
    let turn_down = Act::Edit(Arc::new(|_| {
        use kms_client::kmip::ttlv::{Tag, Writer};
        let mut writer = Writer::default();
        writer.structure(Tag::RESPONSE_MESSAGE, |w| {
            w.structure(Tag::RESPONSE_HEADER, |w| {
                w.structure(Tag::PROTOCOL_VERSION, |w| {
                    w.integer(Tag::PROTOCOL_VERSION_MAJOR, 1);
                    w.integer(Tag::PROTOCOL_VERSION_MINOR, 0);
                });
                w.integer(Tag::BATCH_COUNT, 1);
            });
            w.structure(Tag::BATCH_ITEM, |w| {
                w.enumeration(Tag::RESULT_STATUS, 1);
                w.enumeration(Tag::RESULT_REASON, 0x0C);
            });
        });
        writer.finish().unwrap().to_vec()
    }));
    pair.first.once(Operation::Get, turn_down);
    let before = count(&pair.second, Operation::Get);
    let error = provider.fetch(&id, &pair.arena).unwrap_err();
    assert!(matches!(error, KmsError::Denied { .. }), "{error}");
    // Both have one store: the one that was turned down is all there is.
    assert_eq!(count(&pair.second, Operation::Get), before + 1, "no other server was asked");
}

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
