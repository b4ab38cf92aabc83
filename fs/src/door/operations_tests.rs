//! The operations without a kernel: a transport in memory asks, and keeps the answers.

use super::*;
use crate::door::protocol::{Cache, Entry, NewAttributes, Write};
use crate::safe::Names;
use crypto::{Arena, HomeKey};
use rustix::fs::FileType;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use uuid::Uuid;

/// What a reply was given.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Done,
    Node(u64, FileType, u64),
    Absent,
    Opened(Opened),
    Data(Vec<u8>),
    Length(u32),
    Written(u32),
    Offset(i64),
    Names(Vec<String>),
    Error(Errno),
}

struct Memory {
    names: Vec<String>,
    /// Names that it has room for.
    room: usize,
    said: Sender<Said>,
}

impl Reply for Memory {
    fn add(&mut self, entry: &Entry<'_>) -> bool {
        let full = self.names.len() == self.room;
        if !full {
            self.names.push(entry.name.to_string_lossy().into_owned());
        }
        full
    }

    fn send(self, answer: Result<Answer<'_>, Errno>) {
        let node = |found: crate::home::Attributes| Said::Node(found.id, found.kind, found.size);
        let said = match answer {
            Ok(Answer::Done) => Said::Done,
            Ok(Answer::Entry(found, _) | Answer::Attributes(found, _)) => node(found),
            Ok(Answer::Absent(_)) => Said::Absent,
            Ok(Answer::Opened(opened)) | Ok(Answer::Created(_, _, opened)) => Said::Opened(opened),
            Ok(Answer::Data(bytes)) => Said::Data(bytes.to_vec()),
            Ok(Answer::Length(len)) => Said::Length(len),
            Ok(Answer::Written(count)) => Said::Written(count),
            Ok(Answer::Offset(found)) => Said::Offset(found),
            Ok(Answer::Space(_)) => panic!("nobody asked for the space"),
            Ok(Answer::Listed) => Said::Names(self.names),
            Err(errno) => Said::Error(errno),
        };
        self.said.send(said).unwrap();
    }
}

struct Test {
    door: Door,
    _folder: tempfile::TempDir,
}

impl Test {
    fn new(caching: Caching) -> Test {
        let (arena, folder) = (Arena::new(64 * 1024).unwrap(), tempfile::tempdir().unwrap());
        let key = HomeKey::generate(&arena).unwrap();
        let dir = OwnedFd::from(std::fs::File::open(folder.path()).unwrap());
        let home = Home::open(dir, key, Uuid::from_u128(7), Names::Plain, arena).unwrap();
        Test { door: Door::new(home, caching, None, Arc::default()), _folder: folder }
    }

    fn ask(&self, node: u64, operation: Operation<'_>) -> Said {
        self.ask_with(node, operation, 100)
    }

    fn ask_with(&self, node: u64, operation: Operation<'_>, room: usize) -> Said {
        let (said, answers) = channel();
        let uid = rustix::process::geteuid().as_raw();
        let caller = Caller { uid, gid: rustix::process::getegid().as_raw(), umask: 0o022 };
        let request = Request { node, caller, operation };
        self.door.serve(&request, Memory { names: Vec::new(), room, said });
        let answer = answers.recv().unwrap();
        assert!(answers.recv().is_err(), "one request has one answer");
        answer
    }

    fn name(&self, name: &str, asked: OnName<'_>) -> Said {
        self.ask(1, Operation::Name(OsStr::new(name), asked))
    }

    fn create(&self, name: &str) -> u64 {
        let flags = libc::O_RDWR;
        match self.name(name, OnName::Create { mode: 0o644, flags }) {
            Said::Opened(opened) => opened.handle,
            other => panic!("{other:?}"),
        }
    }

    fn node(&self, name: &str) -> u64 {
        match self.name(name, OnName::Lookup) {
            Said::Node(id, _, _) => id,
            other => panic!("{other:?}"),
        }
    }
}

fn write(at: u64, data: &[u8]) -> OnFile<'_> {
    OnFile::Write(Write { at, data, flags: 0, kill: false })
}

#[test]
fn a_file_is_made_written_read_and_removed() {
    let test = Test::new(Caching::Shared);
    let handle = test.create("f");
    assert_eq!(test.ask(0, Operation::File(handle, write(3, b"data"))), Said::Written(4));
    let read = |at, len| test.ask(0, Operation::File(handle, OnFile::Read { at, len }));
    assert_eq!(read(0, 100), Said::Data(b"\0\0\0data".to_vec()));
    assert_eq!((read(5, 1), read(7, 1)), (Said::Data(b"t".to_vec()), Said::Data(Vec::new())));
    let id = test.node("f");
    let size = |size| NewAttributes { size: Some(size), ..NewAttributes::default() };
    let set = Operation::Node(OnNode::SetAttributes(size(4)));
    assert_eq!(test.ask(id, set), Said::Node(id, FileType::RegularFile, 4));
    let seek = OnFile::Seek { at: 4, whence: 3 };
    assert_eq!(test.ask(0, Operation::File(handle, seek)), Said::Error(Errno::NXIO));
    let hole = OnFile::Seek { at: 0, whence: 4 };
    assert_eq!(test.ask(0, Operation::File(handle, hole)), Said::Offset(4));
    let sync = OnFile::Sync { data_only: true };
    assert_eq!(test.ask(0, Operation::File(handle, sync)), Said::Done);
    assert_eq!(test.name("f", OnName::Remove), Said::Done);
    assert_eq!(test.name("f", OnName::Lookup), Said::Error(Errno::NOENT));
    assert_eq!(read(0, 100), Said::Data(b"\0\0\0d".to_vec()), "open, it lives on");
    assert_eq!(test.ask(0, Operation::File(handle, OnFile::Release)), Said::Done);
    assert_eq!(read(0, 1), Said::Error(Errno::INVAL), "a handle that was given back");
}

#[test]
fn attributes_have_room_or_a_length() {
    let test = Test::new(Caching::Shared);
    test.create("f");
    let (id, name) = (test.node("f"), OsStr::new("user.a"));
    let ask = |asked| test.ask(id, Operation::Xattr(asked));
    let value = &b"value"[..];
    assert_eq!(ask(OnXattr::Set { name, value, flags: 0 }), Said::Done);
    assert_eq!(ask(OnXattr::Get { name, room: 0 }), Said::Length(5));
    assert_eq!(ask(OnXattr::Get { name, room: 4 }), Said::Error(Errno::RANGE));
    assert_eq!(ask(OnXattr::Get { name, room: 5 }), Said::Data(b"value".to_vec()));
    assert_eq!(ask(OnXattr::List { room: 0 }), Said::Length(7));
    assert_eq!(ask(OnXattr::List { room: 6 }), Said::Error(Errno::RANGE));
    assert_eq!(ask(OnXattr::List { room: 7 }), Said::Data(b"user.a\0".to_vec()));
    assert_eq!(ask(OnXattr::Remove { name }), Said::Done);
    assert_eq!(ask(OnXattr::Get { name, room: 5 }), Said::Error(Errno::NODATA));
}

#[test]
fn a_listing_stops_where_the_reply_is_full() {
    let test = Test::new(Caching::Shared);
    for name in ["a", "b", "c"] {
        test.create(name);
    }
    let Said::Opened(opened) = test.ask(1, Operation::Node(OnNode::OpenFolder)) else { panic!() };
    let list = |room, attributes| {
        let asked = OnFolder::List { from: 0, attributes };
        test.ask_with(1, Operation::Folder(opened.handle, asked), room)
    };
    for attributes in [false, true] {
        let Said::Names(mut names) = list(100, attributes) else { panic!() };
        names.sort();
        assert_eq!(names, [".", "..", "a", "b", "c"]);
        let Said::Names(names) = list(2, attributes) else { panic!() };
        assert_eq!(names.len(), 2);
    }
}

#[test]
fn alone_the_kernel_may_keep_what_it_knows() {
    let shared = Test::new(Caching::Shared);
    assert_eq!(shared.name("none", OnName::Lookup), Said::Error(Errno::NOENT));
    let alone = Test::new(Caching::Exclusive);
    assert_eq!(alone.name("none", OnName::Lookup), Said::Absent);
    for (test, cache) in [(shared, Cache::Renew), (alone, Cache::Keep)] {
        test.create("f");
        let asked = OnNode::Open { flags: libc::O_RDONLY };
        let Said::Opened(opened) = test.ask(test.node("f"), Operation::Node(asked)) else {
            panic!()
        };
        assert_eq!((opened.cache, opened.flush), (cache, false));
    }
}

#[test]
fn what_is_never_done_has_its_own_answer() {
    let test = Test::new(Caching::Shared);
    let handle = test.create("f");
    let file = |asked| test.ask(0, Operation::File(handle, asked));
    assert_eq!(file(OnFile::Control), Said::Error(Errno::NOTTY));
    assert_eq!(file(OnFile::Poll), Said::Error(Errno::NOSYS));
    let collapse = OnFile::Allocate { at: 0, len: 4096, mode: 8 };
    assert_eq!(file(collapse), Said::Error(Errno::OPNOTSUPP));
    assert_eq!(test.ask(1, Operation::Node(OnNode::Access)), Said::Error(Errno::ACCESS));
    assert_eq!(test.name("..", OnName::Lookup), Said::Error(Errno::INVAL));
    assert_eq!(test.ask(77, Operation::Node(OnNode::Attributes)), Said::Error(Errno::STALE));
}
