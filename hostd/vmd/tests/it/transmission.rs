//! Requests and their answers, byte by byte.

use super::support::{SIZE, Session, export, file, plain_export, request};
use cryptfs::backing::{Call, Fault, FaultyBacking, When};
use std::sync::Arc;
use vmd::nbd::connection::ConnectionError;
use vmd::nbd::proto::{MAX_DISCARDED, MAX_PAYLOAD, Violation};

/// A length that no client may announce.
const LONGEST: u64 = 0xffff_ffff;

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

#[test]
fn written_data_reads_back_and_neighbours_stay() {
    let mut session = Session::transmitting(plain_export());
    let client = &mut session.client;
    for (offset, len) in [(0, 4096), (4096, 512), (5000, 1), (8191, 3), (12288, 100_000)] {
        let data: Vec<u8> = (0..len).map(|i: u32| u8::try_from(i % 251).unwrap() | 1).collect();
        assert_eq!(client.write(offset, &data), 0);
        assert_eq!(client.read(offset, len).unwrap(), data);
    }
    assert_eq!(client.read(4608, 392).unwrap(), [0; 392]);
    assert_eq!(client.read(8194, 30).unwrap(), [0; 30]);
    session.end().unwrap();
}

#[test]
fn ranges_outside_are_refused_and_the_connection_stays() {
    let mut session = Session::transmitting(plain_export());
    let client = &mut session.client;
    for (offset, length) in [(SIZE, 512), (SIZE - 511, 512), (u64::MAX, 512), (1 << 63, 512)] {
        assert_eq!(client.read(offset, length), Err(EINVAL));
        assert_eq!(client.write(offset, &[1; 512]), ENOSPC);
        assert_eq!(client.call(request(4, 0, 3, offset, length), &[]), EINVAL);
        assert_eq!(client.call(request(6, 0, 3, offset, length), &[]), ENOSPC);
    }
    assert_eq!(client.read(SIZE - 512, 512).unwrap(), [0; 512]);
    session.end().unwrap();
}

#[test]
fn unknown_commands_and_flags_are_refused_and_the_connection_stays() {
    let mut session = Session::transmitting(plain_export());
    let client = &mut session.client;
    for command in [7, 8, 100, 0xffff] {
        assert_eq!(client.call(request(command, 0, 9, 0, 512), &[]), EINVAL);
    }
    for flag in [1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 15] {
        assert_eq!(client.call(request(0, flag, 9, 0, 512), &[]), EINVAL);
        assert_eq!(client.call(request(1, flag, 9, 0, 512), &[7; 512]), EINVAL);
    }
    assert_eq!(client.read(0, 512).unwrap(), [0; 512]);
    session.end().unwrap();
}

#[test]
fn zero_lengths_are_no_event() {
    let mut session = Session::transmitting(plain_export());
    let client = &mut session.client;
    for command in [0, 1, 3, 4, 6] {
        assert_eq!(client.call(request(command, 0, 1, 0, 0), &[]), 0);
        assert_eq!(client.call(request(command, 1, 1, SIZE, 0), &[]), 0);
    }
    session.end().unwrap();
}

#[test]
fn payloads_over_the_limit_are_refused_and_skipped() {
    let mut session = Session::transmitting(plain_export());
    let client = &mut session.client;
    assert_eq!(client.read(0, MAX_PAYLOAD + 1), Err(EINVAL));
    let length = 33 * 1024 * 1024;
    let payload = vec![0x25; usize::try_from(length).unwrap()];
    assert_eq!(client.call(request(1, 0, 8, 0, length), &payload), EINVAL);
    assert_eq!(client.read(0, 512).unwrap(), [0; 512]);
    // Beyond what is skipped there is only the end, whatever follows.
    client.send(&request(0, 0, 1, 0, 1).encode());
    client.send(&request(1, 0, 9, 0, u32::MAX).encode());
    assert_eq!(client.reply(), (1, 0));
    client.receive::<1>();
    assert!(client.is_at_end());
    match session.end() {
        Err(ConnectionError::Client(Violation::PayloadLength(LONGEST))) => {}
        other => panic!("{other:?}"),
    }
    assert!(MAX_DISCARDED >= length);
}

#[test]
fn the_largest_payload_works_both_ways() {
    let size = u64::from(MAX_PAYLOAD) * 2;
    let mut session = Session::transmitting(export(file(size), size, false));
    let client = &mut session.client;
    let data: Vec<u8> = (0..MAX_PAYLOAD)
        .map(|i| u8::try_from(i.wrapping_mul(2_654_435_761) >> 24).unwrap())
        .collect();
    assert_eq!(client.write(4096, &data), 0);
    assert!(client.read(4096, MAX_PAYLOAD).unwrap() == data);
    assert_eq!(client.write(0, &[1; 16]), 0);
    session.end().unwrap();
}

#[test]
fn a_refused_write_leaves_the_stream_in_step() {
    let mut session = Session::transmitting(export(file(SIZE), SIZE, true));
    let client = &mut session.client;
    // The payload looks like a request; if it were read as one there would be one more reply.
    let decoy = request(0, 0, 666, 0, 0).encode();
    assert_eq!(client.call(request(1, 0, 1, 0, 28), &decoy), EPERM);
    assert_eq!(client.call(request(1, 0, 2, SIZE, 28), &decoy), EPERM);
    assert_eq!(client.call(request(4, 0, 3, 0, 512), &[]), EPERM);
    assert_eq!(client.call(request(6, 0, 4, 0, 512), &[]), EPERM);
    assert_eq!(client.call(request(3, 0, 5, 0, 0), &[]), 0);
    assert_eq!(client.read(0, 512).unwrap(), [0; 512]);
    session.end().unwrap();
}

#[test]
fn cookies_are_echoed_and_many_requests_may_be_in_flight() {
    let mut session = Session::transmitting(plain_export());
    let client = &mut session.client;
    let mut bytes = Vec::new();
    for i in 0..64u64 {
        bytes.extend(request(1, 0, u64::MAX - i, i * 1000, 1000).encode());
        bytes.extend([u8::try_from(i).unwrap(); 1000]);
    }
    for i in 0..64u64 {
        bytes.extend(request(0, 0, i << 32, i * 1000, 1000).encode());
    }
    client.send(&bytes);
    for i in 0..64u64 {
        assert_eq!(client.reply(), (u64::MAX - i, 0));
    }
    for i in 0..64u64 {
        assert_eq!(client.reply(), (i << 32, 0));
        assert_eq!(client.receive(), [u8::try_from(i).unwrap(); 1000]);
    }
    session.end().unwrap();
}

#[test]
fn trim_keeps_to_its_range_and_write_zeroes_reads_as_zero() {
    let mut session = Session::transmitting(plain_export());
    let client = &mut session.client;
    for (command, flags) in [(6, 0), (6, 1), (6, 2), (6, 3), (4, 0), (4, 1)] {
        assert_eq!(client.write(0, &[0xee; 16384]), 0);
        assert_eq!(client.call(request(command, flags, 1, 1000, 10_000), &[]), 0);
        let read = client.read(0, 16384).unwrap();
        assert!(read[..1000].iter().chain(&read[11_000..]).all(|byte| *byte == 0xee));
        if command == 6 {
            assert!(read[1000..11_000].iter().all(|byte| *byte == 0), "flags {flags}");
        }
    }
    // Without payload a length may exceed the payload limit.
    let size = 1 << 30;
    let mut session = Session::transmitting(export(file(size), size, false));
    for command in [4, 6] {
        let length = u32::try_from(size).unwrap();
        assert_eq!(session.client.call(request(command, 0, 1, 0, length), &[]), 0);
    }
    session.end().unwrap();
}

#[test]
fn disconnect_has_no_reply_but_what_came_before_has() {
    let mut session = Session::transmitting(plain_export());
    let client = &mut session.client;
    let mut bytes = request(1, 0, 1, 0, 3).encode().to_vec();
    bytes.extend(b"abc");
    bytes.extend(request(2, 0xffff, 2, u64::MAX, u32::MAX).encode());
    client.send(&bytes);
    assert_eq!(client.reply(), (1, 0));
    assert!(client.is_at_end());
    session.end().unwrap();
}

#[test]
fn a_broken_request_ends_the_connection_after_the_answers_before_it() {
    let mut session = Session::transmitting(plain_export());
    let mut bytes = request(0, 0, 1, 0, 1).encode().to_vec();
    bytes.extend([0; 28]);
    session.client.send(&bytes);
    assert_eq!(session.client.reply(), (1, 0));
    session.client.receive::<1>();
    assert!(session.client.is_at_end());
    assert!(matches!(session.end(), Err(ConnectionError::Client(Violation::RequestMagic))));
}

#[test]
fn a_client_that_vanishes_inside_a_message_is_told_apart() {
    for cut in [&request(1, 0, 1, 0, 100).encode()[..], &[0x25, 0x60]] {
        let mut session = Session::transmitting(plain_export());
        session.client.send(cut);
        assert!(matches!(session.end(), Err(ConnectionError::Cut)));
    }
    Session::transmitting(plain_export()).end().unwrap();
}

#[test]
fn buffers_given_back_when_idle_come_back() {
    let mut session = Session::transmitting(plain_export());
    let client = &mut session.client;
    assert_eq!(client.write(0, &[1; 100_000]), 0);
    std::thread::sleep(std::time::Duration::from_millis(1300));
    assert_eq!(client.read(0, 100_000).unwrap(), [1; 100_000]);
    // Idle in the middle of a payload.
    client.send(&request(1, 0, 4, 0, 300_000).encode());
    client.send(&[2; 150_000]);
    std::thread::sleep(std::time::Duration::from_millis(1300));
    client.send(&[2; 150_000]);
    assert_eq!(client.reply(), (4, 0));
    assert_eq!(client.read(0, 300_000).unwrap(), [2; 300_000]);
    session.end().unwrap();
}

fn faulty() -> (Arc<FaultyBacking>, Session) {
    let backing = Arc::new(FaultyBacking::new(SIZE));
    let session = Session::transmitting(export(Box::new(Arc::clone(&backing)), SIZE, false));
    (backing, session)
}

fn fault(when: When, on: Call, errno: i32) -> Fault {
    Fault { when, on: Some(on), errno, short: 0 }
}

#[test]
fn a_failing_sector_fails_its_request_and_no_other() {
    let (backing, mut session) = faulty();
    let client = &mut session.client;
    assert_eq!(client.write(0, &[7; 65536]), 0);
    backing.inject(fault(When::Covers(20_480), Call::Read, 5));
    backing.inject(fault(When::Covers(40_960), Call::Write, 28));
    let mut bytes = Vec::new();
    for i in 0..8u64 {
        bytes.extend(request(0, 0, i, i * 8192, 8192).encode());
    }
    client.send(&bytes);
    for i in 0..8u64 {
        let failed = i == 20_480 / 8192;
        assert_eq!(client.reply(), (i, if failed { EIO } else { 0 }));
        if !failed {
            assert_eq!(client.receive(), [7; 8192]);
        }
    }
    assert_eq!(client.write(40_960, &[8; 4096]), ENOSPC);
    assert_eq!(client.write(45_056, &[8; 4096]), 0);
    assert_eq!(client.read(40_960, 8192).unwrap(), [[7; 4096], [8; 4096]].concat());
    session.end().unwrap();
}

#[test]
fn durable_writes_are_durable_when_they_are_answered() {
    let (backing, mut session) = faulty();
    let client = &mut session.client;
    let durable = |backing: &FaultyBacking| backing.unsynced() == 0;
    assert_eq!(client.write(0, &[1; 4096]), 0);
    assert!(!durable(&backing));
    assert_eq!(client.call(request(3, 0, 1, 0, 0), &[]), 0);
    assert!(durable(&backing));
    for (command, payload) in [(1, &[2; 4096][..]), (4, &[]), (6, &[])] {
        assert_eq!(client.call(request(command, 1, 2, 0, 4096), payload), 0);
        assert!(durable(&backing), "command {command}");
        assert_eq!(client.write(0, &[9; 4096]), 0);
    }
    session.end().unwrap();
}

#[test]
fn a_failed_flush_fails_the_durable_requests_of_its_batch_only() {
    let (backing, mut session) = faulty();
    backing.inject(fault(When::Always, Call::Flush, 5));
    let client = &mut session.client;
    let mut bytes = Vec::new();
    for (i, (command, flags)) in [(1, 1), (1, 0), (3, 0), (0, 0)].into_iter().enumerate() {
        let length = if command == 3 { 0 } else { 512 };
        bytes.extend(request(command, flags, u64::try_from(i).unwrap(), 0, length).encode());
        bytes.extend(std::iter::repeat_n(3, if command == 1 { 512 } else { 0 }));
    }
    client.send(&bytes);
    for (cookie, error) in [(0, EIO), (1, 0), (2, EIO), (3, 0)] {
        assert_eq!(client.reply(), (cookie, error));
    }
    assert_eq!(client.receive(), [3; 512]);
    session.end().unwrap();
}
