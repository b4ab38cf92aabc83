use super::*;
use crypto::{Arena, HomeKey};

fn key() -> SivKey {
    let arena = Arena::new(8192).unwrap();
    SivKey::derive(&HomeKey::generate(&arena).unwrap(), &arena, KEY_INFO).unwrap()
}

fn stored(plain: &[u8]) -> Result<Vec<u8>, NameFault> {
    StoredName::of(plain).map(|name| name.as_c_str().to_bytes().to_vec())
}

#[test]
fn names_of_all_kept_spaces_come_back() {
    for (plain, below) in [
        ("user.comment", "user.:ucomment"),
        ("trusted.overlay.opaque", "user.:toverlay.opaque"),
        ("security.capability", "user.:scapability"),
        ("user.:ucomment", "user.:u:ucomment"),
    ] {
        assert_eq!(stored(plain.as_bytes()).unwrap(), below.as_bytes());
        let (space, rest) = plain_name(below.as_bytes()).unwrap();
        assert_eq!([space, rest].concat(), plain.as_bytes());
    }
    for foreign in ["user.comment", "user.:", "user.:u", "user.:xcomment", "security.selinux", ""] {
        assert_eq!(plain_name(foreign.as_bytes()), None, "{foreign}");
    }
}

#[test]
fn names_have_the_limits_of_linux() {
    for other in
        ["", "user", "user.", "usercomment", "system.posix_acl_access", "os2.x", "user.a\0b"]
    {
        assert_eq!(stored(other.as_bytes()), Err(NameFault::Space), "{other:?}");
    }
    for (space, longest) in [("user.", 253), ("trusted.", 255), ("security.", 255)] {
        let name = |len: usize| format!("{space}{}", "n".repeat(len - space.len()));
        assert!(stored(name(longest).as_bytes()).unwrap().len() <= MAX_NAME);
        assert_eq!(stored(name(longest + 1).as_bytes()), Err(NameFault::TooLong), "{space}");
    }
}

#[test]
fn values_open_under_their_own_name_and_key_only() {
    let key = key();
    let mut room = vec![0; MAX_STORED];
    for len in [0, 1, 15, 16, 17, 255, 4096, MAX_STORED - OVERHEAD] {
        let value: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let sealed = seal(b"user.a", &value, &[9; NONCE_LEN], &key, &mut room).unwrap().to_vec();
        assert_eq!((sealed.len(), plain_len(sealed.len())), (len + OVERHEAD, len));
        assert_eq!(open(b"user.a", &mut sealed.clone(), &key), Some(&value[..]));
        assert_eq!(open(b"user.b", &mut sealed.clone(), &key), None);
        assert_eq!(open(b"user.a", &mut sealed.clone(), &self::key()), None);
    }
    let too_long = vec![0; MAX_STORED - OVERHEAD + 1];
    assert_eq!(seal(b"user.a", &too_long, &[9; NONCE_LEN], &key, &mut room), None);
}

#[test]
fn every_changed_or_missing_byte_is_noticed() {
    let (key, mut room) = (key(), [0; 64]);
    let sealed = seal(b"user.a", b"value", &[9; NONCE_LEN], &key, &mut room).unwrap().to_vec();
    for bit in 0..8 * sealed.len() {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(b"user.a", &mut changed, &key), None, "bit {bit}");
    }
    for len in 0..sealed.len() {
        assert_eq!(open(b"user.a", &mut sealed[..len].to_vec(), &key), None, "cut to {len}");
    }
}

#[test]
fn the_same_value_never_looks_the_same() {
    let (key, mut room) = (key(), [0; 64]);
    let mut sealed = |nonce| seal(b"user.a", b"value", &nonce, &key, &mut room).unwrap().to_vec();
    assert_ne!(sealed([1; NONCE_LEN])[VECTOR_AT..], sealed([2; NONCE_LEN])[VECTOR_AT..]);
}

proptest::proptest! {
    #[test]
    fn whatever_the_storage_holds_opens_to_nothing(mut stored: Vec<u8>, name: Vec<u8>) {
        let key = key();
        proptest::prop_assert_eq!(open(&name, &mut stored, &key), None);
        if let Some((space, rest)) = plain_name(&name) {
            let plain = [space, rest].concat();
            if let Ok(stored) = StoredName::of(&plain) {
                proptest::prop_assert_eq!(stored.as_c_str().to_bytes(), &name[..]);
            }
        }
    }
}
