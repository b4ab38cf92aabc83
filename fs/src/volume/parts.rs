//! Cutting a request at the borders of sectors.
//!
//! Owns the arithmetic; does no I/O.

use super::edge::SECTOR_LEN;
use super::geometry::SECTOR;

/// A part of one sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    /// Number of the sector.
    pub(super) sector: u64,
    start: usize,
    end: usize,
}

impl Edge {
    /// Its bytes, of those of its sector.
    pub(super) fn of<'a>(&self, sector: &'a [u8; SECTOR_LEN]) -> &'a [u8] {
        &sector[self.start..self.end]
    }

    /// Its bytes, of those of its sector, to change.
    pub(super) fn of_mut<'a>(&self, sector: &'a mut [u8; SECTOR_LEN]) -> &'a mut [u8] {
        &mut sector[self.start..self.end]
    }

    fn len(edge: Option<Self>) -> usize {
        edge.map_or(0, |edge| edge.end - edge.start)
    }
}

/// A request as an unaligned head, whole sectors and an unaligned tail. A request inside one sector is
/// all head, or all tail when it begins with the sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) head: Option<Edge>,
    /// Offset of the first whole sector.
    pub(super) body: u64,
    pub(super) tail: Option<Edge>,
}

impl Parts {
    /// Cuts the request for `len` bytes from `offset`.
    pub(super) fn of(offset: u64, len: usize) -> Self {
        Self::of_range(offset, offset + len as u64).0
    }

    /// Cuts the range from `start` to `end`; also gives the length of the body.
    pub(super) fn of_range(start: u64, end: u64) -> (Self, u64) {
        let body = start.next_multiple_of(SECTOR);
        let body_end = body.max(end / SECTOR * SECTOR);
        let head = edge(start, end.min(body));
        let tail = edge(body_end, end);
        (Self { head, body, tail }, body_end - body)
    }

    /// Cuts the buffer of the request that was given to [`Parts::of`].
    pub(super) fn split<'a>(
        &self,
        buf: &'a mut [u8],
    ) -> (&'a mut [u8], &'a mut [u8], &'a mut [u8]) {
        let body_end = buf.len() - Edge::len(self.tail);
        let (rest, tail) = buf.split_at_mut(body_end);
        let (head, body) = rest.split_at_mut(Edge::len(self.head));
        (head, body, tail)
    }
}

/// The edge from `start` to `end`, which lie in one sector.
fn edge(start: u64, end: u64) -> Option<Edge> {
    if start >= end {
        return None;
    }
    let sector = start / SECTOR;
    let inside = |offset: u64| usize::try_from(offset - sector * SECTOR).unwrap_or(SECTOR_LEN);
    Some(Edge { sector, start: inside(start), end: inside(end) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

    #[test]
    fn aligned_requests_have_no_edges() {
        let (parts, len) = Parts::of_range(1024, 4096);
        assert_eq!((parts.head, parts.body, len, parts.tail), (None, 1024, 3072, None));
    }

    #[test]
    fn a_request_inside_one_sector_is_one_edge() {
        let (parts, len) = Parts::of_range(700, 710);
        assert_eq!(parts.head, Some(Edge { sector: 1, start: 188, end: 198 }));
        assert_eq!((len, parts.tail), (0, None));
        let (parts, len) = Parts::of_range(512, 520);
        assert_eq!(parts.tail, Some(Edge { sector: 1, start: 0, end: 8 }));
        assert_eq!((len, parts.head), (0, None));
        let (parts, len) = Parts::of_range(700, 700);
        assert_eq!((len, parts.head, parts.tail), (0, None, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn parts_cover_the_request_once(start in 0u64..5000, len in 0usize..5000, top in any::<bool>()) {
            let start = if top { super::super::MAX_SIZE - 10_000 + start } else { start };
            let (parts, body) = Parts::of_range(start, start + len as u64);
            let mut buf = vec![0; len];
            let (head, middle, tail) = parts.split(&mut buf);
            prop_assert_eq!(middle.len() as u64, body);
            prop_assert_eq!((parts.body % SECTOR, body % SECTOR), (0, 0));
            if let Some(edge) = parts.head {
                prop_assert_eq!(edge.sector * SECTOR + edge.start as u64, start);
                prop_assert_eq!(edge.end - edge.start, head.len());
                prop_assert!(edge.end <= SECTOR_LEN && head.len() < SECTOR_LEN);
            }
            if let Some(edge) = parts.tail {
                prop_assert_eq!(edge.sector * SECTOR, parts.body + body);
                prop_assert_eq!((edge.start, edge.end), (0, tail.len()));
            }
            prop_assert_eq!(head.len() + middle.len() + tail.len(), len);
            prop_assert!(head.is_empty() || middle.is_empty() || parts.body == start + head.len() as u64);
        }
    }
}
