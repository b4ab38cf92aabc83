//! Points 5 to 12: framing of options.

use super::super::support::{go_data, option, plain_export};
use super::{ACK, INVALID, SHUTDOWN, TOO_BIG, UNKNOWN, UNSUP, contexts, greeted};
use vmd::nbd::handshake::{MAX_OPTION, MAX_OPTIONS, MAX_SKIPPED_OPTION};

/// Every option but EXPORT_NAME, ABORT and GO, and some that do not exist.
const OPTIONS: [u32; 11] = [0, 3, 4, 5, 6, 8, 9, 10, 11, 12, u32::MAX];

/// Takes replies until the option is over, and returns the kind of the last one.
fn last(client: &mut super::super::support::Client, option: u32) -> u32 {
    loop {
        // `option_reply` checks the magic and takes the length that is announced.
        let (echoed, kind, _) = client.option_reply();
        assert_eq!(echoed, option);
        if kind == ACK || kind & (1 << 31) != 0 {
            return kind;
        }
    }
}

#[test]
fn point_05_option_replies() {
    let mut session = greeted(plain_export());
    for number in OPTIONS {
        session.client.send(&option(number, &[]));
        last(&mut session.client, number);
    }
    session.client.send(&option(6, &go_data("root", &[0, 1, 2, 3])));
    assert_eq!(last(&mut session.client, 6), ACK);
    session.client.send(&option(2, &[]));
    assert_eq!(session.client.option_reply(), (2, ACK, vec![]));
    assert!(session.client.is_at_end());
}

#[test]
fn point_06_declared_length_consumed() {
    let mut session = greeted(plain_export());
    // What follows looks like an option: were it parsed as one, there would be one more reply.
    let decoy = option(77, b"decoy");
    for number in OPTIONS {
        for data in [&decoy[..], &[0x49; 1][..], &go_data("nobody", &[1, 2, 3])] {
            session.client.send(&option(number, data));
            last(&mut session.client, number);
            session.client.send(&option(3, &[]));
            assert_eq!(session.client.option_reply().1, 2);
            assert_eq!(session.client.option_reply(), (3, ACK, vec![]));
        }
    }
    session.client.send(&option(7, &go_data("nobody", &[1, 2, 3])));
    assert_eq!(last(&mut session.client, 7), UNKNOWN);
    assert_eq!(session.client.go_on(), super::super::support::SIZE);
}

#[test]
fn point_07_unknown_option() {
    let mut session = greeted(plain_export());
    for number in [0, 4, 12, 13, 100, 1 << 31, u32::MAX] {
        session.client.send(&option(number, &[7; 100]));
        assert_eq!(session.client.option_reply().1, UNSUP);
    }
    session.client.go_on();
}

#[test]
fn point_08_bad_option_magic() {
    let mut session = greeted(plain_export());
    let mut bytes = option(3, &[]);
    bytes[0] ^= 1;
    session.client.send(&bytes);
    assert!(session.client.is_at_end(), "closed without a reply");
}

#[test]
fn point_09_errors_until_the_client_leaves() {
    let mut session = greeted(plain_export());
    for _ in 0..50 {
        for (number, data) in
            [(7, go_data("nobody", &[])), (6, vec![1]), (99, vec![]), (3, vec![1])]
        {
            session.client.send(&option(number, &data));
            assert_ne!(last(&mut session.client, number), ACK);
        }
    }
    session.client.go_on();
}

#[test]
fn point_10_strings() {
    let mut session = greeted(plain_export());
    let named = |name: &[u8]| {
        let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
        data.extend(name);
        data
    };
    for name in [&b"\xff\xfe"[..], b"ro\0ot", b"root\0", &[b'x'; 4097]] {
        for (number, tail) in [(6, &[0, 0][..]), (7, &[0, 0]), (9, &[0; 4])] {
            let data = [&named(name)[..], tail].concat();
            session.client.send(&option(number, &data));
            let (_, kind, text) = session.client.option_reply();
            assert_eq!(kind, INVALID);
            let text = String::from_utf8(text).unwrap();
            assert!(!text.is_empty() && text.len() <= 4096 && !text.contains('\0'));
        }
    }
    let longest = "y".repeat(4096);
    session.client.send(&option(7, &go_data(&longest, &[])));
    assert_eq!(session.client.option_reply().1, UNKNOWN, "a legal name of nothing");
    session.client.go_on();
}

#[test]
fn point_11_option_limits() {
    // A name of 4096 bytes and as many queries of 4096 bytes as anybody sends.
    let mut session = greeted(plain_export());
    let (name, query) = ("n".repeat(4096), format!("x:{}", "q".repeat(4094)));
    session.client.send(&option(9, &contexts(&name, &[query.as_str(); 12])));
    assert_eq!(session.client.option_reply().1, UNKNOWN);
    let size = |n: u32| usize::try_from(n).unwrap();
    session.client.send(&option(7, &vec![0; size(MAX_OPTION) + 1]));
    assert_eq!(session.client.option_reply().1, TOO_BIG);
    session.client.go_on();

    let mut session = greeted(plain_export());
    session.client.send(&option(7, &vec![0; size(MAX_SKIPPED_OPTION) + 1])[..100]);
    assert!(session.client.is_at_end());

    let mut session = greeted(plain_export());
    for _ in 0..MAX_OPTIONS {
        session.client.send(&option(99, &[]));
        assert_eq!(session.client.option_reply().1, UNSUP);
    }
    session.client.send(&option(99, &[]));
    assert!(session.client.is_at_end());
}

#[test]
fn point_12_err_shutdown() {
    let export = plain_export();
    export.begin_stopping();
    let mut session = greeted(export);
    for number in [3, 6, 7, 8, 9, 10, 11, 99] {
        session.client.send(&option(number, &go_data("root", &[])));
        assert_eq!(session.client.option_reply().1, SHUTDOWN);
    }
    session.client.send(&option(2, &[]));
    assert_eq!(session.client.option_reply().1, ACK);
}
