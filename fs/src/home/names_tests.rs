use super::*;
use crypto::{Arena, HomeKey};
use proptest::prelude::*;
use std::collections::HashSet;

fn keys() -> (SivKey, SivKey) {
    let arena = Arena::new(64 * 1024).unwrap();
    let key = || {
        let home = HomeKey::generate(&arena).unwrap();
        SivKey::derive(&home, &arena, KEY_INFO).unwrap()
    };
    (key(), key())
}

fn back(stored: &[u8], key: &SivKey) -> Option<Vec<u8>> {
    decode(stored, key, &mut Room::new()).map(<[u8]>::to_vec)
}

#[test]
fn every_length_up_to_the_limit_fits_and_no_other() {
    let (key, _) = keys();
    assert_eq!(MAX_PLAIN, 175);
    let mut lengths = Vec::new();
    for len in 1..=MAX_PLAIN {
        let plain = vec![b'n'; len];
        let stored = encode(&plain, &key).unwrap();
        assert_eq!(stored.as_bytes().len(), (4 * (16 + len)).div_ceil(3), "{len}");
        assert!(stored.as_bytes().iter().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(c)));
        assert_eq!(back(stored.as_bytes(), &key), Some(plain), "{len}");
        assert!(looks_encoded(stored.as_bytes()));
        lengths.push(stored.as_bytes().len());
    }
    assert_eq!((lengths[0], lengths[MAX_PLAIN - 1]), (23, MAX_STORED));
    for len in [0, MAX_PLAIN + 1, 255, 300, 10_000] {
        assert!(encode(&vec![b'n'; len], &key).is_none(), "{len}");
    }
}

#[test]
fn the_limit_follows_that_of_the_storage() {
    let (key, _) = keys();
    for stored in 0..=MAX_STORED {
        let limit = plain_limit(stored);
        let fits = |len| encode(&vec![7; len], &key).is_some_and(|e| e.as_bytes().len() <= stored);
        assert!(limit == 0 || fits(limit), "{stored}");
        assert!(!fits(limit + 1), "{stored}");
    }
    assert_eq!((plain_limit(255), plain_limit(1024), plain_limit(143)), (175, 175, 91));
}

#[test]
fn the_same_name_is_stored_the_same_and_others_are_not() {
    let (key, other) = keys();
    let stored = |name: &[u8], key| encode(name, key).unwrap().as_bytes().to_vec();
    assert_eq!(stored(b"notes.txt", &key), stored(b"notes.txt", &key));
    let mut seen = HashSet::new();
    for (name, key) in [
        (&b"notes.txt"[..], &key),
        (b"Notes.txt", &key),
        (b"notes.txt ", &key),
        (b"umlaut \xc3\xa4", &key),
        (b"umlaut a\xcc\x88", &key),
        (b"notes.txt", &other),
    ] {
        // Also where the storage takes capital letters and small ones for the same.
        let folded = stored(name, key).to_ascii_lowercase();
        assert!(seen.insert(folded), "{}", name.escape_ascii());
    }
}

#[test]
fn a_name_that_was_not_made_here_is_none() {
    let (key, other) = keys();
    let stored = encode(b"a name of the home", &key).unwrap();
    assert_eq!(back(stored.as_bytes(), &other), None);
    for at in 0..stored.as_bytes().len() {
        let mut changed = stored.as_bytes().to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(back(&changed, &key), None, "character {at}");
        assert_eq!(back(&stored.as_bytes()[..at], &key), None, "cut to {at}");
        let mut folded = stored.as_bytes().to_vec();
        folded[at] = folded[at].to_ascii_uppercase();
        assert_eq!(back(&folded, &key).is_some(), folded == stored.as_bytes(), "case of {at}");
    }
    for foreign in
        [&b"notes.txt"[..], b"lost+found", b".nfs000123", b"", b"A", b"\xff", &[b'A'; 256]]
    {
        assert_eq!(back(foreign, &key), None);
    }
    assert!(!looks_encoded(b"lost+found") && !looks_encoded(b"notes"));
    // The vector and nothing else: a name has a byte at least.
    assert_eq!(back(&[b'A'; 22], &key), None);
    assert!(!looks_encoded(&[b'A'; 22]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_come_back(plain in proptest::collection::vec(any::<u8>(), 1..=MAX_PLAIN)) {
        let (key, _) = keys();
        let stored = encode(&plain, &key).unwrap();
        prop_assert_eq!(back(stored.as_bytes(), &key), Some(plain));
    }

    #[test]
    fn any_stored_bytes_are_read(stored in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (key, _) = keys();
        prop_assert_eq!(back(&stored, &key), None);
    }
}
