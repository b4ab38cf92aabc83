//! Requests and answers, as every transport of FUSE carries them.
//!
//! Owns the types between a transport, which reads requests from the kernel and writes answers, and the operations
//! that serve them; must not know either side. Names, numbers and flags are the kernel's (`linux/fuse.h`). Flow: a
//! transport parses a [`Request`], the operations act on the home and give one [`Answer`] to its [`Reply`].

use crate::home::{Attributes, Caller, NewTime};
use rustix::fs::StatVfs;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::time::Duration;

/// One request of the kernel.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// The node it is about; for a name, its folder.
    pub(super) node: u64,
    pub(super) caller: Caller,
    pub(super) operation: Operation<'a>,
}

/// What a request is about, and what is asked.
#[derive(Debug)]
pub(super) enum Operation<'a> {
    Name(&'a OsStr, OnName<'a>),
    Node(OnNode),
    Xattr(OnXattr<'a>),
    /// The handle came from [`Answer::Opened`] or [`Answer::Created`].
    File(u64, OnFile<'a>),
    /// The handle came from [`Answer::Opened`].
    Folder(u64, OnFolder),
}

/// Of a name in a folder.
#[derive(Debug)]
pub(super) enum OnName<'a> {
    Lookup,
    MakeNode {
        mode: u32,
        device: u32,
    },
    MakeFolder {
        mode: u32,
    },
    MakeLink {
        target: &'a OsStr,
    },
    Remove,
    RemoveFolder,
    Rename {
        folder: u64,
        name: &'a OsStr,
        flags: u32,
    },
    /// The name is a new one of the node `target`.
    Link {
        target: u64,
    },
    Create {
        mode: u32,
        flags: i32,
    },
}

/// Of a node.
#[derive(Debug)]
pub(super) enum OnNode {
    Attributes,
    SetAttributes(NewAttributes),
    ReadLink,
    Open { flags: i32 },
    OpenFolder,
    Space,
    Access,
}

/// Attributes to set; `None` leaves one alone.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NewAttributes {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) accessed: Option<NewTime>,
    pub(super) modified: Option<NewTime>,
    /// The open file through which it is asked.
    pub(super) handle: Option<u64>,
}

/// Of the extended attributes of a node. `room` is the longest answer that is of use; 0 asks for the length.
#[derive(Debug)]
pub(super) enum OnXattr<'a> {
    Set { name: &'a OsStr, value: &'a [u8], flags: u32 },
    Get { name: &'a OsStr, room: u32 },
    List { room: u32 },
    Remove { name: &'a OsStr },
}

/// Of an open file.
#[derive(Debug)]
pub(super) enum OnFile<'a> {
    Read { at: u64, len: u32 },
    Write(Write<'a>),
    Flush,
    Release,
    Sync { data_only: bool },
    Allocate { at: u64, len: u64, mode: i32 },
    Seek { at: i64, whence: i32 },
    Copy { at: u64, handle: u64, to: u64, len: u64 },
    Control,
    Poll,
}

/// A write to a file.
#[derive(Debug)]
pub(super) struct Write<'a> {
    pub(super) at: u64,
    /// In the transport's memory, aligned or not: it is ciphered into memory of the home, in one pass.
    pub(super) data: &'a [u8],
    /// Of the open file; 0 when the kernel writes what it had collected.
    pub(super) flags: i32,
    /// Set-user bits fall (`FUSE_WRITE_KILL_SUIDGID`).
    pub(super) kill: bool,
}

/// Of an open folder.
#[derive(Debug)]
pub(super) enum OnFolder {
    /// Names from an offset on; with attributes, each of them is a lookup.
    List {
        from: u64,
        attributes: bool,
    },
    Release,
    Sync,
}

/// What a request is answered with when it did not fail.
pub(super) enum Answer<'a> {
    Done,
    /// A node that was looked up or made, and how long that may be believed.
    Entry(Attributes, Duration),
    /// There is no such name, and how long that may be believed.
    Absent(Duration),
    Attributes(Attributes, Duration),
    Opened(Opened),
    Created(Attributes, Duration, Opened),
    Data(&'a [u8]),
    /// Length of what there is to get.
    Length(u32),
    Written(u32),
    Offset(i64),
    Space(StatVfs),
    /// The names that the reply took.
    Listed,
}

/// An open file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) handle: u64,
    pub(super) cache: Cache,
    /// The kernel is to tell when a descriptor of it is closed (`FUSE_FLUSH`).
    pub(super) flush: bool,
}

/// What the kernel does with the content of an open file or folder in its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    /// Drops what it has, and caches from now on. Of a folder, it caches nothing.
    Renew,
    /// Keeps what it has.
    Keep,
    /// Goes past the cache, and writes what overlaps nothing in parallel.
    Bypass,
}

/// One name of a listing.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a OsStr,
    pub(super) inode: u64,
    pub(super) kind: rustix::fs::FileType,
    /// Where the listing goes on after it.
    pub(super) next: u64,
    /// In a listing with attributes: what was looked up, if it was, and how long it may be believed.
    pub(super) found: Option<(Attributes, Duration)>,
}

/// Where the answer to one request goes. The operations call `send` once, from whatever thread.
pub(super) trait Reply: Sized + Send + 'static {
    /// Adds a name to a listing; true when there is no room for it.
    fn add(&mut self, _entry: &Entry<'_>) -> bool {
        true
    }

    /// Sends the answer.
    fn send(self, answer: Result<Answer<'_>, Errno>);
}

impl Operation<'_> {
    /// What it is called in the log: the system call that it comes from.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Operation::Name(_, asked) => asked.label(),
            Operation::Node(asked) => asked.label(),
            Operation::Xattr(OnXattr::Set { .. }) => "setxattr",
            Operation::Xattr(OnXattr::Get { .. }) => "getxattr",
            Operation::Xattr(OnXattr::List { .. }) => "listxattr",
            Operation::Xattr(OnXattr::Remove { .. }) => "removexattr",
            Operation::File(_, asked) => asked.label(),
            Operation::Folder(_, OnFolder::List { attributes: false, .. }) => "readdir",
            Operation::Folder(_, OnFolder::List { attributes: true, .. }) => "readdirplus",
            Operation::Folder(_, OnFolder::Release) => "releasedir",
            Operation::Folder(_, OnFolder::Sync) => "fsyncdir",
        }
    }
}

impl OnName<'_> {
    fn label(&self) -> &'static str {
        match self {
            OnName::Lookup => "lookup",
            OnName::MakeNode { .. } => "mknod",
            OnName::MakeFolder { .. } => "mkdir",
            OnName::MakeLink { .. } => "symlink",
            OnName::Remove => "unlink",
            OnName::RemoveFolder => "rmdir",
            OnName::Rename { .. } => "rename",
            OnName::Link { .. } => "link",
            OnName::Create { .. } => "create",
        }
    }
}

impl OnNode {
    fn label(&self) -> &'static str {
        match self {
            OnNode::Attributes => "getattr",
            OnNode::SetAttributes(_) => "setattr",
            OnNode::ReadLink => "readlink",
            OnNode::Open { .. } => "open",
            OnNode::OpenFolder => "opendir",
            OnNode::Space => "statfs",
            OnNode::Access => "access",
        }
    }
}

impl OnFile<'_> {
    fn label(&self) -> &'static str {
        match self {
            OnFile::Read { .. } => "read",
            OnFile::Write(_) => "write",
            OnFile::Flush => "flush",
            OnFile::Release => "release",
            OnFile::Sync { .. } => "fsync",
            OnFile::Allocate { .. } => "fallocate",
            OnFile::Seek { .. } => "lseek",
            OnFile::Copy { .. } => "copy_file_range",
            OnFile::Control => "ioctl",
            OnFile::Poll => "poll",
        }
    }
}
