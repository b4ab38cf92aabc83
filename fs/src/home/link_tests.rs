use super::*;
use crypto::{Arena, HomeKey};

fn mac() -> MacKey {
    let arena = Arena::new(4096).unwrap();
    let home = HomeKey::generate(&arena).unwrap();
    MacKey::derive(&home, &arena, MAC_INFO).unwrap()
}

fn siv() -> SivKey {
    let arena = Arena::new(16 * 1024).unwrap();
    let home = HomeKey::generate(&arena).unwrap();
    SivKey::derive(&home, &arena, KEY_INFO).unwrap()
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 255).unwrap() + 1).collect()
}

#[test]
fn targets_of_every_length_and_all_bytes_come_back() {
    let mac = mac();
    for len in [1, 2, 40, 41, 255, 256, 1023, 3900, MAX_TARGET] {
        let target = bytes(len);
        let stored = encode(&target, &mac).unwrap();
        assert_eq!(stored.len(), OVERHEAD + len);
        assert_eq!(plain_len(stored.len() as u64), len as u64);
        assert_eq!(decode(&stored, &mac), Some(&target[..]));
    }
    assert_eq!((OVERHEAD, MAX_TARGET), (41, 4054));
    assert_eq!(encode(&bytes(MAX_TARGET + 1), &mac), None);
}

#[test]
fn encrypted_targets_of_every_length_and_all_bytes_come_back() {
    let key = siv();
    for len in (1..300).chain([1023, 3000, MAX_SEALED_TARGET]) {
        let target = bytes(len);
        let stored = seal(&target, &key).unwrap();
        assert_eq!(stored.len(), 8 + (4 * (16 + len)).div_ceil(3));
        assert!(stored.len() <= MAX_STORED);
        assert_eq!(opened_len(stored.len() as u64), len as u64);
        assert_eq!(open(&stored, &key), Some(target));
    }
    assert_eq!(MAX_SEALED_TARGET, 3049);
    assert_eq!(seal(&bytes(MAX_SEALED_TARGET + 1), &key), None);
    assert_eq!(seal(b"same", &key), seal(b"same", &key));
    for none in [0, 8, 30, 31] {
        assert_eq!(opened_len(none), u64::from(none == 31));
    }
    assert!(opened_len(u64::MAX) > 0, "whatever length a storage claims is a number");
}

#[test]
fn encrypted_targets_that_were_not_made_here_are_refused() {
    let (key, mac) = (siv(), mac());
    let stored = seal(b"logs/current", &key).unwrap();
    for planted in ["/etc", "", "coffer2.", "coffer2.AAAA", "coffer2.AAAAAAAAAAAAAAAAAAAAAA"] {
        assert_eq!(open(planted.as_bytes(), &key), None, "{planted}");
    }
    for len in 0..stored.len() {
        assert_eq!(open(&stored[..len], &key), None, "cut to {len}");
    }
    for at in 0..stored.len() {
        for flip in [1, 0x20, 0x80] {
            let mut edited = stored.clone();
            edited[at] ^= flip;
            assert_eq!(open(&edited, &key), None, "byte {at}");
        }
    }
    assert_eq!(open(&[&stored[..], b"x"].concat(), &key), None);
    assert_eq!(open(&stored, &siv()), None, "the key of another home");
    // One form is not taken for the other.
    assert_eq!(decode(&stored, &mac), None);
    assert_eq!(open(&encode(b"logs/current", &mac).unwrap(), &key), None);
}

#[test]
fn what_was_not_made_here_is_refused() {
    let mac = mac();
    let stored = encode(b"logs/current", &mac).unwrap();
    for planted in ["/etc", "", "coffer1.", "logs/current", "coffer1.0123456789abcdef.logs/current"]
    {
        assert_eq!(decode(planted.as_bytes(), &mac), None, "{planted}");
    }
    for len in 0..stored.len() {
        assert_eq!(decode(&stored[..len], &mac), None, "cut to {len}");
    }
    for at in 0..stored.len() {
        for flip in [1, 0x20, 0x80] {
            let mut edited = stored.clone();
            edited[at] ^= flip;
            assert_eq!(decode(&edited, &mac), None, "byte {at}");
        }
    }
    assert_eq!(decode(&[&stored[..], b"x"].concat(), &mac), None);
    assert_eq!(decode(&stored, &self::mac()), None, "the key of another home");
}

#[test]
fn a_stored_length_below_the_overhead_is_shown_as_none() {
    assert_eq!((plain_len(0), plain_len(4), plain_len(41), plain_len(42)), (0, 0, 0, 1));
}
