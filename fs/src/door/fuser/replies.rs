//! Answers in the form of the transport: one implementation for each kind of reply.
//!
//! Owns the translation; does no I/O of its own. An answer of another kind than a reply takes cannot come from the
//! operations; the kernel gets an error then, and no program waits for ever.

use super::attr::{dot_attr, file_attr, file_type, unknown_attr};
use crate::door::protocol::{Answer, Cache, Entry, Opened, Reply};
use fuser::{
    FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr,
};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Nothing is known that the kernel could believe.
const NEVER: Duration = Duration::ZERO;

fn number(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

fn flags(opened: Opened) -> FopenFlags {
    let cache = match opened.cache {
        Cache::Renew => FopenFlags::empty(),
        // Of a folder, the first is what it takes to cache it at all.
        Cache::Keep => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        Cache::Bypass => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
    };
    if opened.flush { cache } else { cache | FopenFlags::FOPEN_NOFLUSH }
}

/// `reply!(Type, pattern => what to do with the reply)`.
macro_rules! reply {
    ($reply:ident, $answer:pat => |$self:ident| $send:expr) => {
        impl Reply for $reply {
            fn send($self, answer: Result<Answer<'_>, Errno>) {
                match answer {
                    Ok($answer) => $send,
                    Ok(_) => $self.error(fuser::Errno::EIO),
                    Err(errno) => $self.error(number(errno)),
                }
            }
        }
    };
}

reply!(ReplyEmpty, Answer::Done => |self| self.ok());
reply!(ReplyAttr, Answer::Attributes(found, ttl) => |self| self.attr(&ttl, &file_attr(&found)));
reply!(ReplyOpen, Answer::Opened(opened) => |self| {
    self.opened(FileHandle(opened.handle), flags(opened));
});
reply!(ReplyCreate, Answer::Created(made, ttl, opened) => |self| {
    let (attr, generation) = (file_attr(&made), Generation(made.generation));
    self.created(&ttl, &attr, generation, FileHandle(opened.handle), flags(opened));
});
reply!(ReplyData, Answer::Data(bytes) => |self| self.data(bytes));
reply!(ReplyWrite, Answer::Written(count) => |self| self.written(count));
reply!(ReplyLseek, Answer::Offset(found) => |self| self.offset(found));
reply!(ReplyIoctl, Answer::Done => |self| self.ioctl(0, &[]));
reply!(ReplyPoll, Answer::Done => |self| self.poll(fuser::PollEvents::empty()));
reply!(ReplyStatfs, Answer::Space(space) => |self| {
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    self.statfs(
        space.f_blocks,
        space.f_bfree,
        space.f_bavail,
        space.f_files,
        space.f_ffree,
        small(space.f_bsize),
        small(space.f_namemax),
        small(space.f_frsize),
    );
});

impl Reply for ReplyEntry {
    fn send(self, answer: Result<Answer<'_>, Errno>) {
        match answer {
            Ok(Answer::Entry(found, ttl)) => {
                self.entry(&ttl, &file_attr(&found), Generation(found.generation));
            }
            // The number 0 says so, and the kernel remembers it.
            Ok(Answer::Absent(ttl)) => self.entry(&ttl, &dot_attr(0), Generation(0)),
            Ok(_) => self.error(fuser::Errno::EIO),
            Err(errno) => self.error(number(errno)),
        }
    }
}

impl Reply for ReplyXattr {
    fn send(self, answer: Result<Answer<'_>, Errno>) {
        match answer {
            Ok(Answer::Length(len)) => self.size(len),
            Ok(Answer::Data(bytes)) => self.data(bytes),
            Ok(_) => self.error(fuser::Errno::EIO),
            Err(errno) => self.error(number(errno)),
        }
    }
}

impl Reply for ReplyDirectory {
    fn add(&mut self, entry: &Entry<'_>) -> bool {
        Self::add(self, INodeNo(entry.inode), entry.next, file_type(entry.kind), entry.name)
    }

    fn send(self, answer: Result<Answer<'_>, Errno>) {
        match answer {
            Ok(Answer::Listed) => self.ok(),
            Ok(_) => self.error(fuser::Errno::EIO),
            Err(errno) => self.error(number(errno)),
        }
    }
}

impl Reply for ReplyDirectoryPlus {
    fn add(&mut self, entry: &Entry<'_>) -> bool {
        let (attr, ttl, generation) = match &entry.found {
            Some((found, ttl)) => (file_attr(found), *ttl, found.generation),
            None if matches!(entry.name.as_bytes(), b"." | b"..") => {
                (dot_attr(entry.inode), NEVER, 0)
            }
            None => (unknown_attr(entry.inode, entry.kind), NEVER, 0),
        };
        Self::add(self, attr.ino, entry.next, entry.name, &ttl, &attr, Generation(generation))
    }

    fn send(self, answer: Result<Answer<'_>, Errno>) {
        match answer {
            Ok(Answer::Listed) => self.ok(),
            Ok(_) => self.error(fuser::Errno::EIO),
            Err(errno) => self.error(number(errno)),
        }
    }
}
