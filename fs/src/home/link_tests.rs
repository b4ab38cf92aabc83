use super::*;
use crypto::{Arena, HomeKey};

fn mac() -> MacKey {
    let arena = Arena::new(4096).unwrap();
    let home = HomeKey::generate(&arena).unwrap();
    MacKey::derive(&home, &arena, MAC_INFO).unwrap()
}

#[test]
fn targets_of_every_length_and_all_bytes_come_back() {
    let mac = mac();
    for len in [1, 2, 40, 41, 255, 256, 1023, 3900, MAX_TARGET] {
        let target: Vec<u8> = (0..len).map(|at| u8::try_from(at % 255).unwrap() + 1).collect();
        let stored = encode(&target, &mac);
        assert_eq!(stored.len(), OVERHEAD + len);
        assert_eq!(plain_len(stored.len() as u64), len as u64);
        assert_eq!(decode(&stored, &mac), Some(&target[..]));
    }
    assert_eq!((OVERHEAD, MAX_TARGET), (41, 4054));
}

#[test]
fn what_was_not_made_here_is_refused() {
    let mac = mac();
    let stored = encode(b"logs/current", &mac);
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
