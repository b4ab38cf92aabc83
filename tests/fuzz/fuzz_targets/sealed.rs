//! Safes and descriptors: any bytes are parsed or refused, and a file that differs from a sealed one in any byte
//! does not open.

#![no_main]

use cryptfs::descriptor::Descriptor;
use cryptfs::safe::{Policy, Safe};
use cryptfs::seal::{self, Body, MAX_SEALED, MAX_WRAPS, Sealed, Wrap};
use crypto::{Arena, Dek, HomeKey, Kek, KeyId};
use fuzz::edit::Edit;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::LazyLock;
use uuid::Uuid;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Raw(&'a [u8]),
    Edited { descriptor: bool, edits: Vec<Edit> },
}

/// One safe and one descriptor, and what opens them.
struct Good {
    arena: Arena,
    kek: Kek,
    id: KeyId,
    safe: Vec<u8>,
    descriptor: Vec<u8>,
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let arena = Arena::new(64 * 1024).expect("locked memory");
    let kek = Kek::generate(&arena).expect("a key");
    let id: KeyId = "native/0123456789abcdef".parse().expect("a key id");
    let name = || "web01".parse().expect("a name");
    let vm = Uuid::from_u128(7);

    let home = HomeKey::generate(&arena).expect("a key");
    let wraps = vec![Wrap::make(&kek, &id, &home).expect("a wrap")];
    let safe = written(&mut Safe::new(vm, name(), Policy::default(), wraps), &home, &arena);

    let dek = Dek::generate(&arena).expect("a key");
    let wraps = vec![Wrap::make(&kek, &id, &dek).expect("a wrap")];
    let body = Descriptor::new(Uuid::from_u128(8), name(), vm, 1 << 20, None, wraps);
    let descriptor = written(&mut body.expect("a descriptor"), &dek, &arena);
    Good { arena, kek, id, safe, descriptor }
});

/// The bytes of a sealed file.
fn written<B: Body>(body: &mut B, key: &B::Key, arena: &Arena) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sealed");
    seal::create(&path, body, key, arena).expect("a sealed file");
    std::fs::read(path).expect("the file that was written")
}

/// Parses, and looks at what a parsed body promises.
fn parse<B: Body>(bytes: &[u8]) -> Option<Sealed<B>> {
    let sealed = Sealed::<B>::parse(Path::new("fuzzed"), bytes).ok()?;
    let wraps = sealed.unverified().wraps().len();
    assert!((1..=MAX_WRAPS).contains(&wraps) && bytes.len() <= MAX_SEALED);
    Some(sealed)
}

/// A changed file must not open.
fn open<B: Body>(good: &Good, from: &[u8], edits: &[Edit]) {
    let mut bytes = from.to_vec();
    edits.iter().for_each(|edit| edit.apply(&mut bytes));
    let opened = parse::<B>(&bytes).map(|sealed| sealed.open(&good.kek, &good.id, &good.arena));
    match opened {
        Some(Ok(_)) => assert!(bytes == from, "a changed file opens"),
        _ => assert!(bytes != from, "the file that was written does not open"),
    }
}

fuzz_target!(|input: Input| {
    match input {
        Input::Raw(bytes) => {
            let both = (parse::<Safe>(bytes).is_some(), parse::<Descriptor>(bytes).is_some());
            assert!(both != (true, true), "a file is a safe and a descriptor");
        }
        Input::Edited { descriptor: true, edits } => {
            open::<Descriptor>(&GOOD, &GOOD.descriptor, &edits);
        }
        Input::Edited { descriptor: false, edits } => open::<Safe>(&GOOD, &GOOD.safe, &edits),
    }
});
