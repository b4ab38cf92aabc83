//! Random operations on one file through the mount, against an array in memory.
//!
//! `COFFER_HOME_SEED` starts from another seed, `COFFER_HOME_STEPS` does more.

use super::data::map;
use super::mounted::{Mounted, Store, pattern};
use cryptfs::door::Caching;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

/// Largest size the file reaches.
const MOST: usize = 300_000;

/// Steps of a normal run, about two seconds.
const STEPS: u64 = 1500;

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// xorshift64* (Vigna 2016).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % bound.max(1)
    }

    /// A range inside the largest size, often at borders of sectors and units.
    fn range(&mut self) -> (usize, usize) {
        let grain = [1, 512, 4096][self.below(3)];
        let at = (self.below(MOST) / grain * grain + self.below(2)).min(MOST - 1);
        let most = [10, 600, 5000, 70_000][self.below(4)];
        (at, (1 + self.below(most)).min(MOST - at))
    }
}

struct Run {
    expected: Vec<u8>,
    dice: Dice,
    seed: u64,
}

impl Run {
    fn step(&mut self, mount: &Mounted, file: &File, number: u64) {
        let (at, len) = self.dice.range();
        let end = at + len;
        let operation = self.dice.below(12);
        match operation {
            0 | 1 => {
                file.set_len(at as u64).unwrap();
                self.expected.resize(at, 0);
            }
            2 => {
                fallocate(
                    file,
                    FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    at as u64,
                    len as u64,
                )
                .unwrap();
                self.zero(at, end);
            }
            3 => {
                fallocate(file, FallocateFlags::ZERO_RANGE, at as u64, len as u64).unwrap();
                self.grow(end);
                self.zero(at, end);
            }
            4 => {
                fallocate(file, FallocateFlags::empty(), at as u64, len as u64).unwrap();
                self.grow(end);
            }
            5 if !self.expected.is_empty() => {
                let size = self.expected.len();
                let expected = &mut self.expected;
                map(file, size, |bytes| {
                    assert!(*bytes == expected[..], "mapped read");
                    let (at, end) = (at.min(size), end.min(size));
                    bytes[at..end].copy_from_slice(&pattern(end - at));
                    expected[at..end].copy_from_slice(&pattern(end - at));
                });
            }
            6 => file.sync_data().unwrap(),
            7 => {
                let from = self.dice.below(MOST);
                self.copy(file, from, at, len);
            }
            _ => {
                let mut bytes = pattern(len);
                bytes[0] = u8::try_from(number % 255).unwrap() + 1;
                file.write_all_at(&bytes, at as u64).unwrap();
                self.grow(end);
                self.expected[at..end].copy_from_slice(&bytes);
            }
        }
        assert_eq!(file.metadata().unwrap().len(), self.expected.len() as u64);
        if number.is_multiple_of(8) {
            let back = fs::read(mount.at("f")).unwrap();
            assert!(
                back == self.expected,
                "step {number}, operation {operation}, seed {}",
                self.seed
            );
        }
    }

    fn copy(&mut self, file: &File, from: usize, to: usize, len: usize) {
        let len = len.min(MOST - from);
        if from < to + len && to < from + len {
            return;
        }
        let (mut source, mut target) = (from as u64, to as u64);
        let copied =
            rustix::fs::copy_file_range(file, Some(&mut source), file, Some(&mut target), len)
                .unwrap();
        let bytes = self.expected.get(from..from + copied).unwrap_or_default().to_vec();
        assert_eq!(bytes.len(), copied);
        if copied > 0 {
            self.grow(to + copied);
            self.expected[to..to + copied].copy_from_slice(&bytes);
        }
    }

    fn grow(&mut self, end: usize) {
        self.expected.resize(self.expected.len().max(end), 0);
    }

    fn zero(&mut self, at: usize, end: usize) {
        let end = end.min(self.expected.len());
        if at < end {
            self.expected[at..end].fill(0);
        }
    }
}

#[test]
fn random_operations_agree_with_an_array() {
    agree_with_an_array(Caching::Shared);
}

#[test]
fn random_operations_through_collected_writes_agree_with_an_array() {
    agree_with_an_array(Caching::Exclusive);
}

fn agree_with_an_array(caching: Caching) {
    let store = Store::new();
    let Some(mut mount) = store.mount_as(caching) else { return };
    let (seed, steps) = (env("COFFER_HOME_SEED", 1), env("COFFER_HOME_STEPS", STEPS));
    let mut run = Run { expected: Vec::new(), dice: Dice(seed * 2 + 1), seed };
    let mut number = 0;
    while number < steps {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(mount.at("f"))
            .unwrap();
        for _ in 0..100 {
            run.step(&mount, &file, number);
            number += 1;
        }
        drop(file);
        mount.unmount();
        mount = store.mount_as(caching).unwrap();
        assert!(fs::read(mount.at("f")).unwrap() == run.expected, "after a remount, seed {seed}");
    }
    mount.unmount();
}
