//! Any bytes, in any pieces, into the NBD server: it must end by itself, say nothing but its protocol, and leave a
//! read-only volume as it is.

#![no_main]

use crypto::Unit;
use fuzz::session;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vmd::nbd::proto::negotiation::greeting;

const SIZE: usize = 64 * 1024;

/// `NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES`, then `NBD_OPT_EXPORT_NAME` with the empty name.
const HANDSHAKE: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0";

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    read_only: bool,
    /// Begin in the transmission phase.
    handshake_done: bool,
    pieces: [u8; 4],
    stream: &'a [u8],
}

fuzz_target!(|input: Input| {
    let export = session::export(SIZE, Unit::B4096, input.read_only);
    let mut stream = Vec::new();
    if input.handshake_done {
        stream.extend_from_slice(HANDSHAKE);
    }
    stream.extend_from_slice(input.stream);
    let (said, _) = session::run(&export, &stream, &input.pieces);
    assert!(said.starts_with(&greeting()), "the greeting is missing");
    if input.read_only {
        let mut content = vec![1; SIZE];
        export.volume().read(0, &mut content).expect("memory can be read");
        assert!(content.iter().all(|byte| *byte == 0), "a read-only volume was changed");
    }
});
