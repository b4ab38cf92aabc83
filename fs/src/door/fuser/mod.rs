//! The requests of the kernel as the crate `fuser` hands them out, one method each.
//!
//! Owns the translation into requests of our own; what they mean is in `operations`. It must not know the home. The
//! file is long because the trait must be implemented in one block, and stays flat: no method decides anything.
//!
//! What this version of the crate does not carry (`TMPFILE`, `STATX`, `SYNCFS`) has no request of ours yet.

mod attr;
mod init;
mod replies;

pub use init::negotiate;

use super::operations::Door;
use super::protocol::{
    NewAttributes, OnFile, OnFolder, OnName, OnNode, OnXattr, Operation, Reply, Request, Write,
};
use crate::home::Caller;
use attr::new_time;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, TimeOrNow,
    WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::SystemTime;

type Header = fuser::Request;

impl Door {
    fn ask(&self, from: &Header, id: INodeNo, operation: Operation<'_>, reply: impl Reply) {
        self.ask_masked(from, 0, id, operation, reply);
    }

    /// For requests that make something.
    fn ask_masked(
        &self,
        from: &Header,
        umask: u32,
        id: INodeNo,
        operation: Operation<'_>,
        reply: impl Reply,
    ) {
        let caller = Caller { uid: from.uid(), gid: from.gid(), umask };
        self.serve(&Request { node: id.0, caller, operation }, reply);
    }
}

impl Filesystem for Door {
    fn init(&mut self, _: &Header, config: &mut KernelConfig) -> io::Result<()> {
        self.bypasses = init::negotiate(config, self.caching);
        Ok(())
    }

    fn lookup(&self, from: &Header, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.ask(from, folder, Operation::Name(name, OnName::Lookup), reply);
    }

    fn forget(&self, _: &Header, id: INodeNo, count: u64) {
        self.home.forget(id.0, count);
    }

    fn getattr(&self, from: &Header, id: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.ask(from, id, Operation::Node(OnNode::Attributes), reply);
    }

    fn setattr(
        &self,
        from: &Header,
        id: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (accessed, modified) = (atime.map(new_time), mtime.map(new_time));
        let handle = handle.map(|handle| handle.0);
        let new = NewAttributes { mode, uid, gid, size, accessed, modified, handle };
        self.ask(from, id, Operation::Node(OnNode::SetAttributes(new)), reply);
    }

    fn readlink(&self, from: &Header, id: INodeNo, reply: ReplyData) {
        self.ask(from, id, Operation::Node(OnNode::ReadLink), reply);
    }

    fn mknod(
        &self,
        from: &Header,
        folder: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let asked = Operation::Name(name, OnName::MakeNode { mode, device });
        self.ask_masked(from, umask, folder, asked, reply);
    }

    fn mkdir(
        &self,
        from: &Header,
        folder: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let asked = Operation::Name(name, OnName::MakeFolder { mode });
        self.ask_masked(from, umask, folder, asked, reply);
    }

    fn unlink(&self, from: &Header, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.ask(from, folder, Operation::Name(name, OnName::Remove), reply);
    }

    fn rmdir(&self, from: &Header, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.ask(from, folder, Operation::Name(name, OnName::RemoveFolder), reply);
    }

    fn symlink(
        &self,
        from: &Header,
        folder: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let asked = OnName::MakeLink { target: target.as_os_str() };
        self.ask(from, folder, Operation::Name(name, asked), reply);
    }

    fn rename(
        &self,
        from: &Header,
        folder: INodeNo,
        name: &OsStr,
        new_folder: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (to, flags) = (new_folder.0, flags.bits());
        let asked = OnName::Rename { folder: to, name: new_name, flags };
        self.ask(from, folder, Operation::Name(name, asked), reply);
    }

    fn link(&self, from: &Header, id: INodeNo, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.ask(from, folder, Operation::Name(name, OnName::Link { target: id.0 }), reply);
    }

    fn open(&self, from: &Header, id: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.ask(from, id, Operation::Node(OnNode::Open { flags: flags.0 }), reply);
    }

    fn create(
        &self,
        from: &Header,
        folder: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let asked = Operation::Name(name, OnName::Create { mode, flags });
        self.ask_masked(from, umask, folder, asked, reply);
    }

    fn read(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        at: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.ask(from, id, Operation::File(handle.0, OnFile::Read { at, len: size }), reply);
    }

    fn write(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        at: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let collected = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let flags = if collected { 0 } else { flags.0 };
        let asked = OnFile::Write(Write { at, data, flags, kill });
        self.ask(from, id, Operation::File(handle.0, asked), reply);
    }

    fn flush(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.ask(from, id, Operation::File(handle.0, OnFile::Flush), reply);
    }

    fn release(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.ask(from, id, Operation::File(handle.0, OnFile::Release), reply);
    }

    fn fsync(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.ask(from, id, Operation::File(handle.0, OnFile::Sync { data_only }), reply);
    }

    fn opendir(&self, from: &Header, id: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.ask(from, id, Operation::Node(OnNode::OpenFolder), reply);
    }

    fn readdir(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let asked = OnFolder::List { from: offset, attributes: false };
        self.ask(from, id, Operation::Folder(handle.0, asked), reply);
    }

    fn readdirplus(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let asked = OnFolder::List { from: offset, attributes: true };
        self.ask(from, id, Operation::Folder(handle.0, asked), reply);
    }

    fn releasedir(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.ask(from, id, Operation::Folder(handle.0, OnFolder::Release), reply);
    }

    fn fsyncdir(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.ask(from, id, Operation::Folder(handle.0, OnFolder::Sync), reply);
    }

    fn statfs(&self, from: &Header, id: INodeNo, reply: ReplyStatfs) {
        self.ask(from, id, Operation::Node(OnNode::Space), reply);
    }

    fn setxattr(
        &self,
        from: &Header,
        id: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let asked = OnXattr::Set { name, value, flags: flags.cast_unsigned() };
        self.ask(from, id, Operation::Xattr(asked), reply);
    }

    fn getxattr(&self, from: &Header, id: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.ask(from, id, Operation::Xattr(OnXattr::Get { name, room: size }), reply);
    }

    fn listxattr(&self, from: &Header, id: INodeNo, size: u32, reply: ReplyXattr) {
        self.ask(from, id, Operation::Xattr(OnXattr::List { room: size }), reply);
    }

    fn removexattr(&self, from: &Header, id: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.ask(from, id, Operation::Xattr(OnXattr::Remove { name }), reply);
    }

    fn access(&self, from: &Header, id: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        self.ask(from, id, Operation::Node(OnNode::Access), reply);
    }

    fn ioctl(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _room: u32,
        reply: ReplyIoctl,
    ) {
        self.ask(from, id, Operation::File(handle.0, OnFile::Control), reply);
    }

    fn poll(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        self.ask(from, id, Operation::File(handle.0, OnFile::Poll), reply);
    }

    fn fallocate(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        at: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.ask(from, id, Operation::File(handle.0, OnFile::Allocate { at, len, mode }), reply);
    }

    fn lseek(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        at: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.ask(from, id, Operation::File(handle.0, OnFile::Seek { at, whence }), reply);
    }

    fn copy_file_range(
        &self,
        from: &Header,
        id: INodeNo,
        handle: FileHandle,
        at: u64,
        _to: INodeNo,
        to_handle: FileHandle,
        to: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let asked = OnFile::Copy { at, handle: to_handle.0, to, len };
        self.ask(from, id, Operation::File(handle.0, asked), reply);
    }
}
