//! What a disk must do, on a plain array.
//!
//! Owns the commands and the replies that they must get; must not know the wire. Flow: [`Model::apply`] carries a
//! command out and says what to expect, [`Pending::add`] takes the parts of the reply, [`Pending::finish`] judges.

use crate::wire::Body;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use std::ops::Range;

const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ENOTSUP: u32 = 95;

/// State of an extent that reads as zero, `NBD_STATE_ZERO`.
const ZERO: u64 = 2;

/// One command.
#[derive(Debug, Arbitrary)]
#[expect(missing_docs, reason = "they are the protocol's")]
pub enum Command {
    Read {
        at: Place,
        length: u16,
        whole: bool,
    },
    Write {
        at: Place,
        length: u16,
        seed: u8,
        durable: bool,
    },
    Trim {
        at: Place,
        length: u16,
        durable: bool,
    },
    Zero {
        at: Place,
        length: u16,
        durable: bool,
        no_hole: bool,
    },
    /// Zeros, if they can be had faster than by writing them.
    FastZero {
        at: Place,
        length: u16,
        durable: bool,
        no_hole: bool,
    },
    Status {
        at: Place,
        length: u16,
        one: bool,
    },
    Flush,
    Cache {
        at: Place,
        length: u16,
    },
    /// A command that does not exist.
    Odd {
        number: u8,
        flags: u8,
    },
}

/// Where a command starts: anywhere up to a little past the end, often at a sector.
#[derive(Debug, Arbitrary)]
#[expect(missing_docs, reason = "they are plain")]
pub enum Place {
    Byte(u16),
    Sector(u8),
    Beyond(u8),
    Far(u64),
}

impl Place {
    /// As a byte of a disk of `size` bytes.
    #[must_use]
    pub fn offset(&self, size: usize) -> u64 {
        match self {
            Self::Byte(at) => u64::from(*at),
            Self::Sector(number) => u64::from(*number) * 512,
            Self::Beyond(more) => u64::try_from(size).unwrap_or(0) + u64::from(*more),
            Self::Far(at) => *at,
        }
    }
}

/// What is known of the disk.
#[derive(Debug)]
pub struct Model {
    bytes: Vec<u8>,
    /// Trimmed: the byte is as before, or zero.
    trimmed: Vec<bool>,
}

/// The reply that a request must get.
#[derive(Debug)]
enum Expected {
    Done,
    Data {
        offset: u64,
        model: Model,
    },
    /// Extents from here on; the model is the disk from the offset to its end.
    Extents {
        model: Model,
        length: u64,
        one: bool,
    },
    /// Success, or one of these errors.
    DoneOr(&'static [u32]),
    /// One of these errors; any error when there are none.
    Error(&'static [u32]),
    /// A request for no bytes, on which the protocol does not settle.
    Anything,
}

/// A request under way.
#[derive(Debug)]
pub struct Pending {
    expected: Expected,
    data: Vec<Option<u8>>,
    extents: Vec<(u64, u64)>,
    error: Option<u32>,
}

impl Model {
    /// A disk of zeros.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self { bytes: vec![0; size], trimmed: vec![false; size] }
    }

    /// Carries a command out. `extents` tells whether the context was selected.
    pub fn apply(&mut self, command: &Command, extents: bool) -> Pending {
        let expected = self.expect(command, extents);
        let length = match &expected {
            Expected::Data { model, .. } => model.bytes.len(),
            _ => 0,
        };
        Pending { expected, data: vec![None; length], extents: Vec::new(), error: None }
    }

    fn expect(&mut self, command: &Command, extents: bool) -> Expected {
        match command {
            Command::Read { length: 0, .. }
            | Command::Write { length: 0, .. }
            | Command::Trim { length: 0, .. }
            | Command::Zero { length: 0, .. }
            | Command::FastZero { length: 0, .. }
            | Command::Cache { length: 0, .. } => Expected::Anything,
            Command::Read { at, length, .. } => match self.range(at, *length) {
                Some(range) => {
                    Expected::Data { offset: at.offset(self.bytes.len()), model: self.part(range) }
                }
                None => Expected::Error(&[EINVAL]),
            },
            Command::Write { at, length, seed, .. } => {
                self.change(at, *length, |bytes| bytes.copy_from_slice(&data(*length, *seed)))
            }
            Command::Zero { at, length, .. } => self.change(at, *length, |bytes| bytes.fill(0)),
            Command::Trim { at, length, .. } => match self.range(at, *length) {
                Some(range) => {
                    self.trimmed[range].fill(true);
                    Expected::Done
                }
                None => Expected::Error(&[EINVAL, ENOSPC]),
            },
            // Whether it was done is the server's choice, so the bytes may be either.
            Command::FastZero { at, length, .. } => match self.range(at, *length) {
                Some(range) => {
                    self.trimmed[range].fill(true);
                    Expected::DoneOr(&[ENOTSUP, EINVAL])
                }
                None => Expected::Error(&[ENOSPC, EINVAL, ENOTSUP]),
            },
            Command::Status { at, length, one } => match self.range(at, *length) {
                Some(range) if extents && !range.is_empty() => Expected::Extents {
                    model: self.part(range.start..self.bytes.len()),
                    length: u64::from(*length),
                    one: *one,
                },
                _ => Expected::Error(&[EINVAL]),
            },
            Command::Cache { at, length } => match self.range(at, *length) {
                Some(_) => Expected::Done,
                None => Expected::Error(&[EINVAL]),
            },
            Command::Flush => Expected::Done,
            Command::Odd { .. } => Expected::Error(&[]),
        }
    }

    fn range(&self, at: &Place, length: u16) -> Option<Range<usize>> {
        let start = usize::try_from(at.offset(self.bytes.len())).ok()?;
        let end = start.checked_add(usize::from(length))?;
        (end <= self.bytes.len()).then_some(start..end)
    }

    fn part(&self, range: Range<usize>) -> Self {
        Self { bytes: self.bytes[range.clone()].to_vec(), trimmed: self.trimmed[range].to_vec() }
    }

    fn change(&mut self, at: &Place, length: u16, how: impl FnOnce(&mut [u8])) -> Expected {
        let Some(range) = self.range(at, length) else {
            return Expected::Error(&[ENOSPC, EINVAL]);
        };
        how(&mut self.bytes[range.clone()]);
        self.trimmed[range].fill(false);
        Expected::Done
    }

    /// May the disk hold these bytes?
    #[must_use]
    pub fn fits(&self, data: &[u8]) -> bool {
        let known = self.bytes.iter().zip(&self.trimmed);
        let may_be = |is: &u8, was: &u8, trimmed: &bool| is == was || (*trimmed && *is == 0);
        data.len() == self.bytes.len()
            && data.iter().zip(known).all(|(is, (was, trimmed))| may_be(is, was, trimmed))
    }
}

impl Pending {
    /// Bytes that follow a simple reply without an error.
    #[must_use]
    pub fn data_len(&self) -> usize {
        self.data.len()
    }

    /// Takes a part of the reply.
    ///
    /// # Panics
    /// When it does not belong there.
    pub fn add(&mut self, body: Body<'_>) {
        match body {
            Body::Nothing => {}
            Body::Error(code) => {
                assert!(code != 0 && self.error.is_none());
                self.error = Some(code);
            }
            Body::Data(offset, bytes) => self.fill(offset, bytes.iter().copied()),
            Body::Hole(offset, length) => self.fill(Some(offset), (0..length).map(|_| 0)),
            Body::Status(extents) => {
                assert!(self.extents.is_empty() && !extents.is_empty());
                self.extents = extents;
            }
        }
    }

    fn fill(&mut self, at: Option<u64>, bytes: impl Iterator<Item = u8>) {
        let Expected::Data { offset, .. } = &self.expected else {
            panic!("data for a request that asks for none");
        };
        let start = at.unwrap_or(*offset).checked_sub(*offset).expect("data before the request");
        let mut places = self.data.iter_mut().skip(usize::try_from(start).expect("in memory"));
        for byte in bytes {
            let place = places.next().expect("data behind the request");
            assert!(place.replace(byte).is_none(), "the same byte twice in a reply");
        }
    }

    /// The reply is whole: is it right?
    ///
    /// # Panics
    /// When it is not.
    pub fn finish(self) {
        match self.expected {
            Expected::Anything => return,
            Expected::DoneOr(codes) => {
                assert!(self.error.is_none_or(|error| codes.contains(&error)), "{:?}", self.error);
                return;
            }
            Expected::Error(codes) => {
                let error = self.error.expect("no error");
                assert!(codes.is_empty() || codes.contains(&error), "error {error}");
                return;
            }
            _ => assert_eq!(self.error, None),
        }
        match self.expected {
            Expected::Data { model, .. } => {
                let data: Option<Vec<u8>> = self.data.into_iter().collect();
                assert!(model.fits(&data.expect("bytes are missing")), "a read differs");
            }
            Expected::Extents { model, length, one } => {
                check_extents(&model, &self.extents, length, one);
            }
            _ => assert!(self.extents.is_empty()),
        }
    }
}

/// What is told to be zero must be; a reply may end early but not late.
fn check_extents(model: &Model, extents: &[(u64, u64)], length: u64, one: bool) {
    assert!(!extents.is_empty() && (!one || extents.len() == 1), "{} extents", extents.len());
    let mut at = 0;
    for (index, (extent, state)) in extents.iter().enumerate() {
        assert!(*extent > 0 && at < length, "an extent of nothing, or one too many");
        let last = index + 1 == extents.len();
        let end = at + extent;
        assert!(end <= length || (last && !one), "extents reach past the request");
        if state & ZERO != 0 {
            let range =
                usize::try_from(at).expect("in memory")..usize::try_from(end).expect("in memory");
            let part = model.part(range);
            assert!(part.fits(&vec![0; part.bytes.len()]), "what is told to be zero is not");
        }
        at = end;
    }
}

/// Bytes of a write; none is zero, so that lost ones show.
#[must_use]
pub fn data(length: u16, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(7) ^ u16::from(seed)).to_be_bytes()[1] | 1).collect()
}
