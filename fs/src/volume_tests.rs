//! Requests one at a time: bounds, alignment, calls to the storage, zeros, errors.

use super::steps::{faulty, read, write};
use super::*;
use crate::backing::{Call, Fault as Plan, FaultyBacking, When};
use crate::testing::arena;
use std::sync::Arc;

#[test]
fn the_payload_holds_no_plaintext_and_does_not_grow() {
    let (volume, backing) = faulty(16384, Unit::B4096);
    write(&volume, 0, &[0xAB; 16384]);
    assert_eq!(read(&volume, 0, 16384), [0xAB; 16384]);
    let live = backing.live();
    assert_eq!(live.len(), 16384);
    let plain = live.windows(4).filter(|w| *w == [0xAB; 4]).count();
    assert_eq!(plain, 0, "four equal bytes in a row of 16384 random ones have a chance of 2^-17");
}

#[test]
fn requests_outside_the_disk_are_refused() {
    let (volume, _) = faulty(8192, Unit::B4096);
    let mut buf = [0; 512];
    for offset in [8192 - 511, 8192, u64::MAX - 100, u64::MAX] {
        let faults = [
            volume.read(offset, &mut buf).unwrap_err(),
            volume.write(offset, &mut buf).unwrap_err(),
            volume.discard(offset, 512).unwrap_err(),
            volume.write_zeroes(offset, 512, true).unwrap_err(),
            volume.extents(offset, 512, 1).unwrap_err(),
        ];
        assert!(faults.iter().all(|error| error.fault() == Fault::OutOfRange), "{faults:?}");
    }
    volume.read(8192, &mut []).unwrap();
    volume.write(8192, &mut []).unwrap();
    volume.write_zeroes(8192, 0, true).unwrap();
    volume.discard(8192, 0).unwrap();
    assert_eq!(volume.extents(8192, 0, 9).unwrap(), []);
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let backing = Arc::new(FaultyBacking::new(4096));
    let geometry = Geometry { size: 4096, unit: Unit::B4096, read_only: true };
    let key = Dek::generate(&arena()).unwrap();
    let volume = Volume::open(Box::new(Arc::clone(&backing)), key, geometry).unwrap();
    assert!(volume.read_only());
    let before = backing.calls();
    for error in [
        volume.write(0, &mut [1]).unwrap_err(),
        volume.discard(0, 4096).unwrap_err(),
        volume.write_zeroes(0, 4096, false).unwrap_err(),
    ] {
        assert_eq!(error.fault(), Fault::ReadOnly);
    }
    volume.flush().unwrap();
    assert_eq!(backing.calls(), before);
    assert_eq!(read(&volume, 0, 4096), [0; 4096]);
}

#[test]
fn a_short_payload_is_refused_with_both_sizes() {
    let open = |len, size, unit| {
        let geometry = Geometry { size, unit, read_only: false };
        let key = Dek::generate(&arena()).unwrap();
        Volume::open(Box::new(FaultyBacking::new(len)), key, geometry).map(|v| v.size())
    };
    let text = open(8191, 8192, Unit::B4096).unwrap_err().to_string();
    assert!(text.contains("8191") && text.contains("8192"), "{text}");
    assert_eq!(
        open(8193, 8192, Unit::B4096).unwrap(),
        8192,
        "a longer one is what a shrink leaves"
    );
    let error = open(8192, 4608, Unit::B4096).unwrap_err();
    assert!(matches!(error, VolumeError::Geometry(GeometryError::Uneven { .. })), "{error}");
    let error = open(8192, 0, Unit::B512).unwrap_err();
    assert!(matches!(error, VolumeError::Geometry(GeometryError::Empty)), "{error}");
}

#[test]
fn aligned_requests_take_one_call() {
    let (volume, backing) = faulty(65536, Unit::B4096);
    let calls = |request: &dyn Fn()| {
        let before = backing.calls();
        request();
        backing.calls() - before
    };
    assert_eq!(calls(&|| write(&volume, 4096 + 512, &[1; 20480])), 1);
    assert_eq!(calls(&|| drop(read(&volume, 512, 20480))), 1);
    assert_eq!(calls(&|| write(&volume, 1, &[1; 100])), 2, "one sector read, one written");
    assert_eq!(calls(&|| write(&volume, 1, &[1; 4096])), 5);
    assert_eq!(calls(&|| volume.write_zeroes(512, 8192, true).unwrap()), 1);
    assert_eq!(calls(&|| volume.discard(1, 8192).unwrap()), 1);
    assert_eq!(calls(&|| volume.discard(1, 1022).unwrap()), 0);
}

#[test]
fn zeroes_keep_or_give_back_storage() {
    let (volume, backing) = faulty(65536, Unit::B4096);
    write(&volume, 0, &[9; 65536]);
    volume.write_zeroes(1000, 20000, false).unwrap();
    assert_eq!(backing.allocated(), 65536);
    volume.write_zeroes(30000, 20000, true).unwrap();
    assert_eq!(backing.allocated(), 65536 - 38 * 512);
    let data = read(&volume, 0, 65536);
    for (at, byte) in data.iter().enumerate() {
        let zero = (1000..21000).contains(&at) || (30000..50000).contains(&at);
        assert_eq!(*byte, if zero { 0 } else { 9 }, "byte {at}");
    }
    let ciphertext = backing.live();
    assert_eq!(ciphertext[1024..20992], [0; 19968], "whole sectors are zero ciphertext");
    backing.refuse_punch();
    volume.write_zeroes(0, 65536, true).unwrap();
    assert_eq!((read(&volume, 0, 65536), backing.allocated()), (vec![0; 65536], 65536));
}

#[test]
fn discard_touches_whole_sectors_only() {
    let (volume, backing) = faulty(16384, Unit::B4096);
    write(&volume, 0, &[9; 16384]);
    volume.discard(1000, 4000).unwrap();
    let data = read(&volume, 0, 16384);
    for (at, byte) in data.iter().enumerate() {
        assert_eq!(*byte, if (1024..4608).contains(&at) { 0 } else { 9 }, "byte {at}");
    }
    backing.refuse_punch();
    volume.discard(8192, 4096).unwrap();
    assert_eq!(read(&volume, 8192, 4096), [9; 4096], "advice that the storage cannot take");
}

#[test]
fn a_write_beside_a_hole_leaves_the_hole() {
    // Seven sectors of the unit stay unwritten: they must read as zeros, not as deciphered zeros.
    let (volume, _) = faulty(4096, Unit::B4096);
    write(&volume, 1024 + 10, &[5; 20]);
    let mut expected = [0; 4096];
    expected[1034..1054].fill(5);
    assert_eq!(read(&volume, 0, 4096), expected);
}

#[test]
fn extents_follow_writes_and_discards() {
    let (volume, _) = faulty(1 << 20, Unit::B4096);
    write(&volume, 65536, &[1; 8192]);
    write(&volume, 131_072 + 700, &[1; 10]);
    volume.discard(65536, 4096).unwrap();
    let extents = volume.extents(0, 1 << 20, 9).unwrap();
    let zero = |len| Extent { len, zero: true };
    let data = |len| Extent { len, zero: false };
    let last = (1 << 20) - 131_072 - 1024;
    let between = 131_072 + 512 - 73_728;
    assert_eq!(extents, [zero(69632), data(4096), zero(between), data(512), zero(last)]);
    assert_eq!(volume.extents(69000, 1000, 9).unwrap(), [zero(632), data(368)]);
}

#[test]
fn full_and_broken_storage_are_told_apart() {
    let (volume, backing) = faulty(8192, Unit::B4096);
    let plan = |errno| Plan { when: When::Always, on: None, errno, short: 0 };
    for (errno, fault) in [(28, Fault::NoSpace), (122, Fault::NoSpace), (5, Fault::Io)] {
        backing.heal();
        backing.inject(plan(errno));
        assert_eq!(volume.write(0, &mut [0; 512]).unwrap_err().fault(), fault);
        assert_eq!(volume.write(3, &mut [0; 5]).unwrap_err().fault(), fault);
        assert_eq!(volume.write_zeroes(0, 512, true).unwrap_err().fault(), fault);
        assert_eq!(volume.discard(0, 512).unwrap_err().fault(), fault);
        assert_eq!(volume.read(0, &mut [0; 512]).unwrap_err().fault(), fault);
        assert_eq!(volume.extents(0, 512, 1).unwrap_err().fault(), fault);
    }
    backing.heal();
    write(&volume, 0, &[3; 8192]);
    assert_eq!(read(&volume, 0, 8192), [3; 8192]);
}

#[test]
fn a_failed_flush_is_never_forgotten() {
    let (volume, backing) = faulty(4096, Unit::B4096);
    write(&volume, 0, &[1; 512]);
    backing.inject(Plan { when: When::Always, on: Some(Call::Flush), errno: 5, short: 0 });
    assert_eq!(volume.flush().unwrap_err().fault(), Fault::Io);
    backing.heal();
    // The storage would say yes now, but the write is gone.
    assert_eq!(volume.flush().unwrap_err().fault(), Fault::Io);
    assert_eq!(backing.crash(|_, _| true)[..512], [0; 512]);
}

#[test]
fn zeros_that_cannot_be_fast_are_refused_before_anything_changes() {
    let (volume, backing) = faulty(16384, Unit::B4096);
    write(&volume, 0, &[0xAB; 16384]);
    assert!(volume.zeroes_fast());
    // No whole sector: as slow as a write.
    assert!(!volume.write_zeroes_fast(10, 500, true).unwrap());
    assert!(!volume.write_zeroes_fast(511, 512, false).unwrap());
    assert!(volume.write_zeroes_fast(0, 0, true).unwrap());
    assert_eq!(read(&volume, 0, 16384), [0xAB; 16384]);
    for may_punch in [true, false] {
        write(&volume, 0, &[0xAB; 16384]);
        assert!(volume.write_zeroes_fast(1000, 5000, may_punch).unwrap());
        assert_eq!(read(&volume, 1000, 5000), [0; 5000]);
        assert_eq!((read(&volume, 999, 1)[0], read(&volume, 6000, 1)[0]), (0xAB, 0xAB));
    }
    write(&volume, 0, &[0xAB; 16384]);
    backing.refuse_punch();
    assert!(!volume.zeroes_fast());
    assert!(!volume.write_zeroes_fast(0, 16384, true).unwrap());
    assert_eq!(read(&volume, 0, 16384), [0xAB; 16384]);
    let outside = volume.write_zeroes_fast(16000, 512, true).unwrap_err();
    assert_eq!(outside.fault(), Fault::OutOfRange);
}

#[test]
fn leading_zeros_and_advice_keep_to_the_disk() {
    let (volume, _) = faulty(16384, Unit::B4096);
    write(&volume, 4096, &[1; 4096]);
    assert_eq!(volume.zeros_at(0, 16384).unwrap(), 4096);
    assert_eq!(volume.zeros_at(4096, 100).unwrap(), 0);
    assert_eq!(volume.zeros_at(16383, 2).unwrap_err().fault(), Fault::OutOfRange);
    volume.prefetch(0, 16384).unwrap();
    assert_eq!(volume.prefetch(1, 16384).unwrap_err().fault(), Fault::OutOfRange);
    assert_eq!(read(&volume, 4096, 4096), [1; 4096]);
}
