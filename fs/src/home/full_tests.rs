//! A storage that fills up at any call that a change makes: nothing old is lost, and the next try succeeds.

use super::*;
use crate::backing::{Backing, Fault, FaultyBacking, FileBacking};
use crate::home::keys::HomeKeys;
use crate::home::layout::SECTOR_LEN;
use crate::safe::Names;
use crypto::{Arena, HomeKey};
use uuid::Uuid;

type Disk = Arc<FaultyBacking>;

/// Bytes that reach the storage although the call fails: whole sectors, as storage takes them.
const SHORT: [u64; 4] = [0, 512, 1024, 4096];

/// Most storage calls of one change.
const MOST_CALLS: u64 = 30;

#[derive(Debug, Clone, Copy)]
enum Change {
    Write { at: usize, len: usize },
    Size(usize),
}

impl Change {
    fn apply(self, file: &HomeFile<Disk>) -> Result<(), HomeError> {
        match self {
            Change::Write { at, len } => file.write(at as u64, &vec![0xee; len]),
            Change::Size(size) => file.truncate(size as u64),
        }
    }

    fn expected(self, old: &[u8]) -> Vec<u8> {
        let mut new = old.to_vec();
        match self {
            Change::Write { at, len } => {
                new.resize(old.len().max(at + len), 0);
                new[at..at + len].fill(0xee);
            }
            Change::Size(size) => new.resize(size, 0),
        }
        new
    }
}

fn content(file: &HomeFile<Disk>) -> Vec<u8> {
    file.read(0, in_memory(file.size()), <[u8]>::to_vec).unwrap()
}

fn open(disk: &Disk, keys: &Arc<HomeKeys>) -> HomeFile<Disk> {
    let stored = disk.len().unwrap();
    HomeFile::open(Arc::clone(disk), stored, Arc::clone(keys), "f".into()).unwrap()
}

/// After the fault, what was there before is there, sector by sector as it was or as it should have become.
fn old_or_new(found: &[u8], old: &[u8], new: &[u8], case: &str) {
    assert!([old.len(), new.len()].contains(&found.len()), "{case}: size {}", found.len());
    for (sector, bytes) in found.chunks(SECTOR_LEN).enumerate() {
        let range = sector * SECTOR_LEN..sector * SECTOR_LEN + bytes.len();
        // Longer than before, it reads as zeros or as what was written.
        let mut before = old.to_vec();
        before.resize(found.len().max(old.len()), 0);
        let is_old = before.get(range.clone()).is_some_and(|old| old == bytes);
        let is_new = new.get(range.clone()).is_some_and(|new| new == bytes);
        assert!(is_old || is_new, "{case}: sector {sector}");
    }
}

#[test]
fn no_byte_is_lost_wherever_the_storage_fills_up() {
    let arena = Arena::new(64 * 1024).unwrap();
    let key = HomeKey::generate(&arena).unwrap();
    let keys =
        Arc::new(HomeKeys::new(key, Uuid::from_u128(7), Names::Plain, arena.clone()).unwrap());
    let changes = [
        Change::Write { at: 0, len: 10 },
        Change::Write { at: 0, len: 5000 },
        Change::Write { at: 90, len: 5000 },
        Change::Write { at: 4096, len: 4096 },
        Change::Write { at: 4000, len: 700 },
        Change::Write { at: 20_001, len: 9 },
        Change::Size(12_345),
        Change::Size(4096),
    ];
    let mut faults = 0;
    let sizes = [None, Some(0), Some(100), Some(4096), Some(5000), Some(8192)];
    for (alone, size) in [false, true].into_iter().flat_map(|alone| sizes.map(|size| (alone, size)))
    {
        let image = Image { size, alone };
        let fit = changes.iter().filter(|change| image.can_take(change));
        for (change, short) in fit.flat_map(|change| SHORT.map(|short| (*change, short))) {
            for call in 0..MOST_CALLS {
                let case = format!("{change:?} of {image:?}, call {call}, {short} written");
                if !one(&keys, image, change, (call, short), &case) {
                    break;
                }
                faults += 1;
            }
        }
    }
    assert!(faults > 300, "only {faults} faults struck");
}

/// A stored file of this plain size, which nobody but us sees, or others too. Of no size, it is empty or, for others, has
/// room for a header and none in it.
#[derive(Debug, Clone, Copy)]
struct Image {
    size: Option<usize>,
    alone: bool,
}

impl Image {
    /// The storage of the test is a disk, which no write makes longer: an empty file must first be given a size.
    fn can_take(self, change: &Change) -> bool {
        let empty = self.size.is_none() && self.alone;
        !empty || matches!(change, Change::Write { at: 0, .. })
    }
}

fn stored(keys: &Arc<HomeKeys>, image: Image, content: &[u8]) -> Vec<u8> {
    match image {
        Image { size: None, alone: true } => return Vec::new(),
        Image { size: None, alone: false } => return vec![0; in_memory(HEADER)],
        Image { size: Some(_), .. } => {}
    }
    let raw = tempfile::tempfile().unwrap();
    let store = FileBacking::from(raw.try_clone().unwrap());
    let file = HomeFile::open(store, 0, Arc::clone(keys), "f".into()).unwrap();
    file.write(0, &[1]).unwrap();
    file.truncate(0).unwrap();
    file.write(0, content).unwrap();
    let mut image = vec![0; in_memory(file.store.len().unwrap())];
    file.store.read_at(0, &mut image).unwrap();
    image
}

/// One change with one fault; false when the change was done before the fault could strike.
fn one(
    keys: &Arc<HomeKeys>,
    image: Image,
    change: Change,
    (call, short): (u64, u64),
    case: &str,
) -> bool {
    let size = image.size.unwrap_or(0);
    let old: Vec<u8> = (0..size).map(|at| u8::try_from(at % 250).unwrap()).collect();
    let disk = Arc::new(FaultyBacking::with_image(stored(keys, image, &old)));
    let file = open(&disk, keys).seen_by_us_only(image.alone);
    let new = change.expected(&old);
    let before = disk.calls();
    disk.inject(Fault::full_at(before + call, short));
    let done = change.apply(&file);
    disk.heal();
    if disk.calls() - before <= call {
        assert!(done.is_ok() && content(&file) == new, "{case}: without a fault");
        return false;
    }
    match done {
        // What only prepares the next change may fail.
        Ok(()) => assert!(content(&file) == new, "{case}: it succeeded with other bytes"),
        Err(error) => {
            assert!(matches!(error, HomeError::Io { .. }), "{case}: {error}");
            old_or_new(&content(&file), &old, &new, case);
            old_or_new(&content(&open(&disk, keys)), &old, &new, case);
            change.apply(&file).unwrap_or_else(|error| panic!("{case}: again: {error}"));
        }
    }
    assert!(content(&file) == new, "{case}: in the end");
    assert!(content(&open(&disk, keys)) == new, "{case}: in the end, opened");
    true
}
