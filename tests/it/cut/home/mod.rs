//! Power cuts under a mounted home, in both modes: what was synced is there, and nothing shows that was never written.

pub(super) mod judge;

mod history;
mod names;
mod served;
mod steps;

use super::ground::{Cut, Ground, ORDERED, OTHERS, Record, Storage};
use super::{STATES, number, report};
use cryptfs::door::Caching;
use history::History;
use judge::{judge, look};
use served::Keys;
use std::fs::{self, File};
use std::path::Path;
use steps::Steps;
use tests::cut::{Dice, Image};
use tests::needs;

/// Steps of a recording.
const STEPS: usize = 140;

/// Losses of power that a home goes through in a test, each on what the one before has left.
const LIVES: usize = 2;

/// One recording: what was done, and what came to the disk.
struct Run<'a> {
    keys: &'a Keys,
    caching: Caching,
    history: History,
    record: Record,
}

impl<'a> Run<'a> {
    /// Records on a new disk, or on one that a loss of power has left.
    fn record(
        ground: &Ground,
        keys: &'a Keys,
        caching: Caching,
        dice: &Dice,
        left: Option<Image>,
    ) -> Self {
        let live = left.map_or_else(|| ground.live(), |image| ground.live_on(image));
        let store = live.folder().join("home");
        fs::create_dir_all(&store).unwrap();
        let home = ground.scratch.join("home");
        let served = keys.serve(&store, &home, caching);
        let history = History::adopt(&look(&home).unwrap());
        let before = live.begin();
        let mut steps = Steps::new(&live.recorder, &home, &store, dice.clone(), history);
        while steps.history.next() <= STEPS {
            steps.go();
        }
        let history = steps.end();
        // The log ends where the last step does: what an unmount flushes would hide what it should show.
        let log = live.recorder.log();
        served.unmount();
        let mut record = live.end(before);
        record.log = log;
        Self { keys, caching, history, record }
    }

    /// Judges so many states; gives one of them.
    fn judge(&self, ground: &Ground, states: usize, dice: &mut Dice) -> Option<Image> {
        let (bench, point) = (ground.bench(), ground.scratch.join("home"));
        let (mut left, chosen) = (None, states / 2 + dice.below(states / 2));
        self.record.cuts(states, dice, |cut, image, dice| {
            let opened = bench.with(cut, image, |root| self.open(cut, root, &point, dice));
            report(cut, &self.record, &self.history.told, opened.and_then(|judged| judged));
            if cut.number == chosen {
                left = Some(image.clone());
            }
        });
        left
    }

    /// Opens one state, and judges it.
    fn open(&self, cut: Cut, root: &Path, point: &Path, dice: &mut Dice) -> Result<(), String> {
        let store = root.join("home");
        let found = self.keys.check(&store, false);
        if !found.damaged.is_empty() {
            return Err(format!("the check finds damage: {:?}", found.damaged));
        }
        let served = self.keys.serve(&store, point, self.caching);
        let judged = judge(point, &self.history, cut);
        let grown = match dice.chance(1, 3) && judged.is_ok() {
            true => grow(point, dice),
            false => Ok(()),
        };
        served.unmount();
        judged.and(grown)?;
        let mended = self.keys.check(&store, true);
        let again = self.keys.check(&store, false);
        match mended.damaged.is_empty() && again.leftovers.is_empty() && again.damaged.is_empty() {
            true => Ok(()),
            false => Err(format!("a repair leaves {again:?} of {mended:?}")),
        }
    }
}

/// Makes every file longer: what it had must stay, and what is new must be zero.
fn grow(folder: &Path, dice: &mut Dice) -> Result<(), String> {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            grow(&path, dice)?;
        } else if stat.is_file() {
            let before = fs::read(&path).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(stat.len() + 1 + dice.below(9000) as u64).unwrap();
            let after = fs::read(&path).unwrap();
            if after[..before.len()] != before || after[before.len()..].iter().any(|&b| b != 0) {
                return Err(format!("{} shows old bytes when it grows", path.display()));
            }
        }
    }
    Ok(())
}

/// Records and replays, life after life; says how many states were judged. Without a number it is every event with
/// every kind of loss, and in later lives every event once.
fn try_states(storage: Storage, caching: Caching, states: Option<usize>) -> usize {
    let (ground, keys) = (Ground::new(storage), Keys::new());
    let mut dice = Dice::new(number("COFFER_CUT_SEED").unwrap_or(1) as u64);
    let (mut left, mut judged) = (None, 0);
    for life in 0..LIVES {
        let run = Run::record(&ground, &keys, caching, &dice, left.take());
        let states = states.map_or_else(
            || run.record.log.len() * if life == 0 { 4 } else { 1 },
            |all| all / LIVES,
        );
        left = run.judge(&ground, states, &mut dice);
        judged += states;
    }
    judged
}

fn short(caching: Caching) {
    let states = number("COFFER_CUT_STATES").unwrap_or(STATES);
    assert!(try_states(ORDERED, caching, Some(states)) + LIVES > states);
}

#[test]
fn a_shared_home_keeps_what_was_synced() {
    needs!(Root, Fuse, Program("losetup"), Program("mkfs.ext4"), Program("e2fsck"));
    short(Caching::Shared);
}

#[test]
fn an_exclusive_home_keeps_what_was_synced() {
    needs!(Root, Fuse, Program("losetup"), Program("mkfs.ext4"), Program("e2fsck"));
    short(Caching::Exclusive);
}

#[test]
fn a_home_keeps_what_was_synced_whichever_write_is_the_last() {
    needs!(Root, Fuse, Long, Program("losetup"), Program("mkfs.ext4"), Program("mkfs.xfs"));
    for storage in [ORDERED].into_iter().chain(OTHERS) {
        for caching in [Caching::Shared, Caching::Exclusive] {
            let start = std::time::Instant::now();
            let states = try_states(storage, caching, number("COFFER_CUT_STATES"));
            let words = [storage.make.join(" "), storage.options.to_owned()].join(", ");
            println!("{states} states, {caching:?}, {words}: {:?}", start.elapsed());
            assert!(states > 0);
        }
    }
}
