//! The end of keys: taken back and destroyed, once, whatever happens on the way.

use super::{Pair, count, open};
use crate::server::Act;
use crypto::KeyId;
use kms_client::kmip::values::Operation;
use kms_client::kmip::{KmipProvider, KmipSettings};
use kms_client::{KeyProvider, KmsError};

fn state(pair: &Pair, id: &KeyId) -> Option<u32> {
    pair.first.store.lock().unwrap().keys.get(id.uid()).map(|key| key.state)
}

fn said(said: &[kms_client::Said]) -> Vec<&str> {
    said.iter().map(|said| said.state.as_str()).collect()
}

fn made(pair: &Pair) -> (KmipProvider, KeyId) {
    let provider = pair.short();
    let id = provider.create_key().unwrap();
    (provider, id)
}

#[test]
fn a_key_is_taken_back_and_then_destroyed() {
    for (compromised, word, number) in [(false, "Deactivated", 3), (true, "Compromised", 4)] {
        let pair = Pair::replicated();
        let (provider, id) = made(&pair);
        let error = provider.destroy(&id).unwrap_err();
        assert!(matches!(error, KmsError::Denied { .. }), "{error}");
        assert!(error.to_string().contains("coffer key revoke"), "{error}");
        assert_eq!(state(&pair, &id), Some(2), "an active key was destroyed");

        let now = provider.revoke(&id, compromised, "the test is over").unwrap();
        assert_eq!((said(&now), state(&pair, &id)), (vec![word, word], Some(number)));
        assert!(provider.may_wrap(&id).is_err(), "it is known at once");
        // Once more is no error, and changes nothing.
        provider.revoke(&id, false, "again").unwrap();
        assert_eq!(state(&pair, &id), Some(number));
        assert_eq!(count(&pair.first, Operation::Revoke), 1);

        assert_eq!(said(&provider.destroy(&id).unwrap()), ["not found", "not found"]);
        for error in [provider.destroy(&id), provider.revoke(&id, false, "")] {
            let error = error.unwrap_err();
            assert!(matches!(error, KmsError::NotFound { .. }), "{error}");
        }
    }
}

#[test]
fn an_end_in_doubt_is_looked_at_and_not_repeated() {
    for act in [Act::DoneAndDrop, Act::Truncate(20), Act::HalfClose, Act::Silent] {
        let pair = Pair::replicated();
        let (provider, id) = made(&pair);
        pair.first.once(Operation::Revoke, act.clone());
        provider.revoke(&id, false, "").unwrap();
        assert_eq!((state(&pair, &id), count(&pair.first, Operation::Revoke)), (Some(3), 1));
        pair.first.once(Operation::Destroy, act);
        provider.destroy(&id).unwrap();
        assert_eq!((state(&pair, &id), count(&pair.first, Operation::Destroy)), (None, 1));
    }
}

#[test]
fn an_end_that_left_no_trace_is_asked_for_again() {
    let pair = Pair::replicated();
    let (provider, id) = made(&pair);
    pair.first.once(Operation::Revoke, Act::Drop);
    provider.revoke(&id, false, "").unwrap();
    assert_eq!(state(&pair, &id), Some(3));
    pair.first.once(Operation::Destroy, Act::Drop);
    provider.destroy(&id).unwrap();
    assert_eq!(state(&pair, &id), None);
    // Nobody answers: that is no success.
    let id = provider.create_key().unwrap();
    for server in [&pair.first, &pair.second] {
        server.always(Operation::Revoke, Act::Drop);
    }
    let error = provider.revoke(&id, false, "").unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(state(&pair, &id), Some(2));
}

#[test]
fn servers_that_keep_a_record_or_tell_no_states() {
    let pair = Pair::replicated();
    let (provider, id) = made(&pair);
    pair.first.store.lock().unwrap().keys.get_mut(id.uid()).unwrap().state = 5;
    let now = provider.destroy(&id).unwrap();
    assert_eq!(said(&now), ["Destroyed", "Destroyed"]);
    assert_eq!(count(&pair.first, Operation::Destroy), 0);

    let id = provider.create_key().unwrap();
    pair.first.store.lock().unwrap().lacks.push(Operation::GetAttributes.number());
    // It refuses to destroy what is active, and says so itself.
    let error = provider.destroy(&id).unwrap_err();
    assert!(matches!(error, KmsError::Denied { .. }), "{error}");
    provider.revoke(&id, false, "").unwrap();
    provider.destroy(&id).unwrap();
    assert_eq!(state(&pair, &id), None);
}

#[test]
fn the_other_server_is_asked_when_one_is_gone_and_each_is_told_of() {
    let mut pair = Pair::apart();
    let provider = open(KmipSettings { copies: 1, ..pair.settings() }, &pair.arena);
    let id = provider.create_key().unwrap();
    {
        let from = pair.first.store.lock().unwrap();
        pair.second.store.lock().unwrap().copy_from(&from);
    }
    // Servers tell each other; here they do not, and whoever asked sees that.
    let now = provider.revoke(&id, false, "").unwrap();
    assert_eq!(said(&now), ["Deactivated", "Active"]);
    pair.first.kill();
    let now = provider.revoke(&id, false, "").unwrap();
    assert_eq!(said(&now), ["Deactivated"]);
    assert_eq!(now[0].server, pair.second.address.to_string());
}
