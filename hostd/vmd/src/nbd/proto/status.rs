//! BLOCK_STATUS: extents on the wire, and the filter that a request may carry.
//!
//! Owns the layout of the two status chunks and of the request's payload ("`NBD_REPLY_TYPE_BLOCK_STATUS`", and
//! the extension for 64 bits). Must not know where extents come from. Flow: the payload of a request becomes a
//! [`Filter`]; [`start`] and [`extent`] write the body of the reply, extent by extent.

use super::chunk::{Kind, put};
use super::{Framing, be32};

/// The one context that is offered, `base:allocation`, has this number.
pub const ALLOCATION_ID: u32 = 1;

/// Most extents in one reply. Each one costs the storage a question or two, a few milliseconds for so many, and
/// the client asks again from where the answer ends; the protocol's own limit is 2^20.
pub const MAX_EXTENTS: usize = 4096;

/// Bytes of a filter that names one context, which is all there is.
pub const FILTER_LEN: usize = 12;

/// State of an extent in `base:allocation`: not stored, and zero (`NBD_STATE_HOLE | NBD_STATE_ZERO`).
const HOLE_AND_ZERO: u32 = 0b11;

/// What the payload of a BLOCK_STATUS request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Number of bytes that are of interest.
    pub length: u64,
    /// Number of the context.
    pub context: u32,
}

impl Filter {
    /// Reads a filter that names one context.
    pub fn parse(payload: &[u8; FILTER_LEN]) -> Option<Self> {
        let length = u64::from_be_bytes(*payload.first_chunk()?);
        Some(Self { length, context: be32(payload, 8)? })
    }
}

/// Kind of the chunk and length of its body with `extents` extents.
pub fn shape(framing: Framing, extents: usize) -> (Kind, usize) {
    match framing {
        Framing::Extended => (Kind::BlockStatusExtended, 8 + 16 * extents),
        _ => (Kind::BlockStatus, 4 + 8 * extents),
    }
}

/// Writes what stands before the extents, and returns its length.
pub fn start(to: &mut [u8], framing: Framing, extents: u32) -> usize {
    let context = ALLOCATION_ID.to_be_bytes();
    match framing {
        Framing::Extended => put(to, &[&context, &extents.to_be_bytes()]),
        _ => put(to, &[&context]),
    }
}

/// Writes one extent, and returns its length. In 32 bits it is cut to what fits, which is all of it: no request
/// is longer then.
pub fn extent(to: &mut [u8], framing: Framing, length: u64, zero: bool) -> usize {
    let state = if zero { HOLE_AND_ZERO } else { 0 };
    match framing {
        Framing::Extended => put(to, &[&length.to_be_bytes(), &u64::from(state).to_be_bytes()]),
        _ => {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            put(to, &[&length.to_be_bytes(), &state.to_be_bytes()])
        }
    }
}
