//! Many threads on one disk.

use super::steps::{faulty, read};
use crypto::Unit;

const THREADS: u8 = 8;
const ROUNDS: u8 = 100;
/// Bytes that belong to one thread in each share of the disk; two and a half shares are one sector.
const SHARE: u64 = 200;
const SIZE: u64 = 16384;

/// The ranges of a thread: every eighth share.
fn shares(thread: u8) -> impl Iterator<Item = u64> {
    (0..SIZE / SHARE)
        .filter(move |n| n % u64::from(THREADS) == u64::from(thread))
        .map(|n| n * SHARE)
}

#[test]
fn unaligned_writers_never_lose_their_neighbours_bytes() {
    let (volume, _) = faulty(SIZE, Unit::B4096);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let volume = &volume;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let fill = thread * 16 + round % 16;
                    for at in shares(thread) {
                        volume.write(at, &mut [fill; 200]).unwrap();
                    }
                    for at in shares(thread) {
                        assert_eq!(read(volume, at, 200), [fill; 200], "thread {thread} at {at}");
                    }
                }
            });
        }
    });
    for thread in 0..THREADS {
        for at in shares(thread) {
            assert_eq!(read(&volume, at, 200), [thread * 16 + (ROUNDS - 1) % 16; 200]);
        }
    }
}

#[test]
fn aligned_and_unaligned_writers_of_different_sectors_do_not_meet() {
    let (volume, _) = faulty(SIZE, Unit::B4096);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let volume = &volume;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    for sector in (u64::from(thread)..SIZE / 512).step_by(4) {
                        // Odd threads leave the last byte alone, which stays zero.
                        let len = if thread % 2 == 0 { 512 } else { 511 };
                        volume.write(sector * 512, &mut vec![round; len]).unwrap();
                        let mut expected = vec![round; len];
                        expected.resize(512, 0);
                        assert_eq!(read(volume, sector * 512, 512), expected);
                    }
                }
            });
        }
    });
}

#[test]
fn flushes_from_many_threads_cover_their_writes() {
    let (volume, backing) = faulty(SIZE, Unit::B4096);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (volume, backing) = (&volume, &backing);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let sector = u64::from(thread);
                    volume.write(sector * 512, &mut [round; 512]).unwrap();
                    volume.flush().unwrap();
                    let mut image = backing.crash(|_, _| false);
                    volume.xts.decrypt(0, &mut image).unwrap();
                    let start = usize::from(thread) * 512;
                    assert_eq!(image[start..start + 512], [round; 512]);
                }
            });
        }
    });
}
