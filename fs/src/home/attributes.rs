//! What `stat` shows of a node, and what `setattr` may change.
//!
//! Owns the translation from the stored file's attributes: the plain size comes from the stored length alone,
//! so no header is read for it; must not know FUSE.

use super::keys::HomeKeys;
use super::layout::{HEADER, decode};
use super::node::Node;
use rustix::fs::{FileType, Stat};

/// Seconds and nanoseconds since 1970; the nanoseconds count forward also before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewTime {
    Now,
    At(Time),
}

/// Attributes of a node as the mount shows them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) id: u64,
    pub(crate) generation: u64,
    pub(crate) kind: FileType,
    pub(crate) size: u64,
    /// Stored 512-byte blocks without the header.
    pub(crate) blocks: u64,
    pub(crate) permissions: u16,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) device: u32,
    pub(crate) accessed: Time,
    pub(crate) modified: Time,
    pub(crate) changed: Time,
}

/// Changes asked for; `None` leaves a value alone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Changes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) accessed: Option<NewTime>,
    pub(crate) modified: Option<NewTime>,
}

impl Attributes {
    pub(crate) fn of(node: &Node, stat: &Stat, keys: &HomeKeys) -> Attributes {
        let stored = u64::try_from(stat.st_size).unwrap_or(0);
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        let (size, blocks) = match node.kind {
            FileType::RegularFile => (decode(stored).size(), blocks.saturating_sub(HEADER / 512)),
            FileType::Symlink => (keys.link_len(stored), blocks),
            _ => (stored, blocks),
        };
        Attributes {
            id: node.id,
            generation: node.generation,
            kind: node.kind,
            size,
            blocks,
            permissions: permissions(stat),
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: stat.st_uid,
            gid: stat.st_gid,
            device: u32::try_from(stat.st_rdev).unwrap_or(0),
            accessed: time(stat.st_atime, stat.st_atime_nsec),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// The twelve permission bits.
pub(super) fn permissions(stat: &Stat) -> u16 {
    u16::try_from(stat.st_mode & 0o7777).unwrap_or(0)
}

fn time<N: TryInto<u32>>(seconds: i64, nanoseconds: N) -> Time {
    Time { seconds, nanoseconds: nanoseconds.try_into().unwrap_or(0) }
}
