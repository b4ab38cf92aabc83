//! Fetches: failover, lag told from loss, and many who want keys at the same time.

use super::{Pair, count, open};
use crate::server::Act;
use crypto::KeyId;
use kms_client::kmip::KmipSettings;
use kms_client::kmip::values::Operation;
use kms_client::{KeyProvider, KmsError};
use std::sync::Arc;
use std::time::Duration;

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
