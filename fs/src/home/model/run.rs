//! Sequences of operations, and the crash states tried after each.

use super::Dice;
use super::check::{Window, carrier_is_sound, content, judge, live_is_sound};
use super::disk::Disk;
use crate::backing::Backing;
use crate::home::file::HomeFile;
use crate::home::keys::HomeKeys;
use crate::home::space::Zeroing;
use crate::safe::Names;
use crypto::{Arena, HomeKey};
use std::sync::Arc;
use uuid::Uuid;

/// Crash states of a normal test run, about ten seconds in a debug build.
const STATES: u64 = 60_000;

/// Operations between two crashes that are survived.
const OPERATIONS: u64 = 12;

fn keys() -> Arc<HomeKeys> {
    let arena = Arena::new(256 * 1024).unwrap();
    let home = HomeKey::generate(&arena).unwrap();
    Arc::new(HomeKeys::new(home, Uuid::from_u128(1), Names::Plain, arena).unwrap())
}

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn open(disk: &Arc<Disk>, keys: &Arc<HomeKeys>) -> HomeFile<Arc<Disk>> {
    let stored = disk.len().unwrap();
    HomeFile::open(Arc::clone(disk), stored, Arc::clone(keys), "model".into()).unwrap()
}

/// A file that only we see, or others too.
fn open_for(disk: &Arc<Disk>, keys: &Arc<HomeKeys>, dice: &mut Dice) -> HomeFile<Arc<Disk>> {
    open(disk, keys).seen_by_us_only(dice.coin())
}

/// One life of a file: operations, crashes, and going on from what a crash left.
struct Life {
    keys: Arc<HomeKeys>,
    disk: Arc<Disk>,
    file: HomeFile<Arc<Disk>>,
    /// The image at the start, perhaps left by a crash.
    start: Vec<u8>,
    /// Contents since the last sync; the first is durable.
    contents: Vec<Vec<u8>>,
    /// Number of recorded changes after which each content was reached.
    reached: Vec<usize>,
    /// Syncs of the disk that `contents` knows of.
    syncs: u64,
    dice: Dice,
    states: u64,
}

impl Life {
    fn new(keys: &Arc<HomeKeys>, image: Vec<u8>, content: Vec<u8>, mut dice: Dice) -> Life {
        let disk = Disk::of(image.clone());
        let file = open_for(&disk, keys, &mut dice);
        let keys = Arc::clone(keys);
        Life {
            keys,
            disk,
            file,
            start: image,
            contents: vec![content],
            reached: vec![0],
            syncs: 0,
            dice,
            states: 0,
        }
    }

    fn now(&self) -> Vec<u8> {
        self.contents.last().unwrap().clone()
    }

    /// An offset near a border of the file, a unit or a sector.
    fn offset(&mut self) -> usize {
        let size = self.contents.last().unwrap().len();
        let base = match self.dice.below(6) {
            0 => size,
            1 => self.dice.index(4) * 4096,
            2 => self.dice.index(24) * 512,
            3 => 0,
            _ => self.dice.index(3 * 4096 + 100),
        };
        (base + self.dice.index(5)).saturating_sub(2)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.dice.below(5) {
            0 => 512 * (1 + self.dice.below(8)),
            1 => 1 + self.dice.below(5000),
            _ => 1 + self.dice.below(700),
        };
        (0..len).map(|_| self.dice.nonzero()).collect()
    }

    fn step(&mut self) {
        let mut expected = self.now();
        if self.file.verdict().is_err() {
            // A sync failed inside an operation, and fails all that follow until the file is opened again.
            assert!(self.file.sync(true).is_err(), "a failed sync is forgotten");
            self.file = open_for(&self.disk, &self.keys, &mut self.dice);
            self.file.doubt();
        }
        match self.dice.below(13) {
            12 => self.meet_a_fault(&mut expected),
            0 | 1 => {
                let size = self.offset();
                expected.resize(size, 0);
                self.file.truncate(size as u64).unwrap();
            }
            2 => {
                self.file.sync(self.dice.clone().coin()).unwrap();
            }
            3 => {
                let (from, len) = (self.offset(), self.bytes().len());
                let to = (from + len).min(expected.len());
                if from < to {
                    expected[from..to].fill(0);
                }
                self.file.zero(from as u64, len as u64, Zeroing::Punch, true).unwrap();
            }
            4 => self.write_to_a_full_disk(&mut expected),
            _ => {
                let (at, bytes) = (self.offset(), self.bytes());
                overwrite(&mut expected, at, &bytes);
                self.file.write(at as u64, &bytes).unwrap();
            }
        }
        live_is_sound(&self.disk, &self.file, &expected, &self.start);
        self.record(expected);
    }

    /// A write that may fail must leave the size, and every byte it was not to change.
    fn write_to_a_full_disk(&mut self, expected: &mut Vec<u8>) {
        let (at, bytes) = (self.offset(), self.bytes());
        let mut wanted = expected.clone();
        overwrite(&mut wanted, at, &bytes);
        self.disk.set_full(true);
        let result = self.file.write(at as u64, &bytes);
        self.disk.set_full(false);
        if result.is_ok() {
            *expected = wanted;
            return;
        }
        let left = content(&self.file);
        assert_eq!(left.len(), expected.len(), "a failed write changed the size");
        for (index, byte) in left.iter().enumerate() {
            let old = expected[index];
            assert!(*byte == old || *byte == wanted[index], "a failed write harmed byte {index}");
        }
        // What it grew to shows in a crash between growth and the way back.
        self.record(wanted);
        *expected = left;
    }

    /// One call of the storage fails: the operation may be done or not, or in part, but nothing else changes.
    fn meet_a_fault(&mut self, expected: &mut Vec<u8>) {
        let (at, bytes) = (self.offset(), self.bytes());
        let mut wanted = expected.clone();
        self.disk.set_fault(Some(self.dice.below(6)));
        let result = match self.dice.below(3) {
            0 => {
                wanted.resize(at, 0);
                self.file.truncate(at as u64)
            }
            1 => {
                let end = (at + bytes.len()).min(wanted.len());
                if at < end {
                    wanted[at..end].fill(0);
                }
                self.file.zero(at as u64, bytes.len() as u64, Zeroing::Punch, true)
            }
            _ => {
                overwrite(&mut wanted, at, &bytes);
                self.file.write(at as u64, &bytes)
            }
        };
        self.disk.set_fault(None);
        if result.is_ok() {
            *expected = wanted;
            return;
        }
        let left = content(&self.file);
        let unit = wanted.len().next_multiple_of(4096);
        let sizes = [expected.len(), wanted.len(), unit];
        assert!(sizes.contains(&left.len()), "a fault led to size {}", left.len());
        for (index, byte) in left.iter().enumerate() {
            let seen = [expected.get(index), wanted.get(index)];
            let zero = *byte == 0 && index >= expected.len();
            assert!(zero || seen.contains(&Some(byte)), "a fault harmed byte {index}");
        }
        self.record(wanted);
        *expected = left;
    }

    fn record(&mut self, content: Vec<u8>) {
        if self.disk.syncs() != self.syncs {
            // A sync, by the test or inside an operation, made what there was durable. If changes followed
            // it inside the same operation, what was before may still show.
            self.syncs = self.disk.syncs();
            let before = self.contents.last().unwrap().clone();
            self.contents = vec![before];
            self.reached = vec![0];
        }
        self.contents.push(content);
        self.reached.push(self.disk.changes());
    }

    /// Every crash with in-order persistence since the last sync, with the write in flight torn at each sector.
    fn crash_in_order(&mut self) {
        let synced = self.disk.durable_has_header();
        for done in 0..=self.disk.changes() {
            for torn in 0..=9 {
                let image = self.disk.in_order(done, torn);
                // The write in flight belongs to the first content that is reached after it.
                let last =
                    self.reached.iter().position(|&n| n > done).unwrap_or(self.reached.len() - 1);
                let first = self.reached.iter().rposition(|&n| n <= done).unwrap_or(0).min(last);
                let window = Window { contents: &self.contents[first..=last] };
                let by = 1 + self.dice.below(9000);
                assert!(
                    judge(&image, &self.keys, &window, synced, by).is_some(),
                    "the header was lost although everything persists in order"
                );
                let sound = carrier_is_sound(&image, &self.start);
                assert!(sound, "the carrier is not zero after a crash");
                self.states += 1;
            }
        }
    }

    /// Random crashes with any subset of data writes and any prefix of length changes.
    fn crash_reordered(&mut self, tries: u64) -> Option<(Vec<u8>, Vec<u8>)> {
        let synced = self.disk.durable_has_header();
        let mut survivor = None;
        for _ in 0..tries {
            let issued = self.dice.index(self.disk.changes() + 1);
            let image = self.disk.reordered(issued, &mut self.dice);
            let window = Window { contents: &self.contents };
            let by = 1 + self.dice.below(9000);
            let visible = judge(&image, &self.keys, &window, synced, by);
            self.states += 1;
            if let Some(visible) = visible {
                survivor = Some((image, visible));
            }
        }
        survivor
    }
}

fn overwrite(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

/// Lives one file through several crashes; returns how many crash states were judged.
fn live_once(keys: &Arc<HomeKeys>, seed: u64) -> u64 {
    let mut states = 0;
    let mut start = Some((Vec::new(), Vec::new()));
    let mut dice = Dice::new(seed);
    for _ in 0..3 {
        let Some((image, content)) = start.take() else { break };
        let mut life = Life::new(keys, image, content, dice.clone());
        for _ in 0..OPERATIONS {
            life.step();
        }
        life.crash_in_order();
        start = life.crash_reordered(40);
        states += life.states;
        dice = life.dice;
    }
    states
}

#[test]
fn no_crash_loses_synced_bytes_or_shows_garbage() {
    let (wanted, mut seed) = (env("COFFER_MODEL_STATES", STATES), env("COFFER_MODEL_SEED", 1));
    let (keys, mut states) = (keys(), 0);
    while states < wanted {
        let judged = std::panic::catch_unwind(|| live_once(&keys, seed));
        match judged {
            Ok(judged) => states += judged,
            Err(_) => panic!("repeat with COFFER_MODEL_SEED={seed} COFFER_MODEL_STATES=1"),
        }
        seed += 1;
    }
    assert!(states >= wanted);
}
