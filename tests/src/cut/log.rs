//! The log of a disk, and what the disk may hold when power is lost.
//!
//! Owns the rule: what was written before the last flush is there; of what was written after it, any selection of
//! sectors may be. That is what a disk with a volatile cache promises (the block layer's FLUSH and FUA, here always
//! a flush after the write). Flow: [`Replay::at`] goes on to an event, [`Replay::state`] builds one state there.

use super::dice::Dice;
use super::image::{Image, PAGE};

/// Bytes that a disk writes as one, at the least.
const SECTOR: usize = 512;

/// The first page is written as one: a superblock of two sectors with a checksum (ext4) has no defence of its own
/// against being torn, other than its copies and a tool.
const WHOLE: u64 = PAGE as u64;

/// What came to the disk, in its order.
#[derive(Debug, Clone)]
pub enum Event {
    /// Bytes at a place.
    Write {
        /// Where.
        at: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Everything answered before is to be durable, and was when this was answered.
    Flush,
    /// The test begins this step: what it does may show from here on.
    Begun(usize),
    /// The step was answered: what it promises must show from here on.
    Done(usize),
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write { at, bytes } => write!(f, "write {} bytes at {at}", bytes.len()),
            Self::Flush => write!(f, "flush"),
            Self::Begun(step) => write!(f, "begun {step}"),
            Self::Done(step) => write!(f, "done {step}"),
        }
    }
}

/// What is lost of the writes since the last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    Nothing,
    /// The end of the last write, from a sector of it on.
    Torn,
    /// Any pages.
    Pages,
    /// Any sectors.
    Sectors,
}

/// A walk through a log.
#[derive(Debug)]
pub struct Replay<'a> {
    events: &'a [Event],
    /// The disk as of the last flush before `position`.
    durable: Image,
    /// Events up to and with that flush.
    flushed: usize,
    /// Events that came before the power was lost.
    position: usize,
}

impl<'a> Replay<'a> {
    /// Begins before the first event, with what the disk held.
    #[must_use]
    pub fn new(before: Image, events: &'a [Event]) -> Self {
        Self { events, durable: before, flushed: 0, position: 0 }
    }

    /// Loses power after this many events, no fewer than the last time.
    pub fn at(&mut self, position: usize) {
        self.position = position.max(self.position).min(self.events.len());
        let ahead = &self.events[self.flushed..self.position];
        let Some(flush) = ahead.iter().rposition(|event| matches!(event, Event::Flush)) else {
            return;
        };
        for event in &ahead[..flush] {
            if let Event::Write { at, bytes } = event {
                self.durable.write(*at, bytes);
            }
        }
        self.flushed += flush + 1;
    }

    /// Writes that may be lost here.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.writes().count()
    }

    /// Steps begun, and steps answered, before the power was lost.
    #[must_use]
    pub fn steps(&self) -> (usize, usize) {
        let mut steps = (0, 0);
        for event in &self.events[..self.position] {
            match event {
                Event::Begun(step) => steps.0 = *step,
                Event::Done(step) => steps.1 = *step,
                Event::Write { .. } | Event::Flush => {}
            }
        }
        steps
    }

    /// What the disk may hold now.
    #[must_use]
    pub fn state(&self, loss: Loss, dice: &mut Dice) -> Image {
        let mut image = self.durable.clone();
        let last = self.pending().saturating_sub(1);
        let kept_of_8 = dice.below(9);
        for (number, (at, bytes)) in self.writes().enumerate() {
            let grain = match loss {
                Loss::Torn | Loss::Sectors if at < WHOLE => PAGE,
                Loss::Torn if number == last => {
                    let sectors = dice.below(bytes.len() / SECTOR);
                    image.write(at, &bytes[..sectors * SECTOR]);
                    continue;
                }
                Loss::Nothing | Loss::Torn => {
                    image.write(at, bytes);
                    continue;
                }
                Loss::Pages => PAGE,
                Loss::Sectors => SECTOR,
            };
            let mut place = at;
            for piece in bytes.chunks(grain) {
                if dice.below(8) < kept_of_8 {
                    image.write(place, piece);
                }
                place += piece.len() as u64;
            }
        }
        image
    }

    fn writes(&self) -> impl Iterator<Item = (u64, &'a [u8])> {
        self.events[self.flushed..self.position].iter().filter_map(|event| match event {
            Event::Write { at, bytes } => Some((*at, bytes.as_slice())),
            Event::Flush | Event::Begun(_) | Event::Done(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank() -> Image {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![0; 1 << 20]).expect("a file");
        Image::load(&path)
    }

    fn write(at: u64, byte: u8) -> Event {
        Event::Write { at, bytes: vec![byte; PAGE] }
    }

    #[test]
    fn flushed_writes_stay_and_others_may_go() {
        let page = PAGE as u64;
        let events = [
            Event::Begun(1),
            write(0, 1),
            Event::Flush,
            Event::Done(1),
            Event::Begun(2),
            write(0, 2),
            write(page, 3),
        ];
        let mut replay = Replay::new(blank(), &events);
        replay.at(2);
        assert_eq!((replay.steps(), replay.pending()), ((1, 0), 1));
        replay.at(events.len());
        assert_eq!((replay.steps(), replay.pending()), ((2, 1), 2));
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let image = replay.state(Loss::Pages, &mut Dice::new(seed));
            seen.insert((image.read(0, 1), image.read(page, 1)));
            let torn = replay.state(Loss::Torn, &mut Dice::new(seed)).read(page, PAGE);
            let end = torn.iter().position(|byte| *byte == 0).unwrap_or(PAGE);
            assert!(end.is_multiple_of(SECTOR) && torn[end..].iter().all(|byte| *byte == 0));
        }
        let all = [(1, 0), (1, 3), (2, 0), (2, 3)].map(|(a, b)| (vec![a], vec![b]));
        assert_eq!(seen, all.into());
        let image = replay.state(Loss::Nothing, &mut Dice::new(1));
        assert_eq!((image.read(0, 1), image.read(page, 1)), (vec![2], vec![3]));
    }
}
