//! New keys: made once whatever happens on the way, active, tagged, and known to a second server.

use super::{Pair, count, open};
use crate::server::Act;
use crypto::KeyId;
use kms_client::kmip::KmipSettings;
use kms_client::kmip::values::Operation;
use kms_client::{Health, KeyProvider, KeyState, KmsError};
use std::time::Duration;

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
