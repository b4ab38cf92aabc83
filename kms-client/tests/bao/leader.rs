//! Three real servers whose leader is killed under load: whoever asks gets the right key or, at worst, an error.

use crate::servers::Servers;
use crate::support::{BUDGETS, arena, key, provider, settings};
use crypto::{CheckValue, KeyId, OpaqueKey, Wrapped};
use kms_client::bao::BaoProvider;
use kms_client::{KeyProvider, KmsError};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Threads that ask at the same time.
const ASKERS: usize = 4;

/// Longest wait for an answer after the leader is gone: an election, on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(180);

/// A wrap, what is inside, and what it belongs to.
struct Made {
    wrapped: Wrapped,
    value: CheckValue,
    bound: String,
}

/// What the askers see.
#[derive(Default)]
struct Seen {
    made: Mutex<Vec<Made>>,
    opened: AtomicUsize,
    wrapped: AtomicUsize,
    errors: Mutex<Vec<KmsError>>,
}

/// Wraps and opens until `over`, and checks every answer.
fn load(provider: &BaoProvider, id: &KeyId, asker: usize, seen: &Seen, over: &AtomicBool) {
    let arena = arena();
    for count in 0.. {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let data = key(if count % 2 == 0 { 32 } else { 64 }, &arena);
        let (bound, value) = (format!("disk {asker} {count}"), data.check_value().unwrap());
        match provider.wrap(id, &data, &bound, &arena) {
            Ok(wrapped) => {
                seen.wrapped.fetch_add(1, Ordering::SeqCst);
                seen.made.lock().unwrap().push(Made { wrapped, value, bound });
            }
            Err(error) => seen.errors.lock().unwrap().push(error),
        }
        let made = seen.made.lock().unwrap();
        let Some(one) = made.get(count * 7 % made.len().max(1)) else { continue };
        let (wrapped, value, bound) = (one.wrapped.clone(), one.value, one.bound.clone());
        drop(made);
        match provider.unwrap(id, &wrapped, &bound, &arena) {
            Ok(opened) => {
                assert_eq!(opened.check_value().unwrap(), value, "a wrong answer");
                seen.opened.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => seen.errors.lock().unwrap().push(error),
        }
    }
}

/// Waits until so many more were wrapped and opened.
fn wait_for_more(seen: &Seen, more: usize) {
    let end = Instant::now() + PATIENCE;
    let now = || (seen.wrapped.load(Ordering::SeqCst), seen.opened.load(Ordering::SeqCst));
    let before = now();
    while now().0 < before.0 + more || now().1 < before.1 + more {
        let errors = seen.errors.lock().unwrap();
        assert!(Instant::now() < end, "{:?} after {before:?}: {:?}", now(), errors.last());
        drop(errors);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn kill_the_leader(standby_reads: bool) {
    let Some(mut servers) = Servers::start(3, standby_reads) else { return };
    let leader = servers.leader();
    // The leader is asked first, so that its end is felt.
    let mut ports = servers.ports();
    ports.swap(0, leader);
    let provider = provider(settings(&servers.authority, &ports));
    let id = provider.create_key().unwrap();
    every_server_opens(&provider);
    let (seen, over) = (Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for asker in 0..ASKERS {
            let (provider, id, seen, over) = (&provider, &id, &seen, &over);
            scope.spawn(move || load(provider, id, asker, seen, over));
        }
        let end = Ending(&over);
        wait_for_more(&seen, 20);
        servers.nodes[leader].kill();
        wait_for_more(&seen, 20);
        // Rotated while one server is missing: nothing is wrapped by the old version any more.
        assert!(provider.renew(&id).unwrap());
        let arena = arena();
        let wrapped = provider.wrap(&id, &key(32, &arena), "after", &arena).unwrap();
        assert!(wrapped.blob.starts_with(b"vault:v2:"));
        servers.again(leader);
        wait_for_more(&seen, 20);
        drop(end);
    });
    // One server was gone, and the others were electing: everybody waited for that.
    let errors = seen.errors.into_inner().unwrap();
    assert!(errors.is_empty(), "{} of {errors:?}", errors.len());
    all_open(&provider, &id, &seen.made.into_inner().unwrap());
    every_server_opens(&provider);
}

/// Ends the load, also when a test fails: the threads are waited for.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Whatever was said to be wrapped opens, whoever is leader now.
fn all_open(provider: &BaoProvider, id: &KeyId, made: &[Made]) {
    let arena = arena();
    for one in made {
        let opened: OpaqueKey = provider.unwrap(id, &one.wrapped, &one.bound, &arena).unwrap();
        assert_eq!(opened.check_value().unwrap(), one.value);
    }
}

fn every_server_opens(provider: &BaoProvider) {
    provider.check();
    let status = provider.status();
    for server in &status.servers {
        assert_eq!(server.key_fetched, Some(true), "{status:?}");
    }
    assert_eq!(status.detail, "3 of 3 servers give keys");
}

#[test]
fn the_leader_is_killed_while_standbys_answer_by_themselves() {
    kill_the_leader(true);
}

#[test]
fn the_leader_is_killed_while_standbys_only_pass_on() {
    kill_the_leader(false);
}

#[test]
fn a_sealed_server_and_two_dead_ones_are_told() {
    let Some(mut servers) = Servers::start(3, true) else { return };
    let mut settings = settings(&servers.authority, &servers.ports());
    settings.budgets = kms_client::kmip::Budgets { operation: Duration::from_secs(40), ..BUDGETS };
    let (provider, arena) = (provider(settings), arena());
    let id = provider.create_key().unwrap();
    let data = key(32, &arena);
    let wrapped = provider.wrap(&id, &data, "vm", &arena).unwrap();
    // The first one that is asked is sealed: another opens.
    servers.does(0, "POST sys/seal", serde_json::json!({}));
    servers.wait_for(0, &[503]);
    let opened = provider.unwrap(&id, &wrapped, "vm", &arena).unwrap();
    assert_eq!(opened.check_value().unwrap(), data.check_value().unwrap());
    provider.check();
    let status = provider.status();
    assert!(status.servers[0].detail.contains("it is sealed"), "{status:?}");
    assert_eq!(status.servers[0].reason, Some("KeyStateClusterUnreachable"));
    assert_eq!(status.servers[1].key_fetched, Some(true), "{status:?}");
    servers.nodes[1].kill();
    servers.nodes[2].kill();
    let error = provider.unwrap(&id, &wrapped, "vm", &arena).map(drop).unwrap_err();
    assert!(matches!(error, KmsError::Unavailable { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("it is sealed") && said.contains("nobody listens there"), "{said}");
}
