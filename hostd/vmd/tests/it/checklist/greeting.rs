//! Points 1 to 4: greeting.

use super::super::support::{LIMITS, SIZE, Session, option, plain_export};
use super::{ACK, UNSUP};

#[test]
fn point_01_greeting_bytes() {
    let mut session = Session::new(plain_export(), LIMITS);
    let greeting: [u8; 18] = session.client.receive();
    assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
    let flags = u16::from_be_bytes([greeting[16], greeting[17]]);
    assert_eq!((flags & 1, flags & !3), (1, 0));
}

#[test]
fn point_02_unknown_client_flags() {
    for flags in [4u32, 7, 1 << 16, 1 << 31, u32::MAX] {
        let mut session = Session::new(plain_export(), LIMITS);
        session.client.greet(flags);
        assert!(session.client.is_at_end(), "{flags:#x}");
    }
}

#[test]
fn point_03_without_fixed_newstyle() {
    for flags in [0, 2] {
        let mut session = Session::new(plain_export(), LIMITS);
        let client = &mut session.client;
        client.greet(flags);
        client.send(&option(5, &[]));
        assert_eq!(client.option_reply().1, UNSUP, "never upgraded");
        client.send(&option(1, b"root"));
        let size: [u8; 8] = client.receive();
        assert_eq!(u64::from_be_bytes(size), SIZE);
        client.receive_vec(if flags == 0 { 126 } else { 2 });
        assert_eq!(client.read(0, 512).unwrap(), [0; 512]);
    }
    // With it, the next option is answered in the fixed way.
    let mut session = super::greeted(plain_export());
    session.client.send(&option(2, &[]));
    assert_eq!(session.client.option_reply().1, ACK);
}
