//! Points 39 to 46: structured replies and what is negotiated about metadata.

use super::super::support::{file, option, plain_export};
use super::*;

#[test]
fn point_39_structured_reply() {
    let mut session = greeted(plain_export());
    session.client.send(&option(8, b"x"));
    assert_eq!(session.client.option_reply().1, INVALID);
    let mut peer = Peer::new(plain_export(), Framing::Structured);
    // `chunk` refuses anything but a structured chunk.
    for length in [0, 1, 512, 65536, 1 << 20] {
        assert_eq!(peer.read(0, 0, length).unwrap(), vec![0; usize::try_from(length).unwrap()]);
    }
    assert_eq!(peer.read(0, u64::MAX, 1), Err(EINVAL));
}

#[test]
fn point_40_send_df() {
    for framing in ALL {
        let mut peer = Peer::new(plain_export(), framing);
        let structured = framing != Framing::Simple;
        assert_eq!(peer.flags & (1 << 7) != 0, structured);
        let read = peer.read(DF, 0, 512);
        assert_eq!(read, if structured { Ok(vec![0; 512]) } else { Err(EINVAL) });
    }
}

/// The names in a list of contexts.
fn listed(queries: &[&str]) -> Vec<Vec<u8>> {
    let mut session = greeted(plain_export());
    session.client.send(&option(8, &[]));
    session.client.option_reply();
    session.client.send(&option(9, &contexts("root", queries)));
    let mut names = Vec::new();
    loop {
        match session.client.option_reply() {
            (9, 4, data) => names.push(data[4..].to_vec()),
            (9, ACK, _) => return names,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn point_41_list_meta_context() {
    let all = [b"base:allocation".to_vec()];
    assert_eq!(listed(&[]), all);
    assert_eq!(listed(&["base:"]), all);
    assert_eq!(listed(&["base:allocation"]), all);
    assert_eq!(listed(&["qemu:dirty-bitmap:x", "base:allocation", "base:"]), all);
    assert!(listed(&["qemu:", "x-other:thing", "base:none"]).is_empty());
    let mut session = greeted(plain_export());
    session.client.send(&option(9, &contexts("other", &[])));
    assert_eq!(session.client.option_reply().1, UNKNOWN);
}

#[test]
fn point_42_broken_queries() {
    let mut session = greeted(plain_export());
    session.client.send(&option(8, &[]));
    session.client.option_reply();
    let whole = contexts("root", &["base:allocation", "x:y"]);
    for number in [9, 10] {
        for cut in 0..whole.len() {
            session.client.send(&option(number, &whole[..cut]));
            assert_eq!(session.client.option_reply().1, INVALID, "cut at {cut}");
        }
        session.client.send(&option(number, &[&whole[..], b"x"].concat()));
        assert_eq!(session.client.option_reply().1, INVALID);
    }
    session.client.go_on();
}

/// The kinds of replies to SET_META_CONTEXT.
fn set(client: &mut Client, name: &str, queries: &[&str]) -> Vec<u32> {
    client.send(&option(10, &contexts(name, queries)));
    let mut kinds = vec![client.option_reply().1];
    while kinds.last() == Some(&4) {
        kinds.push(client.option_reply().1);
    }
    kinds
}

/// A client that has structured replies and has done what `prepare` does; the answer to BLOCK_STATUS.
fn status_after(prepare: impl FnOnce(&mut Client)) -> u32 {
    let mut session = greeted(plain_export());
    session.client.send(&option(8, &[]));
    session.client.option_reply();
    prepare(&mut session.client);
    session.client.go_on();
    let client = session.client;
    let mut peer = Peer::transmitting(client, Framing::Structured, 0);
    peer.call(BLOCK_STATUS, 0, 0, 4096)
}

#[test]
fn point_43_set_meta_context() {
    let yes = |client: &mut Client| {
        assert_eq!(set(client, "root", &["base:allocation"]), [4, ACK]);
    };
    assert_eq!(status_after(yes), 0);
    assert_eq!(status_after(|_| ()), EINVAL);
    for later in [&[][..], &["base:"], &["base:leaf"], &["qemu:allocation-depth"]] {
        let refused = status_after(|client| {
            yes(client);
            assert_eq!(set(client, "root", later), [ACK]);
        });
        assert_eq!(refused, EINVAL, "{later:?}");
    }
    // A failure takes the earlier selection away, too.
    let refused = status_after(|client| {
        yes(client);
        client.send(&option(10, b"broken"));
        assert_eq!(client.option_reply().1, INVALID);
    });
    assert_eq!(refused, EINVAL);
    // Asked for twice, selected once.
    assert_eq!(
        status_after(|client| {
            assert_eq!(set(client, "root", &["base:allocation", "base:allocation"]), [4, ACK]);
        }),
        0
    );
}

#[test]
fn point_44_selection_needs_structured_replies() {
    let mut session = greeted(plain_export());
    assert_eq!(set(&mut session.client, "root", &["base:allocation"]), [INVALID]);
    session.client.go_on();
}

#[test]
fn point_45_selection_for_another_name() {
    let elsewhere = |name: &'static str, kinds: &'static [u32]| {
        status_after(move |client| {
            assert_eq!(set(client, "root", &["base:allocation"]), [4, ACK]);
            assert_eq!(set(client, name, &["base:allocation"]), kinds);
        })
    };
    assert_eq!(elsewhere("other", &[UNKNOWN]), EINVAL);
    // The empty name is another name, though it means the same disk.
    assert_eq!(elsewhere("", &[4, ACK]), EINVAL);
}

#[test]
fn point_46_extended_headers() {
    let mut session = greeted(plain_export());
    let client = &mut session.client;
    client.send(&option(11, b"x"));
    assert_eq!(client.option_reply().1, INVALID);
    client.send(&option(11, &[]));
    assert_eq!(client.option_reply().1, ACK);
    client.send(&option(8, &[]));
    assert_eq!(client.option_reply().1, EXTENDED_REQUIRED, "no way back");
    client.send(&option(1, b"root"));
    assert!(client.is_at_end(), "EXPORT_NAME is off");

    // Every reply has the long header and echoes the offset: `chunk` checks that.
    let size = 5 << 30;
    let mut peer = Peer::new(export(file(size), size, false), Framing::Extended);
    assert_eq!(peer.write(FUA, 4096, &[7; 4096]), 0);
    assert_eq!(peer.read(0, 4000, 200).unwrap(), [[0; 96].as_slice(), &[7; 104]].concat());
    assert_eq!(peer.call(FLUSH, 0, 0, 0), 0);
    assert_eq!(peer.read(0, size, 1), Err(EINVAL));
    // 64 bits where nothing is carried.
    for command in [TRIM, WRITE_ZEROES, CACHE] {
        assert_eq!(peer.call(command, 0, 4096, size - 4096), 0);
    }
    assert_eq!(peer.status(0, 0, size), [(size, 3)]);
    assert_eq!(peer.call(TRIM, 0, 0, u64::MAX), EINVAL);
    // The payload of a command that takes none is thrown away.
    for command in [READ, TRIM, WRITE_ZEROES, CACHE, FLUSH, 99] {
        let cookie = peer.send(command, PAYLOAD_LEN, 0, 100, &[0x21; 100]);
        assert_eq!(peer.reply(cookie)[0].error(), EINVAL);
    }
    filters(&mut peer, size);
    // A payload above the limit ends it.
    peer.send(TRIM, PAYLOAD_LEN, 0, 1 << 40, &[]);
    assert!(peer.client.is_at_end());
}

/// BLOCK_STATUS with a payload.
fn filters(peer: &mut Peer, size: u64) {
    assert_eq!(peer.flags & (1 << 12), 1 << 12);
    let filter = |length: u64, ids: &[u32]| {
        let mut out = length.to_be_bytes().to_vec();
        out.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
        out
    };
    let mut ask = |flags: u16, payload: &[u8]| {
        let length = u64::try_from(payload.len()).unwrap();
        let cookie = peer.send(BLOCK_STATUS, PAYLOAD_LEN | flags, 0, length, payload);
        let chunk = peer.reply(cookie).remove(0);
        if chunk.error() == 0 { Ok(peer.extents(&chunk)) } else { Err(chunk.error()) }
    };
    assert_eq!(ask(0, &filter(size, &[1])), Ok(vec![(size, 3)]));
    assert_eq!(ask(REQ_ONE, &filter(4096, &[1])), Ok(vec![(4096, 3)]));
    for wrong in [
        filter(size, &[]),
        filter(size, &[2]),
        filter(size, &[1, 1]),
        filter(size + 1, &[1]),
        filter(0, &[1]),
        vec![0; 11],
        vec![0; 4096],
    ] {
        assert_eq!(ask(0, &wrong), Err(EINVAL), "{wrong:?}");
    }
}
