//! Points 60 to 80: commands, and the end.

use super::super::support::{Served, export, file, go_data, option, plain_export, request, volume};
use super::*;
use cryptfs::backing::{Call, Fault, FileBacking, When};
use std::time::Duration;
use vmd::nbd::connection::{ConnectionError, Limits};

const GRACE: Duration = Duration::from_secs(5);

#[test]
fn point_60_read_only() {
    for framing in ALL {
        let mut peer = Peer::new(export(file(SIZE), SIZE, true), framing);
        assert_eq!(peer.flags & 0b110_0010, 2, "READ_ONLY, no TRIM, no WRITE_ZEROES");
        assert_eq!(peer.write(0, 0, &[1; 512]), EPERM);
        assert_eq!(peer.call(TRIM, 0, 0, 512), EPERM);
        assert_eq!(peer.call(WRITE_ZEROES, 0, 0, 512), EPERM);
        assert_eq!(peer.read(0, 0, 512).unwrap(), [0; 512]);
    }
}

#[test]
fn point_61_payload_of_a_failed_write() {
    for framing in ALL {
        let mut peer = Peer::new(plain_export(), framing);
        let decoy = Request { extended: framing == Framing::Extended, ..request(READ, 0, 1, 0, 1) };
        let payload = decoy.encode().repeat(1000);
        assert_eq!(peer.write(0, SIZE, &payload), ENOSPC);
        assert_eq!(peer.write(1 << 14, 0, &payload), EINVAL);
        assert_eq!(peer.write(0, SIZE, &vec![0x25; 32 << 20]), ENOSPC);
        assert_eq!(peer.read(0, 0, 512).unwrap(), [0; 512]);
    }
}

#[test]
fn point_62_writes_and_fua() {
    for framing in ALL {
        let (backing, export) = faulty();
        let mut peer = Peer::new(export, framing);
        assert_eq!(peer.write(0, 0, &[1; 4096]), 0);
        assert_eq!(peer.read(0, 0, 4096).unwrap(), [1; 4096]);
        assert_eq!(peer.write(FUA, 0, &[2; 4096]), 0);
        assert_eq!(backing.unsynced(), 0);
        for command in [WRITE_ZEROES, TRIM] {
            assert_eq!(peer.call(command, FUA, 0, 4096), 0);
            assert_eq!(backing.unsynced(), 0, "command {command}");
        }
        // What was promised and cannot be kept is an error, however many wait.
        backing.inject(Fault { when: When::Always, on: Some(Call::Flush), errno: 5, short: 0 });
        let cookies: Vec<u64> = (0..20).map(|_| peer.send(WRITE, FUA, 0, 512, &[3; 512])).collect();
        for cookie in cookies {
            assert_eq!(peer.chunk(cookie).error(), EIO);
        }
    }
}

#[test]
fn point_63_fua_on_every_command() {
    for framing in ALL {
        let mut peer = Peer::new(plain_export(), framing);
        assert_eq!(peer.flags & 8, 8);
        assert_eq!(peer.read(FUA, 0, 512).unwrap(), [0; 512]);
        assert_eq!(peer.write(FUA, 0, &[1; 512]), 0);
        for command in [FLUSH, TRIM, CACHE, WRITE_ZEROES] {
            let length = if command == FLUSH { 0 } else { 512 };
            assert_eq!(peer.call(command, FUA, 0, length), 0, "{command}");
        }
        if framing != Framing::Simple {
            assert_eq!(peer.status(FUA, 0, 4096).len(), 1);
        }
    }
}

#[test]
fn point_64_flush() {
    let (backing, export) = faulty();
    let mut peer = Peer::new(export, Framing::Structured);
    assert_eq!(peer.write(0, 0, &[1; 100_000]), 0);
    assert_eq!(peer.call(WRITE_ZEROES, 0, 4096, 4096), 0);
    assert_eq!(peer.call(TRIM, 0, 65536, 4096), 0);
    assert_ne!(backing.unsynced(), 0);
    assert_eq!(peer.call(FLUSH, 0, 0, 0), 0);
    assert_eq!(backing.unsynced(), 0);
    assert_eq!(backing.crash(|_, _| false), backing.live());
}

#[test]
fn point_65_multi_conn() {
    let (backing, export) = faulty();
    let served = Served::new(export, LIMITS);
    let mut one = Peer::on(served.connect(), Framing::Simple);
    let mut two = Peer::on(served.connect(), Framing::Extended);
    let mut three = Peer::on(served.connect(), Framing::Structured);
    assert_eq!(one.flags & (1 << 8), 1 << 8);
    assert_eq!(one.write(0, 0, &[1; 4096]), 0);
    assert_eq!(three.write(0, 8192, &[3; 4096]), 0);
    assert_eq!(two.read(0, 0, 4096).unwrap(), [1; 4096]);
    assert_eq!(one.read(0, 8192, 4096).unwrap(), [3; 4096]);
    assert_eq!(two.call(FLUSH, 0, 0, 0), 0);
    assert_eq!(backing.unsynced(), 0);
}

#[test]
fn point_66_write_zeroes() {
    for framing in ALL {
        let (backing, export) = faulty();
        let mut peer = Peer::new(export, framing);
        for (flags, stays) in [(0, false), (NO_HOLE, true)] {
            assert_eq!(peer.write(0, 0, &[0xEE; 65536]), 0);
            assert_eq!(peer.call(WRITE_ZEROES, flags, 1000, 50_000), 0);
            let data = peer.read(0, 0, 65536).unwrap();
            assert!(data[1000..51_000].iter().all(|byte| *byte == 0));
            assert!(data[..1000].iter().chain(&data[51_000..]).all(|byte| *byte == 0xEE));
            assert_eq!(backing.allocated() == 65536, stays);
        }
    }
}

#[test]
fn point_67_fast_zero() {
    for framing in ALL {
        let (backing, export) = faulty();
        let mut peer = Peer::new(export, framing);
        assert_eq!(peer.flags & 0x840, 0x840);
        assert_eq!(peer.write(0, 0, &[0xEE; 65536]), 0);
        assert_eq!(peer.call(WRITE_ZEROES, FAST_ZERO, 0, 4096), 0);
        assert_eq!(peer.call(WRITE_ZEROES, FAST_ZERO | NO_HOLE | FUA, 4096, 4096), 0);
        assert_eq!(peer.read(0, 0, 8192).unwrap(), [0; 8192]);
        // No whole sector, or no help from the storage: as slow as a write.
        assert_eq!(peer.call(WRITE_ZEROES, FAST_ZERO, 8193, 600), ENOTSUP);
        backing.refuse_punch();
        let before = backing.live();
        assert_eq!(peer.call(WRITE_ZEROES, FAST_ZERO, 8192, 32768), ENOTSUP);
        assert_eq!(backing.live(), before);
        assert_eq!(peer.call(WRITE_ZEROES, 0, 8192, 32768), 0, "never without the flag");
        assert_eq!(peer.read(0, 8192, 32768).unwrap(), [0; 32768]);
    }
    let (backing, _) = faulty();
    backing.refuse_punch();
    let slow = super::super::support::export(Box::new(backing), SIZE, false);
    let mut peer = Peer::new(slow, Framing::Extended);
    assert_eq!(peer.flags & 0x840, 0x40);
    assert_eq!(peer.call(WRITE_ZEROES, FAST_ZERO, 0, 4096), EINVAL);
}

#[test]
fn point_68_trim() {
    for framing in ALL {
        let mut peer = Peer::new(plain_export(), framing);
        assert_eq!(peer.flags & 0x20, 0x20);
        assert_eq!(peer.write(0, 0, &[0xEE; 65536]), 0);
        for (offset, length) in [(1u64, 5u64), (511, 2), (700, 9000), (20_481, 4096)] {
            assert_eq!(peer.call(TRIM, 0, offset, length), 0);
        }
        let data = peer.read(0, 0, 65536).unwrap();
        for (at, byte) in (0u64..).zip(data) {
            let trimmed = (700..9700).contains(&at) || (20_481..24_577).contains(&at);
            assert!(byte == 0xEE || trimmed, "byte {at}");
        }
    }
    // Just past the middle, where a length was once computed to be negative.
    let size = 128 << 20;
    let mut peer = Peer::new(export(file(size), size, false), Framing::Structured);
    assert_eq!(peer.write(0, 67_109_888 - 512, &[1; 512]), 0);
    assert_eq!(peer.call(TRIM, 0, 67_109_888, 8 << 20), 0);
    assert_eq!(peer.read(0, 67_109_888 - 512, 512).unwrap(), [1; 512]);
}

#[test]
fn point_69_cache() {
    for framing in ALL {
        let (backing, export) = faulty();
        let mut peer = Peer::new(export, framing);
        assert_eq!(peer.flags & (1 << 10), 1 << 10);
        assert_eq!(peer.write(0, 0, &[5; 8192]), 0);
        let before = backing.live();
        assert_eq!(peer.call(CACHE, 0, 100, 5000), 0);
        assert_eq!(peer.call(CACHE, 0, 0, SIZE), 0);
        for flags in [NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN << 1, 1 << 15] {
            assert_eq!(peer.call(CACHE, flags, 0, 4096), EINVAL);
        }
        assert_eq!(peer.call(CACHE, 0, SIZE, 1), EINVAL);
        assert_eq!(backing.live(), before);
    }
}

#[test]
fn point_70_block_status() {
    for framing in [Framing::Structured, Framing::Extended] {
        let (_, export) = faulty();
        let mut peer = Peer::new(export, framing);
        for i in 0..8 {
            assert_eq!(peer.write(0, i * 8192, &[1; 4096]), 0);
        }
        for (offset, length) in [(0, SIZE), (0, 4096), (100, 20_000), (4095, 2), (SIZE - 1, 1)] {
            let extents = peer.status(0, offset, length);
            assert!(extents.iter().all(|(len, _)| *len > 0));
            let (last, before) = extents.split_last().unwrap();
            let sum: u64 = before.iter().map(|(len, _)| len).sum();
            assert!(sum < length && sum + last.0 == length);
            let one = peer.status(REQ_ONE, offset, length);
            assert_eq!(one, extents[..1]);
            assert!(one[0].0 <= length);
        }
        assert_eq!(peer.status(0, 0, 16384), [(4096, 0), (4096, 3), (4096, 0), (4096, 3)]);
        assert_eq!(peer.call(BLOCK_STATUS, 0, 0, 0), EINVAL);
        assert_eq!(peer.call(BLOCK_STATUS, 0, SIZE, 1), EINVAL);
        assert_eq!(peer.call(BLOCK_STATUS, DF, 0, 512), EINVAL);
        // Almost 4 GiB in 32 bits.
        let size = 6 << 30;
        let mut peer = Peer::new(super::super::support::export(file(size), size, false), framing);
        for flags in [0, REQ_ONE] {
            for length in [0xffff_ffff, 0xffff_fe00, 0xffff_f000] {
                assert_eq!(peer.status(flags, 0, length), [(length, 3)]);
                assert_eq!(peer.status(flags, 4096, length), [(length, 3)]);
            }
            if framing == Framing::Extended {
                assert_eq!(peer.status(flags, 0, size), [(size, 3)]);
            }
        }
    }
}

#[test]
fn point_71_base_allocation() {
    let mut peer = Peer::new(plain_export(), Framing::Structured);
    assert_eq!(peer.write(0, 0, &[0; 65536]), 0);
    assert_eq!(peer.write(0, 131_072, &[7; 65536]), 0);
    assert_eq!(peer.call(WRITE_ZEROES, NO_HOLE, 262_144, 65536), 0);
    assert_eq!(peer.call(TRIM, 0, 131_072, 32768), 0);
    let mut at = 0;
    for (length, state) in peer.status(0, 0, SIZE) {
        assert!(state == 0 || state == 3, "HOLE and ZERO together or not at all");
        if state == 3 {
            let data = peer.read(DF, at, length).unwrap();
            assert!(data.iter().all(|byte| *byte == 0), "what is called zero reads as zero");
        }
        at += length;
    }
    assert_eq!(at, SIZE);
    assert_eq!(peer.status(0, 163_840, 4096), [(4096, 0)]);
}

#[test]
fn point_72_disc() {
    for framing in ALL {
        let (backing, export) = faulty();
        let mut peer = Peer::new(export, framing);
        let cookie = peer.send(WRITE, FUA, 0, 4096, &[1; 4096]);
        let odd = u64::from(u32::MAX);
        peer.send(2, if framing == Framing::Extended { FUA } else { 0xffff }, u64::MAX, odd, &[]);
        assert_eq!(peer.chunk(cookie).error(), 0);
        assert!(peer.client.is_at_end(), "no reply to DISC");
        assert_eq!(backing.unsynced(), 0);
    }
}

#[test]
fn point_73_zero_lengths() {
    for framing in ALL {
        let mut peer = Peer::new(plain_export(), framing);
        for offset in [0, 1, SIZE] {
            assert_eq!(peer.read(0, offset, 0), Ok(vec![]));
            assert_eq!(peer.write(0, offset, &[]), 0);
            for command in [TRIM, WRITE_ZEROES, CACHE] {
                assert_eq!(peer.call(command, 0, offset, 0), 0);
            }
            assert_eq!(peer.call(BLOCK_STATUS, 0, offset, 0), EINVAL);
        }
    }
}

#[test]
fn point_74_out_of_range() {
    for framing in ALL {
        let mut peer = Peer::new(plain_export(), framing);
        for (offset, length) in
            [(SIZE, 1u64), (SIZE - 1, 2), (u64::MAX - 4095, 8192), (u64::MAX, 1), (1 << 63, 512)]
        {
            assert_eq!(peer.read(0, offset, length), Err(EINVAL));
            let data = vec![1; usize::try_from(length).unwrap()];
            assert_eq!(peer.write(0, offset, &data), ENOSPC);
            assert_eq!(peer.call(WRITE_ZEROES, 0, offset, length), ENOSPC);
            for command in [TRIM, CACHE, BLOCK_STATUS] {
                assert_eq!(peer.call(command, 0, offset, length), EINVAL);
            }
        }
        assert_eq!(peer.read(0, SIZE - 1, 1), Ok(vec![0]));
    }
}

#[test]
fn point_75_unknown_commands_and_flags() {
    for framing in ALL {
        let mut peer = Peer::new(plain_export(), framing);
        // The least block is one byte, so nothing is unaligned.
        assert_eq!(peer.write(0, 4097, &[1; 3]), 0);
        for command in [8, 9, 10, 255, 0x7fff, u16::MAX] {
            assert_eq!(peer.call(command, 0, 0, 512), EINVAL);
        }
        for flag in [1 << 6, 1 << 7, 1 << 11, 1 << 15] {
            for command in [FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] {
                assert_eq!(peer.call(command, flag, 0, 0), EINVAL);
            }
            assert_eq!(peer.read(flag, 0, 512), Err(EINVAL));
            assert_eq!(peer.write(flag, 0, &[9; 512]), EINVAL);
        }
        for (command, flag) in [
            (READ, NO_HOLE),
            (READ, REQ_ONE),
            (READ, FAST_ZERO),
            (TRIM, NO_HOLE),
            (FLUSH, DF),
            (WRITE_ZEROES, DF),
            (WRITE_ZEROES, REQ_ONE),
        ] {
            assert_eq!(peer.call(command, flag, 0, 512), EINVAL, "{command} {flag}");
        }
        assert_eq!(peer.read(0, 4096, 5), Ok(vec![0, 1, 1, 1, 0]));
    }
}

#[test]
fn point_76_error_codes() {
    // ENOMEM, EDQUOT, EFBIG, EROFS, ENOSPC, EOPNOTSUPP, ENXIO, EIO of the storage.
    let codes =
        [(12, EIO), (122, ENOSPC), (27, ENOSPC), (30, EPERM), (28, ENOSPC), (95, EIO), (6, EIO)];
    for framing in ALL {
        let (backing, export) = faulty();
        let mut peer = Peer::new(export, framing);
        for (errno, code) in codes {
            backing.inject(Fault { when: When::Always, on: Some(Call::Write), errno, short: 0 });
            assert_eq!(peer.write(0, 0, &[1; 4096]), code, "errno {errno}");
            backing.heal();
        }
        backing.inject(Fault { when: When::Always, on: Some(Call::Read), errno: 12, short: 0 });
        assert_eq!(peer.read(0, 0, 512), Err(EIO));
        backing.heal();
        assert_eq!(peer.read(0, 0, 512).unwrap(), [0; 512]);
    }
}

#[test]
fn point_77_long_requests_without_payload() {
    let size = 1 << 30;
    for framing in ALL {
        let mut peer = Peer::new(export(file(size), size, false), framing);
        for command in [TRIM, WRITE_ZEROES, CACHE] {
            assert_eq!(peer.call(command, 0, 0, size), 0);
            assert_ne!(peer.call(command, 0, 0, u64::from(u32::MAX)), 0);
        }
        if framing != Framing::Simple {
            assert_eq!(peer.status(0, 0, size), [(size, 3)]);
        }
        assert_eq!(peer.read(0, 0, 1).unwrap(), [0]);
    }
}

#[test]
fn point_78_server_stop() {
    for framing in ALL {
        // What has come is finished, and then the connection closes.
        let served = Served::new(plain_export(), LIMITS);
        let mut peer = Peer::on(served.connect(), framing);
        let sent: Vec<u64> = (0..16).map(|_| peer.send(WRITE, 0, 0, 4096, &[5; 4096])).collect();
        let stopped = served.server.stop(GRACE).ok().unwrap();
        for cookie in sent {
            assert_eq!(peer.chunk(cookie).error(), 0);
        }
        assert!(peer.client.is_at_end());
        stopped.close().unwrap();
        // What is refused is told so.
        let export = plain_export();
        export.begin_refusing();
        let mut peer = Peer::new(export, framing);
        assert_eq!(peer.read(0, 0, 512), Err(ESHUTDOWN));
        assert_eq!(peer.write(0, 0, &[1; 512]), ESHUTDOWN);
        assert_eq!(peer.call(FLUSH, 0, 0, 0), ESHUTDOWN);
    }
}

#[test]
fn point_79_handshake_limits() {
    let limits = Limits { max_connections: 20, handshake: Duration::from_millis(300) };
    let served = Served::new(plain_export(), limits);
    let mut silent: Vec<Client> = (0..20).map(|_| served.connect()).collect();
    for client in &mut silent {
        client.receive::<18>();
    }
    assert!(served.connect().is_at_end(), "one too many");
    for client in &mut silent {
        assert!(client.is_at_end(), "cut when the time is up");
    }
    drop(silent);
    // The places are free again; then a stop with half-open clients.
    let mut peer = Peer::on(served.connect(), Framing::Extended);
    assert_eq!(peer.read(0, 0, 1).unwrap(), [0]);
    let _half = served.connect();
    assert!(served.server.stop(GRACE).is_ok());
    let alone = Session::new(plain_export(), limits);
    assert!(matches!(alone.server.join().unwrap(), Err(ConnectionError::HandshakeTimedOut(_))));
}

#[test]
fn point_80_opaque_names() {
    for name in ["/", "/disk", "a b", "%2f", "..", "\u{e4}\u{1f4be}", "x".repeat(4096).as_str()] {
        let backing = FileBacking::from(tempfile::tempfile().unwrap());
        cryptfs::backing::Backing::set_len(&backing, 4096).unwrap();
        let export = Export::new(name, "web01", volume(Box::new(backing), 4096, false));
        let mut session = greeted(export);
        let bare = name.trim_start_matches('/');
        if bare != name && !bare.is_empty() {
            session.client.send(&option(6, &go_data(bare, &[])));
            assert_eq!(session.client.option_reply().1, UNKNOWN, "a slash is part of a name");
        }
        session.client.send(&option(7, &go_data(name, &[1])));
        assert_eq!(session.client.option_reply().1, 3);
        assert_eq!(session.client.option_reply().2[2..], *name.as_bytes());
        assert_eq!(session.client.option_reply().1, ACK);
        assert_eq!(session.client.read(0, 2).unwrap(), [0; 2]);
    }
}
