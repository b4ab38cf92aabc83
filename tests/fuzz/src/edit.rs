//! A valid file with changes that the fuzzer chose.
//!
//! Owns the changes; must not know the format. Random bytes never carry a MAC that fits, so what lies behind the
//! check is reached from a file that is right but for a few bytes.

use libfuzzer_sys::arbitrary::{self, Arbitrary};

/// One change. Positions wrap around the length.
#[derive(Debug, Clone, Arbitrary)]
pub enum Edit {
    /// A byte is replaced.
    Set {
        /// Where.
        at: u16,
        /// By what.
        byte: u8,
    },
    /// A byte is added.
    Insert {
        /// Before which.
        at: u16,
        /// The byte.
        byte: u8,
    },
    /// Bytes are taken out.
    Remove {
        /// The first.
        at: u16,
        /// How many.
        count: u8,
    },
    /// The rest is cut off.
    Cut {
        /// The first that goes.
        at: u16,
    },
}

impl Edit {
    /// Carries the change out.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        let index = |at: u16| usize::from(at) % bytes.len().max(1);
        match *self {
            Self::Set { at, byte } => {
                let at = index(at);
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            Self::Insert { at, byte } => bytes.insert(index(at), byte),
            Self::Remove { at, count } => {
                let from = index(at);
                let to = (from + usize::from(count)).min(bytes.len());
                bytes.drain(from..to);
            }
            Self::Cut { at } => bytes.truncate(index(at)),
        }
    }
}
