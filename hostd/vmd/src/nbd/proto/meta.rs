//! LIST_META_CONTEXT and SET_META_CONTEXT: what they ask for.
//!
//! Owns the layout of both options and the rule which query means `base:allocation`, the one context there is
//! ("Metadata querying"). Must not know what is selected. Flow: the data of an option becomes a [`ContextQuery`],
//! which is then asked whether it lists or selects the context.

use super::negotiation::text;
use super::{MAX_STRING, be32};

/// The context that is offered.
pub const ALLOCATION: &str = "base:allocation";

/// The namespace that it is in; as a query for a list it means all of it.
const BASE: &str = "base:";

/// A parsed option. Queries of other namespaces, and unknown ones of this, are skipped as the protocol demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextQuery<'a> {
    /// Name of the export.
    pub name: &'a str,
    /// There is not one query.
    everything: bool,
    /// `base:` was asked for.
    wildcard: bool,
    /// `base:allocation` was asked for, once or more.
    allocation: bool,
}

impl<'a> ContextQuery<'a> {
    /// Reads the data of either option; `None` when the counts do not fit it or a string is none.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let (name, rest) = string(data)?;
        let count = be32(rest, 0)?;
        let mut rest = rest.get(4..)?;
        let (mut wildcard, mut allocation) = (false, false);
        // Each round takes four bytes or ends, so it is the length of the data that bounds the loop.
        for _ in 0..count {
            let (query, after) = string(rest)?;
            wildcard |= query == BASE;
            allocation |= query == ALLOCATION;
            rest = after;
        }
        rest.is_empty().then_some(Self { name, everything: count == 0, wildcard, allocation })
    }

    /// Whether a list has the context in it.
    pub fn lists(&self) -> bool {
        self.everything || self.wildcard || self.allocation
    }

    /// Whether the context is selected; nothing short of its name does that.
    pub fn selects(&self) -> bool {
        self.allocation
    }
}

/// A string with its length before it, and what follows.
fn string(data: &[u8]) -> Option<(&str, &[u8])> {
    let length = usize::try_from(be32(data, 0)?).ok().filter(|length| *length <= MAX_STRING)?;
    let (bytes, rest) = data.get(4..)?.split_at_checked(length)?;
    Some((text(bytes)?, rest))
}
