//! States of keys: what each allows, and what counts when servers tell different ones.

use super::{Pair, open};
use crate::pki::now;
use crate::server::Act;
use crypto::KeyId;
use kms_client::kmip::values::Operation;
use kms_client::kmip::{KmipProvider, KmipSettings};
use kms_client::{Health, KeyProvider, KeyState, KmsError};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

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
    assert!(matches!(error, KmsError::Inactive { .. }), "{error}");
    assert!(error.to_string().contains("deactivated"), "{error}");
    assert!(provider.status().alarms[0].contains("deactivated"));
    assert_eq!(provider.keys().unwrap()[0].state, KeyState::Deactivated);
    // Compromised: only by leave.
    set(4);
    let error = provider.fetch(&id, &pair.arena).unwrap_err();
    assert!(matches!(error, KmsError::Inactive { .. }), "{error}");
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

/// Two servers with stores of their own, a key that the first one made, and a clock that can be set forward.
struct Torn {
    pair: Pair,
    provider: KmipProvider,
    id: KeyId,
}

impl Torn {
    fn new(allow_compromised: bool, clock: kms_client::Clock) -> Self {
        let pair = Pair::apart();
        let settings = KmipSettings { copies: 1, allow_compromised, ..pair.settings() };
        let provider = KmipProvider::open(settings, clock, &pair.arena).unwrap();
        let id = provider.create_key().unwrap();
        provider.check();
        Self { pair, provider, id }
    }

    /// The second server hears of all keys of the first.
    fn replicate(&self) {
        let from = self.pair.first.store.lock().unwrap();
        self.pair.second.store.lock().unwrap().copy_from(&from);
    }

    /// The state of the key on each server, as numbers of the standard; then a check.
    fn tell(&self, first: u32, second: u32) {
        for (server, state) in [(&self.pair.first, first), (&self.pair.second, second)] {
            let mut store = server.store.lock().unwrap();
            store.keys.get_mut(self.id.uid()).unwrap().state = state;
        }
        self.provider.check();
    }

    fn fetch(&self) -> Result<(), KmsError> {
        self.provider.fetch(&self.id, &self.pair.arena).map(drop)
    }
}

#[test]
fn when_states_differ_the_latest_one_counts() {
    let torn = Torn::new(false, now);
    torn.replicate();
    for (first, second) in [(2, 3), (3, 2)] {
        torn.tell(first, second);
        let differences = torn.provider.status().differences;
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert_eq!(differences[0].reason, "KeyStateDiffers");
        assert_eq!(differences[0].counts, KeyState::Deactivated);
        let error = torn.provider.may_wrap(&torn.id).unwrap_err();
        assert!(error.to_string().contains("Deactivated"), "{error}");
        torn.fetch().unwrap();
    }
    // The server that is asked has not heard yet that the key must not be used.
    torn.tell(2, 4);
    let error = torn.fetch().unwrap_err();
    assert!(matches!(error, KmsError::Inactive { .. }), "{error}");
    assert!(error.to_string().contains("allow_compromised"), "{error}");
    for (first, second) in [(2, 5), (5, 2), (2, 6)] {
        torn.tell(first, second);
        let error = torn.fetch().unwrap_err();
        assert!(matches!(error, KmsError::NotFound { .. }), "{error}");
        assert!(torn.provider.may_wrap(&torn.id).is_err());
    }
    // They agree again.
    torn.tell(2, 2);
    assert!(torn.provider.status().differences.is_empty());
    torn.fetch().unwrap();
    torn.provider.may_wrap(&torn.id).unwrap();

    let by_leave = Torn::new(true, now);
    by_leave.replicate();
    by_leave.tell(2, 4);
    by_leave.fetch().unwrap();
    assert!(by_leave.provider.may_wrap(&by_leave.id).is_err());
    assert!(by_leave.provider.status().alarms.iter().any(|alarm| alarm.contains("compromised")));
}

#[test]
fn a_key_that_a_server_never_had_is_told_from_one_that_it_lost() {
    static AHEAD: AtomicU64 = AtomicU64::new(0);
    let torn = Torn::new(false, || now() + AHEAD.load(Ordering::SeqCst));
    let alarm = |word: &str| torn.provider.status().alarms.iter().any(|alarm| alarm.contains(word));
    torn.provider.check();
    let late = torn.provider.status().differences;
    assert_eq!((late.len(), late[0].reason), (1, "KeyStateMissingInKMS"), "{late:?}");
    assert!(late[0].may_be_lag && !alarm("is not on every server"));
    AHEAD.fetch_add(61, Ordering::SeqCst);
    assert!(alarm("is not on every server"), "{:?}", torn.provider.status());
    torn.fetch().unwrap();
    torn.provider.may_wrap(&torn.id).unwrap();
    torn.replicate();
    torn.provider.check();
    assert!(torn.provider.status().differences.is_empty());

    torn.pair.second.store.lock().unwrap().keys.remove(torn.id.uid());
    torn.provider.check();
    assert!(alarm("was lost by a server"), "{:?}", torn.provider.status());
    torn.fetch().unwrap();
    let error = torn.provider.may_wrap(&torn.id).unwrap_err();
    assert!(error.to_string().contains("not found any more"), "{error}");
    torn.replicate();
    torn.provider.check();
    torn.provider.may_wrap(&torn.id).unwrap();
}

#[test]
fn states_are_asked_of_servers_that_take_one_question_or_stop_at_a_refusal() {
    let pair = Pair::apart();
    let provider = open(KmipSettings { copies: 1, ..pair.settings() }, &pair.arena);
    let ids: Vec<_> = (0..40).map(|_| provider.create_key().unwrap()).collect();
    {
        let from = pair.first.store.lock().unwrap();
        let mut second = pair.second.store.lock().unwrap();
        second.copy_from(&from);
        // One that it lacks comes first, and one is in another state at the end.
        second.keys.remove(ids[0].uid());
        second.keys.get_mut(ids[39].uid()).unwrap().state = 3;
    }
    for (stops, no_batches) in [(false, false), (true, false), (false, true)] {
        {
            let mut second = pair.second.store.lock().unwrap();
            (second.stops, second.no_batches) = (stops, no_batches);
        }
        provider.check();
        let differences = provider.status().differences;
        let found: BTreeSet<_> = differences.iter().map(|d| (d.key.clone(), d.reason)).collect();
        let lacks = (ids[0].clone(), "KeyStateMissingInKMS");
        let differs = (ids[39].clone(), "KeyStateDiffers");
        assert_eq!(found, BTreeSet::from([lacks, differs]), "{differences:?}");
    }
    // Most were asked about sixteen at a time.
    let asked = pair.first.store.lock().unwrap().count(Operation::GetAttributes);
    assert!(asked >= 120, "{asked} questions");
}

#[test]
fn keys_in_use_are_looked_at_although_nobody_fetched_them() {
    let pair = Pair::replicated();
    let id = pair.provider().create_key().unwrap();
    pair.first.store.lock().unwrap().keys.get_mut(id.uid()).unwrap().state = 3;
    let provider = pair.provider();
    provider.check();
    assert!(provider.status().alarms.is_empty());
    provider.watch(&BTreeSet::from([id.clone(), KeyId::new("native", "1").unwrap()]));
    provider.check();
    let alarms = provider.status().alarms;
    assert!(alarms.len() == 1 && alarms[0].contains("deactivated"), "{alarms:?}");
    assert!(provider.may_wrap(&id).is_err());
    provider.watch(&BTreeSet::new());
    assert!(provider.status().alarms.is_empty());
}

#[test]
fn a_server_that_answers_no_question_for_states_is_well_all_the_same() {
    let pair = Pair::replicated();
    let provider = pair.short();
    provider.create_key().unwrap();
    pair.first.always(Operation::GetAttributes, Act::Silent);
    provider.check();
    let status = provider.status();
    assert_eq!(status.health, Health::Ready);
    for server in &status.servers {
        assert_eq!((server.up, server.key_fetched), (Some(true), Some(true)), "{server:?}");
    }
    assert!(status.alarms.is_empty() && status.differences.is_empty(), "{status:?}");
}
