//! Attributes and times in the form of the protocol, and back.
//!
//! Owns the translation; does no I/O.

use crate::home::{Attributes, NewTime, Time};
use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use rustix::fs::FileType as Kind;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Preferred size of requests shown by `stat`: the data unit.
const BLOCK_SIZE: u32 = 4096;

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    let changed = system_time(attributes.changed);
    FileAttr {
        ino: INodeNo(attributes.id),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: system_time(attributes.accessed),
        mtime: system_time(attributes.modified),
        ctime: changed,
        crtime: changed,
        kind: file_type(attributes.kind),
        perm: attributes.permissions,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.device,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Attributes of which the kernel takes only number and kind: of `.` and `..` in a listing, and of no node at all.
pub(super) fn dot_attr(inode: u64) -> FileAttr {
    number_and_kind(inode, FileType::Directory)
}

/// Attributes in a listing of a name that could not be looked up. The kernel is to take the name alone, and ask
/// when it wants more. The number 0 would say so, but libraries take a name with it for removed; a size that
/// cannot be makes the kernel show the name and number, and forget the rest (`fuse_direntplus_link` and
/// `fuse_invalid_attr` in fs/fuse).
pub(super) fn unknown_attr(inode: u64, kind: Kind) -> FileAttr {
    FileAttr { size: u64::MAX, ..number_and_kind(inode, file_type(kind)) }
}

fn number_and_kind(inode: u64, kind: FileType) -> FileAttr {
    FileAttr {
        ino: INodeNo(inode),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::RegularFile | Kind::Unknown => FileType::RegularFile,
    }
}

fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    whole
        .and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanoseconds.into())))
        .unwrap_or(UNIX_EPOCH)
}

pub(super) fn new_time(time: TimeOrNow) -> NewTime {
    match time {
        TimeOrNow::Now => NewTime::Now,
        TimeOrNow::SpecificTime(time) => NewTime::At(requested_time(time)),
    }
}

/// The time that the kernel sent. For times before 1970, fuser 0.18 subtracts the nanoseconds, which count
/// forward, from the seconds; undone here.
fn requested_time(time: SystemTime) -> Time {
    let (negative, distance) = match time.duration_since(UNIX_EPOCH) {
        Ok(distance) => (false, distance),
        Err(before) => (true, before.duration()),
    };
    let seconds = i64::try_from(distance.as_secs()).unwrap_or(i64::MAX);
    Time {
        seconds: if negative { -seconds } else { seconds },
        nanoseconds: distance.subsec_nanos(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_both_ways() {
        let shown = system_time(Time { seconds: -2, nanoseconds: 250_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(shown).unwrap(), Duration::from_millis(1750));
        // What fuser makes of -2 s + 250 ms.
        let sent = UNIX_EPOCH - Duration::new(2, 250_000_000);
        assert_eq!(requested_time(sent), Time { seconds: -2, nanoseconds: 250_000_000 });
    }

    #[test]
    fn extreme_times_are_shown_and_clamped() {
        let nanoseconds = 999_999_999;
        let shown = |seconds| system_time(Time { seconds, nanoseconds });
        assert_eq!(shown(0), UNIX_EPOCH + Duration::new(0, nanoseconds));
        let last = Duration::new(i64::MAX.unsigned_abs(), nanoseconds);
        assert_eq!(shown(i64::MAX).duration_since(UNIX_EPOCH).unwrap(), last);
        let first = Duration::new(i64::MAX.unsigned_abs(), 1);
        assert_eq!(UNIX_EPOCH.duration_since(shown(i64::MIN)).unwrap(), first);
        // Out of what a system time can hold: shown as 1970.
        let beyond = system_time(Time { seconds: i64::MAX, nanoseconds: u32::MAX });
        assert_eq!(beyond, UNIX_EPOCH);
        assert_eq!(requested_time(shown(i64::MAX)), Time { seconds: i64::MAX, nanoseconds });
        let earliest = UNIX_EPOCH.checked_sub(Duration::from_secs(1 << 63)).unwrap();
        let clamped = Time { seconds: -i64::MAX, nanoseconds: 0 };
        assert_eq!(requested_time(earliest), clamped, "2^63 seconds have no place before 1970");
    }
}
