//! Points 47 to 59: framing of the transmission phase.

use super::super::support::{export, file, plain_export, request};
use super::*;
use cryptfs::backing::{Call, Fault, When};

/// Fails every read that touches the byte at `offset`.
fn unreadable(offset: u64) -> Fault {
    Fault { when: When::Covers(offset), on: Some(Call::Read), errno: 5, short: 0 }
}

#[test]
fn point_47_wrong_request_magic() {
    for framing in ALL {
        let mut peer = Peer::new(plain_export(), framing);
        let mut bytes =
            Request { extended: framing == Framing::Extended, ..request(READ, 0, 1, 0, 1) };
        bytes.extended = !bytes.extended; // the magic of the other header, and as many bytes as needed
        peer.client.send(&[bytes.encode(), vec![0; 8]].concat());
        assert!(peer.client.is_at_end(), "{framing:?}");
    }
}

#[test]
fn point_48_cookies() {
    for framing in ALL {
        let mut peer = Peer::new(plain_export(), framing);
        let extended = framing == Framing::Extended;
        let cookies = [0, u64::MAX, 0x2560_9513_6744_6698, 7, 7, 7, 1 << 63];
        for cookie in cookies {
            let one = Request { extended, cookie, ..request(READ, 0, 0, 9, 5) };
            peer.client.send(&one.encode());
            peer.asked.insert(cookie, (9, Some(5)));
        }
        for cookie in cookies {
            assert!(peer.chunk(cookie).done);
        }
    }
}

#[test]
fn point_49_simple_replies_only() {
    let mut peer = Peer::new(plain_export(), Framing::Simple);
    // `chunk` insists on the simple magic; an error has no data behind it, or the next reply would not parse.
    assert_eq!(peer.read(0, 1 << 60, 100), Err(EINVAL));
    assert_eq!(peer.read(0, 0, 1 << 20).unwrap(), vec![0; 1 << 20]);
    assert_eq!(peer.call(FLUSH, 0, 0, 0), 0);
    assert_eq!(peer.call(BLOCK_STATUS, 0, 0, 512), EINVAL);
}

#[test]
fn point_50_simple_read_that_fails() {
    let (backing, export) = faulty();
    let mut peer = Peer::new(export, Framing::Simple);
    assert_eq!(peer.write(0, 0, &[7; 65536]), 0);
    backing.inject(unreadable(40_000));
    // The data is at hand before the header is written, so there is never a success to take back.
    assert_eq!(peer.read(0, 0, 65536), Err(EIO));
    assert_eq!(peer.read(0, 0, 4096).unwrap(), [7; 4096]);
}

#[test]
fn point_51_structured_read_errors() {
    for framing in [Framing::Structured, Framing::Extended] {
        let (backing, export) = faulty();
        let mut peer = Peer::new(export, framing);
        assert_eq!(peer.write(0, 0, &[7; 8192]), 0);
        backing.inject(unreadable(5000));
        for (flags, offset, length, error) in [
            (0, 1 << 50, 1, EINVAL),
            (1 << 9, 0, 1, EINVAL),
            (0, 0, 1 << 26, EINVAL),
            (0, 0, 8192, EIO),
            (DF, 4096, 4096, EIO),
        ] {
            let chunks = peer.chunks(flags, offset, length);
            assert_eq!(chunks.last().unwrap().error(), error);
        }
    }
}

/// Requests of every kind, good and bad.
fn assorted(peer: &mut Peer) -> Vec<Vec<Chunk>> {
    let requests: [(u16, u16, u64, u64); 12] = [
        (READ, 0, 0, 1),
        (READ, 0, 0, 1 << 20),
        (READ, 0, 1 << 40, 1),
        (READ, 0, 0, 0),
        (FLUSH, 0, 0, 0),
        (TRIM, FUA, 0, 4096),
        (CACHE, 0, 0, 4096),
        (WRITE_ZEROES, NO_HOLE, 0, 4096),
        (BLOCK_STATUS, 0, 0, 1 << 20),
        (BLOCK_STATUS, REQ_ONE, 0, 1 << 20),
        (BLOCK_STATUS, 0, 0, 0),
        (99, 0, 0, 0),
    ];
    requests
        .into_iter()
        .map(|(command, flags, offset, length)| {
            let cookie = peer.send(command, flags, offset, length, &[]);
            peer.reply(cookie)
        })
        .collect()
}

#[test]
fn point_52_done_once_and_last() {
    for framing in [Framing::Structured, Framing::Extended] {
        let mut peer = Peer::new(plain_export(), framing);
        assert_eq!(peer.write(0, 100_000, &[1; 5000]), 0);
        for chunks in assorted(&mut peer) {
            let (last, before) = chunks.split_last().unwrap();
            assert!(last.done && before.iter().all(|chunk| !chunk.done));
            for chunk in &chunks {
                assert!(chunk.kind != 0 || (chunk.body.is_empty() && chunk.done));
            }
        }
        // And nothing came behind a DONE: the next reply is at its place.
        assert_eq!(peer.call(FLUSH, 0, 0, 0), 0);
    }
}

/// Sixteen times 64 KiB of data and as much hole.
fn striped() -> (Arc<FaultyBacking>, Export) {
    let (backing, export) = faulty();
    for i in 0..16u64 {
        export.volume().write(i * 131_072, &mut vec![0xAA; 65536]).unwrap();
    }
    (backing, export)
}

#[test]
fn point_53_chunks_cover_the_request() {
    for framing in [Framing::Structured, Framing::Extended] {
        let mut peer = Peer::new(striped().1, framing);
        for (offset, length) in
            [(0, 2 << 20), (1, 400_001), (65536, 131_072), (65537, 131_072), (140_000, 600_000)]
        {
            // `read` checks lengths, places, overlaps and gaps.
            let data = peer.read(0, offset, length).unwrap();
            for (at, byte) in (offset..).zip(data) {
                assert_eq!(byte, if at % 131_072 < 65536 { 0xAA } else { 0 });
            }
        }
        let kinds: Vec<_> = peer.chunks(0, 0, 262_144).iter().map(|chunk| chunk.kind).collect();
        assert_eq!(kinds, [1, 2, 1, 2], "holes are named");
        assert!(peer.chunks(0, 0, 2 << 20).len() <= 16, "but not all of many");
        let hole = peer.chunks(0, 2 << 20, 4 << 20);
        assert_eq!((hole.len(), hole[0].kind, hole[0].body.len()), (1, 2, 12));
    }
}

/// A READ over three pieces, the second piece of data of which cannot be read.
fn struck(framing: Framing) -> (Vec<Chunk>, Peer) {
    let (backing, export) = striped();
    let mut peer = Peer::new(export, framing);
    backing.inject(unreadable(131_072 + 100));
    (peer.chunks(0, 0, 524_288), peer)
}

#[test]
fn point_54_done_only_on_data_that_is_there() {
    for framing in [Framing::Structured, Framing::Extended] {
        let (chunks, _) = struck(framing);
        let done: Vec<_> = chunks.iter().map(|chunk| (chunk.kind, chunk.done)).collect();
        assert_eq!(done, [(1, false), (2, false), (0x8002, true)]);
    }
}

#[test]
fn point_55_begun_chunks_are_complete() {
    for framing in [Framing::Structured, Framing::Extended] {
        let (chunks, mut peer) = struck(framing);
        assert_eq!(chunks[0].body[8..], [0xAA; 65536]);
        assert_eq!(be32(&chunks[1].body, 8), 65536);
        assert_eq!(peer.read(0, 0, 100_000).unwrap()[..65536], [0xAA; 65536], "still in step");
    }
}

#[test]
fn point_56_dont_fragment() {
    for framing in [Framing::Structured, Framing::Extended] {
        let mut peer = Peer::new(striped().1, framing);
        for length in [1, 65536, 131_072, 1 << 20] {
            let chunks = peer.chunks(DF, 0, length);
            assert_eq!((chunks.len(), chunks[0].kind), (1, 1), "data and holes as data");
            assert_eq!(chunks[0].body.len(), usize::try_from(length).unwrap() + 8);
        }
    }
}

#[test]
fn point_57_error_chunks() {
    for framing in [Framing::Structured, Framing::Extended] {
        let (mut chunks, mut peer) = struck(framing);
        let at = chunks.pop().unwrap();
        let text = at.body.len() - 14;
        assert_eq!(at.body[4..6], u16::try_from(text).unwrap().to_be_bytes());
        assert!(text > 0 && text <= 4096 && at.error() != 0);
        std::str::from_utf8(&at.body[6..6 + text]).unwrap();
        assert_eq!(be64(&at.body, 6 + text), 131_072);
        let cookie = peer.send(99, 0, 0, 0, &[]);
        let whole = peer.chunk(cookie);
        assert_eq!((whole.kind, whole.error()), (0x8001, EINVAL));
        let text = u16::try_from(whole.body.len() - 6).unwrap();
        assert_eq!(whole.body[4..6], text.to_be_bytes());
    }
}

#[test]
fn point_58_chunks_within_the_payload_limit() {
    let size = 64 << 20;
    for framing in [Framing::Structured, Framing::Extended] {
        let mut peer = Peer::new(export(file(size), size, false), framing);
        assert_eq!(peer.write(0, 4096, &vec![3; 32 << 20]), 0);
        for chunk in peer.chunks(0, 4096, 32 << 20) {
            assert!(chunk.kind == 1 && chunk.body.len() <= (32 << 20) + 8);
        }
        // The longest list of extents that there is.
        for i in 0..6000u64 {
            let cookie = peer.send(WRITE_ZEROES, 0, i * 8192 + 4096, 4096, &[]);
            assert_eq!(peer.reply(cookie)[0].error(), 0);
        }
        let extents = peer.status(0, 0, size);
        assert!(extents.len() <= 4096, "{}", extents.len());
    }
}

#[test]
fn point_59_replies_are_whole() {
    for framing in ALL {
        let mut peer = Peer::new(striped().1, framing);
        let mut expected = Vec::new();
        for i in 0..200u64 {
            let (offset, length) = ((i % 7) * 65536, 1 + i * 331);
            expected.push(peer.send(READ, 0, offset, length, &[]));
            if i % 3 == 0 {
                expected.push(peer.send(FLUSH, 0, 0, 0, &[]));
            }
        }
        for cookie in expected {
            let chunks = peer.reply(cookie);
            assert!(chunks.iter().all(|chunk| chunk.error() == 0));
        }
    }
}
