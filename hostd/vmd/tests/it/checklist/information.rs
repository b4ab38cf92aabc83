//! Points 19 to 29: INFO and GO.

use super::super::support::{SIZE, export, file, go_data, option, plain_export};
use super::{ACK, ALL, EINVAL, INVALID, Peer, UNKNOWN, be32, greeted};

/// The replies to INFO or GO, without the acknowledgement.
fn describe(
    client: &mut super::super::support::Client,
    number: u32,
    data: &[u8],
) -> Vec<(u32, Vec<u8>)> {
    client.send(&option(number, data));
    let mut found = Vec::new();
    loop {
        let (echoed, kind, data) = client.option_reply();
        assert_eq!(echoed, number);
        if kind == ACK {
            return found;
        }
        found.push((kind, data));
    }
}

#[test]
fn point_19_malformed_query() {
    let mut session = greeted(plain_export());
    for data in [
        &b""[..],
        b"\0\0\0",
        b"\0\0\0\x04root",             // no count
        b"\0\0\0\x05root\0\0",         // the name reaches into the count
        b"\xff\xff\xff\xffroot\0\0",   // and beyond everything
        b"\0\0\0\x04root\0\x02\0\x01", // a request too few
        b"\0\0\0\x04root\0\0\0\x01",   // a request too many
        b"\0\0\0\x04root\0\x01\0",     // half a request
    ] {
        for number in [6, 7] {
            session.client.send(&option(number, data));
            assert_eq!(session.client.option_reply().1, INVALID, "{data:?}");
        }
    }
    session.client.go_on();
}

#[test]
fn point_20_unknown_information() {
    let mut session = greeted(plain_export());
    let said = describe(&mut session.client, 6, &go_data("root", &[99, 3, 0x8000, 0xffff]));
    assert_eq!(said.iter().map(|(_, data)| data[1]).collect::<Vec<_>>(), [0, 3]);
}

#[test]
fn point_21_info_export_first() {
    let mut session = greeted(plain_export());
    for number in [6, 7] {
        let said = describe(&mut session.client, number, &go_data("root", &[]));
        assert_eq!((said[0].0, said[0].1.len(), &said[0].1[..2]), (3, 12, &b"\0\0"[..]));
    }
}

#[test]
fn point_22_info_and_go_agree() {
    for asked in [None, Some(8), Some(11)] {
        let mut session = greeted(plain_export());
        if let Some(asked) = asked {
            session.client.send(&option(asked, &[]));
            session.client.option_reply();
        }
        let query = go_data("root", &[0, 1, 2, 3]);
        let info = describe(&mut session.client, 6, &query);
        assert_eq!(info.len(), 4);
        assert_eq!(describe(&mut session.client, 7, &query), info);
    }
}

#[test]
fn point_23_unknown_export() {
    let mut session = greeted(plain_export());
    for name in ["other", "ROOT", "/root", "root/", " root"] {
        for number in [6, 7] {
            session.client.send(&option(number, &go_data(name, &[3])));
            assert_eq!(session.client.option_reply().1, UNKNOWN, "{name}");
        }
    }
    session.client.go_on();
}

#[test]
fn point_24_nothing_after_go() {
    let mut session = greeted(plain_export());
    describe(&mut session.client, 7, &go_data("root", &[]));
    // `read` begins with the magic of the reply.
    assert_eq!(session.client.read(0, 8).unwrap(), [0; 8]);
}

fn block_sizes() -> [u32; 3] {
    let mut session = greeted(plain_export());
    let said = describe(&mut session.client, 6, &go_data("root", &[3]));
    let sizes = said.iter().find(|(_, data)| data[..2] == [0, 3]).unwrap();
    assert_eq!(sizes.1.len(), 14);
    [2, 6, 10].map(|at| be32(&sizes.1, at))
}

#[test]
fn point_25_block_size_when_asked_for() {
    assert_eq!(block_sizes(), [1, 4096, 32 << 20]);
}

#[test]
fn point_26_block_size_values() {
    let [least, preferred, most] = block_sizes();
    assert!(least.is_power_of_two() && least <= 65536);
    assert!(preferred.is_power_of_two() && preferred >= least.max(512));
    assert!(most >= preferred && most >= 1 << 20);
}

#[test]
fn point_27_block_size_never_required() {
    for infos in [&[][..], &[3], &[0, 1]] {
        let mut session = greeted(plain_export());
        let said = describe(&mut session.client, 7, &go_data("root", infos));
        assert_eq!(said[0].0, 3);
        // Served without alignment.
        assert_eq!(session.client.write(513, b"odd"), 0);
        assert_eq!(session.client.read(512, 5).unwrap(), b"\0odd\0");
    }
}

#[test]
fn point_28_clean_errors_outside_limits() {
    for framing in ALL {
        let size = 64 << 20;
        let mut peer = Peer::new(export(file(size), size, false), framing);
        assert_eq!(peer.read(0, 0, (32 << 20) + 1), Err(EINVAL));
        assert_eq!(peer.write(0, 0, &vec![0xEE; (32 << 20) + 512]), EINVAL);
        assert_eq!(peer.read(0, 0, 512).unwrap(), [0; 512], "and nothing was written");
        assert_eq!(peer.write(0, 1, &[1; 3]), 0);
        assert_eq!(peer.read(0, 0, 5).unwrap(), [0, 1, 1, 1, 0]);
    }
}

#[test]
fn point_29_size_is_a_multiple() {
    for size in [512, 4096, SIZE] {
        let mut session = greeted(export(file(size.max(4096)), size.max(4096), false));
        let told = session.client.go_on();
        assert_eq!(told % u64::from(block_sizes()[0]), 0);
        assert_eq!(told, size.max(4096));
    }
}
