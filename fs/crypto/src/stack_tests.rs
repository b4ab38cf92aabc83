//! Tests that no key bytes stay on the stack, by looking at it through `/proc/self/mem` as a memory
//! dump would. The last test shows that the look would find them.

use std::fs::File;
use std::os::unix::fs::FileExt;

use aes_kw::{KeyInit, KwAes256};

use super::wiping_stack;
use crate::keys::sealed::Bytes;
use crate::keys::{DataKey, Dek, HomeKey, Kek, RootKey};
use crate::support::arena;
use crate::{Arena, Argon2Params, Engine, MacKey, Passphrase, Unit, Xts};

/// How far down is looked: well past what any call here uses.
const DEPTH: usize = 128 * 1024;

/// How many 8-byte pieces of the secrets lie on the stack below the caller. The secrets and the copy
/// of the stack are on the heap or in the arena, so that the search does not find itself.
#[inline(never)]
fn residue(secrets: &[&[u8]]) -> usize {
    let here = 0_u8;
    let top = (&raw const here).addr();
    let mut stack = vec![0; DEPTH];
    let from = u64::try_from(top - DEPTH).unwrap();
    File::open("/proc/self/mem").unwrap().read_exact_at(&mut stack, from).unwrap();
    secrets
        .iter()
        .flat_map(|secret| secret.chunks_exact(8))
        .filter(|piece| stack.windows(8).any(|bytes| bytes == *piece))
        .count()
}

#[test]
fn opening_and_wrapping_leave_nothing() {
    let arena = arena();
    let kek = Kek::generate(&arena).unwrap();
    let blob = kek.wrap(&Dek::generate(&arena).unwrap()).unwrap();
    let dek: Dek = kek.open(&arena, &blob).unwrap();
    assert_eq!(residue(&[dek.bytes(), kek.bytes()]), 0, "open");
    kek.wrap(&dek).unwrap();
    assert_eq!(residue(&[dek.bytes(), kek.bytes()]), 0, "wrap");
    assert!(kek.open::<Dek>(&arena, &[1; Dek::WRAPPED_LEN]).is_err());
    assert_eq!(residue(&[dek.bytes(), kek.bytes()]), 0, "refused open");
}

#[test]
fn derivation_leaves_nothing() {
    let arena = arena();
    let (home, root) = (HomeKey::generate(&arena).unwrap(), RootKey::generate(&arena).unwrap());
    let file = home.file_key(&arena, &[1; 32]).unwrap();
    let kek = root.derive_kek(&arena, "uid").unwrap();
    let mac = MacKey::derive(&home, &arena, "label").unwrap();
    mac.tag(&[b"message"]);
    kek.check_value();
    assert_eq!(residue(&[home.bytes(), root.bytes(), file.bytes(), kek.bytes(), mac.bytes()]), 0);
}

#[test]
fn stretching_leaves_nothing() {
    let arena = arena();
    let phrase = Passphrase::read(&arena, &b"0123456789abcdef0123456789abcdef\n"[..]).unwrap();
    let params = Argon2Params { memory_kib: 64, passes: 1, lanes: 1, salt: [1; 16] };
    let kek = Kek::from_passphrase(&arena, &phrase, &params).unwrap();
    assert_eq!(residue(&[kek.bytes()]), 0);
}

#[test]
fn the_disk_cipher_leaves_nothing() {
    for &engine in Engine::available() {
        let arena = Arena::new(64 * 1024).unwrap();
        let mut bytes = arena.slot(64).unwrap();
        crate::random::fill(bytes.bytes_mut()).unwrap();
        let xts = Xts::with_engine(crate::support::key(&arena, bytes.bytes()), Unit::B4096, engine)
            .unwrap();
        let mut data = vec![1; 8192];
        xts.encrypt(3, &mut data).unwrap();
        xts.decrypt(3, &mut data).unwrap();
        assert_eq!(residue(&[bytes.bytes()]), 0, "{engine:?}");
    }
}

/// The same unwrap without wiping: the crate's working block keeps the first 8 key bytes. Should this
/// test fail one day, the search above has become blind, or the crate better.
#[test]
fn the_search_finds_what_is_there() {
    let arena = arena();
    let kek = Kek::generate(&arena).unwrap();
    let home = HomeKey::generate(&arena).unwrap();
    let blob = kek.wrap(&home).unwrap();
    let mut out = arena.slot(32).unwrap();
    unwiped(&kek, &blob, out.bytes_mut());
    assert_eq!(out.bytes(), home.bytes());
    assert!(residue(&[home.bytes(), kek.bytes()]) > 0, "the unwiped call left something to find");
    wiping_stack(|| ());
    assert_eq!(residue(&[home.bytes(), kek.bytes()]), 0);
}

#[inline(never)]
fn unwiped(kek: &Kek, blob: &[u8], out: &mut [u8]) {
    let key: &[u8; 32] = kek.bytes().try_into().unwrap();
    KwAes256::new(key.into()).unwrap_key(blob, out).unwrap();
}
