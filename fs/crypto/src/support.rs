//! What the unit tests share: arenas, keys of known bytes, vectors, memory next to guard pages.

use std::path::PathBuf;
use std::process::Command;

use crate::arena::Region;
use crate::keys::sealed::FromSlot;
use crate::keys::{DataKey, Dek};
use crate::{Arena, Engine, Unit, Xts};

/// A small arena.
pub(crate) fn arena() -> Arena {
    Arena::new(64 * 1024).unwrap()
}

/// A key of known bytes.
pub(crate) fn key<K: FromSlot>(arena: &Arena, bytes: &[u8]) -> K {
    let mut slot = arena.slot(bytes.len()).unwrap();
    slot.bytes_mut().copy_from_slice(bytes);
    K::from_slot(slot).unwrap()
}

/// A disk key of known bytes.
pub(crate) fn dek(bytes: &[u8; Dek::LEN]) -> Dek {
    key(&arena(), bytes)
}

/// 0, 1, 2 ... as key bytes.
pub(crate) fn counting<const N: usize>() -> [u8; N] {
    std::array::from_fn(|index| u8::try_from(index % 256).unwrap())
}

/// The disk cipher of a known key.
pub(crate) fn xts(bytes: &[u8; Dek::LEN], unit: Unit, engine: Engine) -> Xts {
    Xts::with_engine(dek(bytes), unit, engine).unwrap()
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// Different bytes at every place, the same for a seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[7]
    };
    (0..len).map(|_| next()).collect()
}

/// A file of the big public vector sets, which are kept beside the source tree, or `None` with a line
/// that says so.
pub(crate) fn vectors(file: &str) -> Option<String> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors");
    let folder =
        std::env::var_os("COFFER_VECTORS").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no vectors at {} (set COFFER_VECTORS)\n", path.display()),
        );
    }
    text
}

/// The records of a CAVP file: blocks of `NAME = VALUE` lines.
pub(crate) fn records(text: &str) -> Vec<std::collections::HashMap<&str, &str>> {
    text.split("\n\n")
        .map(|block| block.lines().filter_map(|line| line.trim().split_once(" = ")).collect())
        .collect()
}

/// Bytes that begin and end at inaccessible pages.
pub(crate) struct Fenced(Region);

impl Fenced {
    /// `pages` pages.
    pub(crate) fn new(pages: usize) -> Self {
        Self(Region::new_locked(pages * rustix::param::page_size()).unwrap())
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the region is mapped, zeroed memory of that length, owned by `self` alone.
        unsafe { std::slice::from_raw_parts_mut(self.0.base().as_ptr(), self.0.len()) }
    }
}

/// The part that a test plays when it was started by [`in_child`], else `None`.
pub(crate) fn role() -> Option<String> {
    std::env::var("CRYPTO_TEST_ROLE").ok()
}

/// Runs the test of this name in a process of its own with a part to play; returns what it prints in
/// lines that start with `child: `. Limits and descriptors of the test process stay as they are.
pub(crate) fn in_child(test: &str, role: &str, setup: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("CRYPTO_TEST_ROLE", role);
    setup(&mut command);
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    printed.lines().filter_map(|line| line.split_once("child: ")).map(|(_, said)| said).collect()
}
