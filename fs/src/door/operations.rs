//! Requests served: which part of the home each goes to, and what it is answered.
//!
//! Owns the dispatch and what the kernel has open; what a request means is in `requests` and in the home. Must not
//! know the transport.

use super::errno::{ALWAYS_READY, Faults, NO_ACCESS_CHECK, NO_IOCTL, NOTHING_AT_CLOSE, Refusal};
use super::handles::Handles;
use super::holes::{Search, Searches};
use super::protocol::{
    Answer, OnFile, OnFolder, OnName, OnNode, OnXattr, Opened, Operation, Reply, Request,
};
use super::requests::search;
use super::settings::Caching;
use crate::home::{Caller, Folder, Handle, Home, HomeError};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// A home and what the kernel has open of it.
pub(super) struct Door {
    pub(super) home: Home,
    pub(super) files: Handles<Handle>,
    pub(super) folders: Handles<Folder>,
    pub(super) caching: Caching,
    /// For files of which the kernel may hold writes; none where it holds none.
    searches: Option<Searches>,
    /// Direct I/O goes past the kernel's cache. Where the kernel cannot keep both in step, it does not.
    pub(super) bypasses: bool,
    pub(super) faults: Arc<Faults>,
}

impl Door {
    pub(super) fn new(
        home: Home,
        caching: Caching,
        searches: Option<Searches>,
        faults: Arc<Faults>,
    ) -> Door {
        Door {
            home,
            files: Handles::new(),
            folders: Handles::new(),
            caching,
            searches,
            bypasses: false,
            faults,
        }
    }

    /// Serves one request.
    pub(super) fn serve(&self, request: &Request<'_>, reply: impl Reply) {
        let (id, caller, label) = (request.node, request.caller, request.operation.label());
        tracing::trace!(operation = label, node = id, "request");
        match &request.operation {
            Operation::Name(name, asked) => {
                self.finish(label, self.on_name(id, name, asked, caller), reply);
            }
            Operation::Node(OnNode::ReadLink) => {
                let target = self.home.read_link(id);
                let data = target.as_ref().map(|target| Answer::Data(target.as_bytes()));
                match data {
                    Ok(data) => reply.send(Ok(data)),
                    Err(error) => reply.send(Err(self.faults.refuse(label, error))),
                }
            }
            Operation::Node(asked) => self.finish(label, self.on_node(id, asked, caller), reply),
            Operation::Xattr(asked) => self.on_xattr(id, asked, caller, reply),
            Operation::File(handle, OnFile::Read { at, len }) => {
                self.read_file(*handle, *at, *len, reply);
            }
            Operation::File(handle, OnFile::Seek { at, whence }) => {
                self.seek(id, *handle, (*at, *whence), reply);
            }
            Operation::File(handle, asked) => {
                self.finish(label, self.on_file(*handle, asked, caller), reply);
            }
            Operation::Folder(handle, asked) => self.on_folder(label, id, *handle, asked, reply),
        }
    }

    fn on_name(
        &self,
        folder: u64,
        name: &OsStr,
        asked: &OnName<'_>,
        caller: Caller,
    ) -> Result<Answer<'static>, Refusal> {
        let home = &self.home;
        let found = match *asked {
            OnName::Lookup => match home.lookup(folder, name) {
                // Nobody else makes names: the kernel knows itself when there is one.
                Err(error) if self.caching == Caching::Exclusive && error.is_not_found() => {
                    return Ok(Answer::Absent(self.caching.ttl()));
                }
                found => found?,
            },
            OnName::MakeNode { mode, device } => {
                home.make_node(folder, name, mode, device, caller)?
            }
            OnName::MakeFolder { mode } => home.make_folder(folder, name, mode, caller)?,
            OnName::MakeLink { target } => home.make_link(folder, name, target, caller)?,
            OnName::Link { target } => home.link(target, folder, name)?,
            OnName::Remove => return Ok(home.remove(folder, name).map(|()| Answer::Done)?),
            OnName::RemoveFolder => {
                return Ok(home.remove_folder(folder, name).map(|()| Answer::Done)?);
            }
            OnName::Rename { folder: to, name: new, flags } => {
                return Ok(home.rename((folder, name), (to, new), flags).map(|()| Answer::Done)?);
            }
            OnName::Create { mode, flags } => {
                return self.create_file(folder, name, mode, flags, caller);
            }
        };
        Ok(Answer::Entry(found, self.caching.ttl()))
    }

    fn on_node(&self, id: u64, asked: &OnNode, caller: Caller) -> Result<Answer<'static>, Refusal> {
        Ok(match asked {
            OnNode::Attributes => Answer::Attributes(self.home.attributes(id)?, self.caching.ttl()),
            OnNode::SetAttributes(new) => {
                Answer::Attributes(self.set_attributes(id, new, caller)?, self.caching.ttl())
            }
            OnNode::Open { flags } => Answer::Opened(self.open_file(id, *flags)?),
            OnNode::OpenFolder => {
                let handle = self.folders.insert(self.home.open_folder(id)?.into())?;
                Answer::Opened(Opened { handle, cache: self.kept(), flush: true })
            }
            OnNode::Space => Answer::Space(self.home.space(id)?),
            OnNode::Access => return Err(Refusal::Always(NO_ACCESS_CHECK)),
            OnNode::ReadLink => return Err(Refusal::Always(Errno::IO)),
        })
    }

    fn on_file(
        &self,
        handle: u64,
        asked: &OnFile<'_>,
        caller: Caller,
    ) -> Result<Answer<'static>, Refusal> {
        Ok(match asked {
            OnFile::Write(write) => Answer::Written(self.write_file(handle, write)?),
            OnFile::Flush if !self.home.tells_at_close() => {
                return Err(Refusal::Always(NOTHING_AT_CLOSE));
            }
            OnFile::Flush => self.files.get(handle)?.file.settle().map(|()| Answer::Done)?,
            OnFile::Release => {
                drop(self.files.remove(handle));
                Answer::Done
            }
            OnFile::Sync { data_only } => {
                self.files.get(handle)?.file.sync(*data_only).map(|()| Answer::Done)?
            }
            OnFile::Allocate { at, len, mode } => {
                self.allocate(handle, (*at, *len), *mode, caller).map(|()| Answer::Done)?
            }
            OnFile::Copy { at, handle: to, to: to_at, len } => {
                Answer::Written(self.copy_range((handle, *at), (*to, *to_at), *len, caller)?)
            }
            OnFile::Control => return Err(Refusal::Always(NO_IOCTL)),
            OnFile::Poll => return Err(Refusal::Always(ALWAYS_READY)),
            OnFile::Read { .. } | OnFile::Seek { .. } => return Err(Refusal::Always(Errno::IO)),
        })
    }

    fn on_xattr(&self, id: u64, asked: &OnXattr<'_>, caller: Caller, reply: impl Reply) {
        let home = &self.home;
        match *asked {
            OnXattr::Set { name, value, flags } => {
                let done = home.set_xattr(id, name, value, flags, caller);
                self.finish("setxattr", done.map(|()| Answer::Done).map_err(Refusal::from), reply);
            }
            OnXattr::Get { name, room: 0 } => {
                let len = home.xattr_len(id, name).map_err(Refusal::from);
                self.finish("getxattr", len.map(|len| Answer::Length(small(len))), reply);
            }
            OnXattr::Get { name, room } => {
                let mut reply = Some(reply);
                let got = home.xattr(id, name, |value| fitting(&mut reply, value, room));
                self.fail("getxattr", got, reply);
            }
            OnXattr::List { room } => {
                let mut reply = Some(reply);
                let got = home.list_xattrs(id, caller, |names| fitting(&mut reply, names, room));
                self.fail("listxattr", got, reply);
            }
            OnXattr::Remove { name } => {
                let done = home.remove_xattr(id, name);
                self.finish(
                    "removexattr",
                    done.map(|()| Answer::Done).map_err(Refusal::from),
                    reply,
                );
            }
        }
    }

    fn read_file(&self, handle: u64, at: u64, len: u32, reply: impl Reply) {
        let mut reply = Some(reply);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let done = self.files.get(handle).and_then(|open| {
            open.file.read(at, len, |plain| {
                // Straight from the thread's buffer to the kernel.
                if let Some(reply) = reply.take() {
                    reply.send(Ok(Answer::Data(plain)));
                }
            })
        });
        self.fail("read", done, reply);
    }

    fn seek(&self, id: u64, handle: u64, (at, whence): (i64, i32), reply: impl Reply) {
        let asked = u64::try_from(at).map_err(|_| HomeError::PastEnd);
        let asked = asked.and_then(|at| {
            let open = self.files.get(handle)?.shared();
            Ok(Search { id, open, at, whence })
        });
        match (asked, &self.searches) {
            // Nobody has it open for writing: the kernel wrote everything when the last of them closed it.
            (Ok(asked), Some(searches)) if asked.open.is_being_written() => {
                searches.hand_over(asked, reply);
            }
            (asked, _) => {
                let found = asked.and_then(|asked| search(&asked.open, asked.at, asked.whence));
                self.finish("lseek", found.map(Answer::Offset).map_err(Refusal::from), reply);
            }
        }
    }

    fn on_folder(
        &self,
        label: &'static str,
        id: u64,
        handle: u64,
        asked: &OnFolder,
        mut reply: impl Reply,
    ) {
        let done = match *asked {
            OnFolder::List { from, attributes: false } => {
                self.list(id, handle, from, &mut reply).map(|()| Answer::Listed)
            }
            OnFolder::List { from, attributes: true } => {
                self.list_with_attributes(id, handle, from, &mut reply).map(|()| Answer::Listed)
            }
            OnFolder::Release => {
                drop(self.folders.remove(handle));
                Ok(Answer::Done)
            }
            OnFolder::Sync => {
                self.folders.get(handle).and_then(|folder| folder.sync()).map(|()| Answer::Done)
            }
        };
        self.finish(label, done.map_err(Refusal::from), reply);
    }

    /// Answers, and logs what is no everyday fault.
    fn finish(
        &self,
        operation: &'static str,
        done: Result<Answer<'_>, Refusal>,
        reply: impl Reply,
    ) {
        reply.send(done.map_err(|refusal| refusal.errno(operation, &self.faults)));
    }

    /// Answers an error where nothing was answered yet.
    fn fail<T>(
        &self,
        operation: &'static str,
        done: Result<T, HomeError>,
        reply: Option<impl Reply>,
    ) {
        if let (Err(error), Some(reply)) = (done, reply) {
            reply.send(Err(self.faults.refuse(operation, &error)));
        }
    }
}

/// Answers with what is there if the caller has room for it; without room, with its length.
fn fitting(reply: &mut Option<impl Reply>, bytes: &[u8], room: u32) {
    let len = small(bytes.len());
    let answer = match room {
        0 => Ok(Answer::Length(len)),
        room if room < len => Err(Errno::RANGE),
        _ => Ok(Answer::Data(bytes)),
    };
    if let Some(reply) = reply.take() {
        reply.send(answer);
    }
}

fn small(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "operations_tests.rs"]
mod tests;
