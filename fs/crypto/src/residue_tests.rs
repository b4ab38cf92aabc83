//! Tests that no key bytes are anywhere in the process once their owner is gone, by reading all of its
//! memory as a dump would. Each runs in a process of its own, so that other tests' keys and threads
//! stay out of the picture.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::arena::Slot;
use crate::keys::sealed::Bytes;
use crate::keys::{Dek, HomeKey, Kek, RootKey};
use crate::support::{in_child, role};
use crate::{Arena, Engine, KeySheet, MacKey, Protection, SheetKey, Unit, Xts};
#[cfg(feature = "aws-lc")]
use crate::{HostKey, PushContext};

/// Bytes looked at in one go; one piece of overlap finds what lies across two goes.
const WINDOW: usize = 64 * 1024;
const PIECE: usize = 8;

/// Keeps what is searched for from being found in the searcher's own memory and registers.
const MASK: u64 = 0x5bd1_e995_c0ff_ee11;

/// Looks for pieces of secrets in everything readable of this process.
struct Search {
    /// The pieces, masked.
    pieces: Vec<u64>,
    /// Where memory is copied to: secret memory, so that the copy is not found.
    window: Slot,
    memory: File,
}

impl Search {
    fn new(arena: &Arena) -> Self {
        let window = arena.slot(WINDOW).unwrap();
        Self { pieces: Vec::new(), window, memory: File::open("/proc/self/mem").unwrap() }
    }

    fn add(&mut self, secret: &[u8]) {
        let pieces = secret.as_chunks::<PIECE>().0;
        self.pieces.extend(pieces.iter().map(|piece| u64::from_le_bytes(*piece) ^ MASK));
    }

    /// How many places hold a piece.
    fn hits(&mut self) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter_map(readable).map(|(start, end)| self.hits_between(start, end)).sum()
    }

    fn hits_between(&mut self, start: u64, end: u64) -> usize {
        let mut hits = 0;
        let step = u64::try_from(WINDOW - PIECE + 1).unwrap();
        let mut at = start;
        while at < end {
            let len = usize::try_from(end - at).unwrap().min(WINDOW);
            let window = &mut self.window.bytes_mut()[..len];
            // Secret memory answers with an error: it cannot be read, which is the point of it.
            if self.memory.read_exact_at(window, at).is_ok() {
                let found = window.windows(PIECE).filter(|bytes| {
                    let value =
                        bytes.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
                    self.pieces.contains(&(value ^ MASK))
                });
                hits += found.count();
            }
            at += step;
        }
        hits
    }
}

/// The range of a line of `/proc/self/maps`, if it may be read.
fn readable(line: &str) -> Option<(u64, u64)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let parse = |text| u64::from_str_radix(text, 16).ok();
    rest.starts_with('r').then_some((parse(start)?, parse(end)?))
}

/// Runs the scenario in a process of its own.
fn alone(test: &str, scenario: impl FnOnce(&Arena, Search)) {
    if role().is_none() {
        let said = in_child(&format!("residue_tests::{test}"), "searcher", |_| {});
        assert!(said == "searched" || said.starts_with("SKIPPED"), "{said}");
        return;
    }
    let arena = Arena::new(512 * 1024).unwrap();
    if arena.protection() != Protection::SecretMemory {
        println!("child: SKIPPED: without memfd_secret the arena itself is found");
        return;
    }
    let search = Search::new(&arena);
    scenario(&arena, search);
    println!("child: searched");
}

fn use_cipher(xts: &Xts) {
    let mut data = vec![1; 16 * 1024];
    for sector in [0, 3] {
        xts.encrypt(sector, &mut data).unwrap();
        xts.decrypt(sector, &mut data).unwrap();
    }
}

/// AWS-LC keeps its schedules on the heap while a disk is open; that they are found then shows that
/// the search works. Nothing is left when the disk is closed.
#[cfg(feature = "aws-lc")]
#[test]
fn aws_lc_leaves_nothing_behind() {
    alone("aws_lc_leaves_nothing_behind", |arena, mut search| {
        let dek = Dek::generate(arena).unwrap();
        search.add(dek.bytes());
        assert_eq!(search.hits(), 0, "a key in the arena cannot be found");
        let xts = Xts::with_engine(dek, Unit::B4096, Engine::AwsLc).unwrap();
        use_cipher(&xts);
        assert!(search.hits() >= 8, "the schedules of two directions are on the heap");
        drop(xts);
        assert_eq!(search.hits(), 0, "after closing");
    });
}

#[test]
fn the_portable_engine_keeps_its_schedule_in_the_arena() {
    alone("the_portable_engine_keeps_its_schedule_in_the_arena", |arena, mut search| {
        let dek = Dek::generate(arena).unwrap();
        search.add(dek.bytes());
        let xts = Xts::with_engine(dek, Unit::B512, Engine::Portable).unwrap();
        use_cipher(&xts);
        assert_eq!(search.hits(), 0, "while open");
        drop(xts);
        assert_eq!(search.hits(), 0, "after closing");
    });
}

#[test]
fn the_life_of_keys_leaves_nothing_behind() {
    alone("the_life_of_keys_leaves_nothing_behind", |arena, mut search| {
        let root = RootKey::generate(arena).unwrap();
        let kek = root.derive_kek(arena, "uid").unwrap();
        let home = HomeKey::generate(arena).unwrap();
        let wrapped = kek.wrap(&home).unwrap();
        let opened: HomeKey = kek.open(arena, &wrapped).unwrap();
        let file = opened.file_key(arena, &[7; 32]).unwrap();
        let mac = MacKey::derive(&opened, arena, "label").unwrap();
        assert!(mac.verify(&[b"message"], &mac.tag(&[b"message"])));
        kek.check_value();
        let mut sheet = KeySheet::open(
            KeySheet::seal(&[SheetKey::Home(&opened), SheetKey::Disk(&file)]).unwrap(),
            arena,
        )
        .unwrap();
        let (_home, _disk) = (sheet.take_home().unwrap(), sheet.take_disk().unwrap());
        let secrets: [&[u8]; 5] =
            [root.bytes(), kek.bytes(), home.bytes(), file.bytes(), mac.bytes()];
        secrets.iter().for_each(|secret| search.add(secret));
        assert_eq!(search.hits(), 0);
    });
}

/// The pair of a host, a KEK that came sealed to it, and one that did not open.
#[cfg(feature = "aws-lc")]
#[test]
fn a_push_leaves_nothing_behind() {
    alone("a_push_leaves_nothing_behind", |arena, mut search| {
        let id = "kmip/1".parse().unwrap();
        let context = PushContext { host: [1; 16], start: [2; 16], key: &id, generation: 1 };
        let host = HostKey::generate(arena).unwrap();
        let kek = Kek::generate(arena).unwrap();
        search.add(host.private_bytes());
        search.add(kek.bytes());
        let sealed = host.public().seal(&kek, &context).unwrap();
        let opened = host.open(arena, &context, &sealed).unwrap();
        assert_eq!(search.hits(), 0, "while both live");
        let later = PushContext { generation: 2, ..context };
        assert!(host.open(arena, &later, &sealed).is_err());
        drop((host, kek, opened));
        assert_eq!(search.hits(), 0, "afterwards");
    });
}

/// A failed unwrap and a cipher that a panic dropped leave nothing either. (The panic also shows what
/// was left in vector registers: the machinery of unwinding saves them.)
#[test]
fn failures_leave_nothing_behind() {
    alone("failures_leave_nothing_behind", |arena, mut search| {
        for &engine in Engine::available() {
            let kek = Kek::generate(arena).unwrap();
            let dek = Dek::generate(arena).unwrap();
            search.add(kek.bytes());
            search.add(dek.bytes());
            let mut wrapped = kek.wrap(&dek).unwrap();
            wrapped[71] ^= 1;
            assert!(kek.open::<Dek>(arena, &wrapped).is_err());
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let xts = Xts::with_engine(dek, Unit::B4096, engine).unwrap();
                use_cipher(&xts);
                panic!("on purpose, with {xts:?}");
            }));
            assert!(panicked.is_err());
            assert_eq!(search.hits(), 0, "{engine:?}");
        }
    });
}
