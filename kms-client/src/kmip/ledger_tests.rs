//! What follows from what servers said, over time.

use super::*;

const NOW: u64 = 1_764_000_000;

fn ledger() -> Ledger {
    Ledger::new("kmip", vec!["a:1".into(), "b:1".into()])
}

fn state(state: State) -> Said {
    Said::State(state)
}

#[test]
fn keys_that_were_taken_back_wrap_nothing_and_are_alarms() {
    let ledger = ledger();
    ledger.made("1", 7);
    ledger.fetched("1", 0, Some(State::Active), NOW);
    ledger.fetched("2", 0, Some(State::Deactivated), NOW);
    ledger.fetched("3", 0, Some(State::Compromised), NOW);
    assert!(ledger.may_wrap("1").is_ok());
    assert!(ledger.may_wrap("never-seen").is_ok());
    for (uid, state) in [("2", "deactivated"), ("3", "compromised")] {
        let refused = ledger.may_wrap(uid).unwrap_err().to_string();
        assert!(refused.contains(state) && refused.contains("key rotate"), "{refused}");
    }
    assert_eq!(ledger.alarms(NOW).len(), 2);
    let keys = ledger.keys();
    assert_eq!((keys[0].1.made, keys[0].1.state()), (Some(7), KeyState::Active));
    // It was told wrongly before.
    ledger.fetched("2", 0, Some(State::Active), NOW);
    assert!(ledger.may_wrap("2").is_ok());
}

#[test]
fn servers_that_differ_are_an_alarm_once_it_is_no_lag() {
    let ledger = ledger();
    ledger.said("1", 0, state(State::Active), NOW);
    ledger.said("1", 1, state(State::Deactivated), NOW);
    let found = ledger.differences(NOW + 59);
    let [difference] = &found[..] else { panic!("{found:?}") };
    assert_eq!((difference.counts, difference.may_be_lag), (KeyState::Deactivated, true));
    assert_eq!(difference.reason, "KeyStateDiffers");
    let said: Vec<_> = difference.said.iter().map(|s| (&*s.server, &*s.state)).collect();
    assert_eq!(said, [("a:1", "Active"), ("b:1", "Deactivated")]);
    // The alarm that it is deactivated comes at once, the one that servers differ does not.
    assert_eq!(ledger.alarms(NOW + 59).len(), 1);
    let alarms = ledger.alarms(NOW + 60);
    assert!(
        alarms.iter().any(|alarm| alarm.contains("a:1: Active, b:1: Deactivated")),
        "{alarms:?}"
    );
    let refused = ledger.may_wrap("1").unwrap_err().to_string();
    assert!(refused.contains("b:1: Deactivated"), "{refused}");
    // The other has heard of it.
    ledger.said("1", 0, state(State::Deactivated), NOW + 61);
    assert!(ledger.differences(NOW + 200).is_empty());
    // When they differ again, that is a new difference.
    ledger.said("1", 0, state(State::Compromised), NOW + 300);
    assert!(ledger.differences(NOW + 310)[0].may_be_lag);
}

#[test]
fn a_key_that_is_late_is_told_from_one_that_is_lost() {
    let ledger = ledger();
    ledger.made("1", NOW);
    ledger.said("1", 0, state(State::Active), NOW);
    ledger.said("1", 1, Said::Unknown, NOW);
    assert!(ledger.differences(NOW + 59)[0].may_be_lag && ledger.alarms(NOW + 59).is_empty());
    assert!(ledger.may_wrap("1").is_ok());
    let late = &ledger.alarms(NOW + 60)[0];
    assert!(late.contains("KeyStateMissingInKMS") && late.contains("b:1: not found"), "{late}");
    // It comes, and goes.
    ledger.said("1", 1, state(State::Active), NOW + 70);
    assert!(ledger.alarms(NOW + 200).is_empty());
    ledger.said("1", 1, Said::Unknown, NOW + 201);
    let lost = &ledger.alarms(NOW + 201)[0];
    assert!(lost.contains("b:1: not found any more"), "{lost}");
    let refused = ledger.may_wrap("1").unwrap_err().to_string();
    assert!(refused.contains("lost or destroyed"), "{refused}");
}

#[test]
fn keys_are_asked_about_in_turn() {
    let ledger = ledger();
    assert!(ledger.next(3).is_empty());
    for uid in ["a", "b", "c", "d"] {
        ledger.made(uid, NOW);
    }
    assert_eq!(ledger.next(3), ["a", "b", "c"]);
    assert_eq!(ledger.next(3), ["d", "a", "b"]);
    assert_eq!(ledger.next(9), ["c", "d", "a", "b"]);
}

#[test]
fn keys_out_of_use_are_forgotten_but_new_ones_are_not() {
    let ledger = ledger();
    ledger.made("new", NOW);
    ledger.made("old", NOW - NEW);
    ledger.fetched("unused", 0, Some(State::Deactivated), NOW);
    ledger.watch(&BTreeSet::from(["used"]), NOW);
    let uids: Vec<_> = ledger.keys().into_iter().map(|(uid, _)| uid).collect();
    assert_eq!(uids, ["new", "used"]);
    assert!(ledger.alarms(NOW).is_empty());
    // What a server says of a key that nobody uses is not kept.
    ledger.said_by("unused", "a:1", state(State::Destroyed), NOW);
    ledger.said_by("used", "elsewhere:1", state(State::Destroyed), NOW);
    assert!(ledger.alarms(NOW).is_empty());
    ledger.said_by("used", "a:1", state(State::Destroyed), NOW);
    assert_eq!(ledger.latest("used"), Some(State::Destroyed));
}

#[test]
fn notes_are_few_and_said_once() {
    let ledger = ledger();
    for count in 0..40 {
        ledger.note(format!("note {}", count % 20));
    }
    let notes = ledger.alarms(NOW);
    assert_eq!((notes.len(), notes[15].as_str()), (MAX_NOTES, "note 19"));
}
