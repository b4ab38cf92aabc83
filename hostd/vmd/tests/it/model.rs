//! Random requests, in random batches, against a plain array.

use super::support::{LIMITS, Session, export, file, request};
use proptest::prelude::*;
use std::io::{Read, Write};
use vmd::nbd::connection::ConnectionError;
use vmd::nbd::proto::transmission::Request;

const SIZE: u64 = 256 * 1024;

#[derive(Debug, Clone)]
enum Step {
    Read {
        offset: u64,
        length: u32,
    },
    Write {
        offset: u64,
        data: Vec<u8>,
        flags: u16,
    },
    Zero {
        offset: u64,
        length: u32,
        flags: u16,
    },
    Flush,
    /// Everything sent so far is read back before the next step is sent.
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![0..SIZE + 2000, (0..SIZE / 512).prop_map(|sector| sector * 512)];
    let length = prop_oneof![0u32..3000, (0u32..100).prop_map(|sectors| sectors * 512)];
    prop_oneof![
        3 => (offset.clone(), length.clone()).prop_map(|(offset, length)| Step::Read { offset, length }),
        3 => (offset.clone(), length.clone(), any::<u8>(), 0u16..2).prop_map(|(offset, length, seed, flags)| {
            let data = (0..length).map(|i| u8::try_from((i + u32::from(seed)) % 255).unwrap() + 1).collect();
            Step::Write { offset, data, flags }
        }),
        2 => (offset, length, 0u16..4).prop_map(|(offset, length, flags)| Step::Zero { offset, length, flags }),
        1 => Just(Step::Flush),
        2 => Just(Step::Wait),
    ]
}

/// What the reply to one request must be: an error, or data.
struct Expected {
    cookie: u64,
    error: u32,
    data: Vec<u8>,
}

struct Model {
    bytes: Vec<u8>,
}

impl Model {
    /// The range as indices, or nothing when it reaches outside.
    fn range(&self, offset: u64, length: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(offset).ok()?;
        (start + length <= self.bytes.len()).then_some(start..start + length)
    }

    /// Carries a step out; the bytes to send and the reply to expect.
    fn apply(&mut self, cookie: u64, step: &Step) -> (Vec<u8>, Expected) {
        let header = |r: Request| r.encode().to_vec();
        let done = |error, data| Expected { cookie, error, data };
        match step {
            Step::Read { offset, length } => {
                let sent = header(request(0, 0, cookie, *offset, *length));
                let range = self.range(*offset, usize::try_from(*length).unwrap());
                let expected =
                    range.map_or_else(|| done(22, vec![]), |r| done(0, self.bytes[r].to_vec()));
                (sent, expected)
            }
            Step::Write { offset, data, flags } => {
                let length = u32::try_from(data.len()).unwrap();
                let mut sent = header(request(1, *flags, cookie, *offset, length));
                sent.extend(data);
                let range = self.range(*offset, data.len());
                let error = if range.is_some() { 0 } else { 28 };
                range.into_iter().for_each(|r| self.bytes[r].copy_from_slice(data));
                (sent, done(error, vec![]))
            }
            Step::Zero { offset, length, flags } => {
                let sent = header(request(6, *flags, cookie, *offset, *length));
                let range = self.range(*offset, usize::try_from(*length).unwrap());
                let error = if range.is_some() { 0 } else { 28 };
                range.into_iter().for_each(|r| self.bytes[r].fill(0));
                (sent, done(error, vec![]))
            }
            Step::Flush | Step::Wait => (header(request(3, 0, cookie, 0, 0)), done(0, vec![])),
        }
    }
}

fn take(session: &mut Session, expected: &mut Vec<Expected>) {
    for want in expected.drain(..) {
        assert_eq!(session.client.reply(), (want.cookie, want.error));
        assert!(session.client.receive_vec(want.data.len()) == want.data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_disk_behaves_like_an_array(steps in prop::collection::vec(step(), 1..60)) {
        let mut session = Session::transmitting(export(file(SIZE), SIZE, false));
        let mut model = Model { bytes: vec![0; usize::try_from(SIZE).unwrap()] };
        let (mut batch, mut expected) = (Vec::new(), Vec::new());
        for (cookie, step) in (1u64..).zip(&steps) {
            let (sent, want) = model.apply(cookie, step);
            batch.extend(sent);
            expected.push(want);
            // A batch that outgrows the socket's buffers would need a client that reads meanwhile.
            if matches!(step, Step::Wait) || batch.len() > 50_000 || expected.len() > 8 {
                session.client.send(&batch);
                batch.clear();
                take(&mut session, &mut expected);
            }
        }
        session.client.send(&batch);
        take(&mut session, &mut expected);
        prop_assert!(session.end().is_ok());
    }

    #[test]
    fn garbage_ends_its_connection_and_harms_nobody(
        garbage in prop::collection::vec(any::<u8>(), 1..2000),
        after_the_handshake: bool,
        magic: bool,
    ) {
        let mut session = Session::new(export(file(SIZE), SIZE, true), LIMITS);
        if after_the_handshake {
            session.client.go();
        }
        let mut bytes = garbage;
        if magic && bytes.len() > 4 {
            bytes[..4].copy_from_slice(&0x2560_9513u32.to_be_bytes());
        }
        // The server may have closed before everything is sent.
        let _ = session.client.stream.write_all(&bytes);
        let _ = session.client.stream.shutdown(std::net::Shutdown::Write);
        let _ = session.client.stream.read_to_end(&mut Vec::new());
        match session.end() {
            Ok(()) | Err(ConnectionError::Client(_) | ConnectionError::Cut | ConnectionError::Gone) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
