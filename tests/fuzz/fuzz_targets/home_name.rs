//! Encrypted names and targets of links: every plain one comes back from its stored form, no other bytes are one, and
//! lengths told by lengths are right.

#![no_main]

use cryptfs::home::link::{self, MAX_SEALED_TARGET};
use cryptfs::home::names::{self, MAX_PLAIN, MAX_STORED, Room};
use crypto::{Arena, HomeKey, SivKey};
use fuzz::edit::Edit;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Name { plain: &'a [u8], edits: Vec<Edit> },
    Target { plain: &'a [u8], edits: Vec<Edit> },
    Stored(&'a [u8]),
    Length(u64),
}

/// The keys of names and of targets.
static KEYS: LazyLock<(SivKey, SivKey)> = LazyLock::new(|| {
    let arena = Arena::new(64 * 1024).expect("locked memory");
    let home = HomeKey::generate(&arena).expect("a key");
    let key = |info| SivKey::derive(&home, &arena, info).expect("a key");
    (key(names::KEY_INFO), key(link::KEY_INFO))
});

/// The plain name of these bytes. Whatever is taken must be what its plain form is stored as.
fn name_of(stored: &[u8]) -> Option<Vec<u8>> {
    let mut room = Room::new();
    let plain = names::decode(stored, &KEYS.0, &mut room)?.to_vec();
    let again = names::encode(&plain, &KEYS.0).expect("a name that was read");
    assert!(again.as_bytes() == stored && names::looks_encoded(stored));
    Some(plain)
}

fn target_of(stored: &[u8]) -> Option<Vec<u8>> {
    let plain = link::open(stored, &KEYS.1)?;
    assert!(link::seal(&plain, &KEYS.1).as_deref() == Some(stored));
    Some(plain)
}

/// What is left of stored bytes after these edits.
fn edited(stored: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = stored.to_vec();
    edits.iter().for_each(|edit| edit.apply(&mut bytes));
    bytes
}

fn check_name(plain: &[u8], edits: &[Edit]) {
    let Some(encoded) = names::encode(plain, &KEYS.0) else {
        return assert!(plain.is_empty() || plain.len() > MAX_PLAIN);
    };
    let stored = encoded.as_bytes();
    assert!(stored.len() <= MAX_STORED && plain.len() <= names::plain_limit(stored.len()));
    assert!(name_of(stored).as_deref() == Some(plain));
    let changed = edited(stored, edits);
    assert_eq!(name_of(&changed).is_some(), changed == stored, "a changed name opens");
}

fn check_target(plain: &[u8], edits: &[Edit]) {
    let Some(stored) = link::seal(plain, &KEYS.1) else {
        return assert!(plain.len() > MAX_SEALED_TARGET);
    };
    if plain.is_empty() {
        return assert!(target_of(&stored).is_none());
    }
    assert!(target_of(&stored).as_deref() == Some(plain));
    assert!(usize::try_from(link::opened_len(stored.len() as u64)) == Ok(plain.len()));
    let changed = edited(&stored, edits);
    assert_eq!(target_of(&changed).is_some(), changed == stored, "a changed target opens");
}

fuzz_target!(|input: Input| {
    match input {
        Input::Name { plain, edits } => check_name(plain, &edits),
        Input::Target { plain, edits } => check_target(plain, &edits),
        // The fuzzer learns real ones from comparisons, so either may open; then it is what it is stored as.
        Input::Stored(bytes) => drop((name_of(bytes), target_of(bytes))),
        Input::Length(len) => assert!(link::opened_len(len) <= len),
    }
});
