//! The usual answers: a result of the home becomes a reply of the kernel's protocol.
//!
//! Owns one function a kind of reply; must not know requests. Errors pass through `errno`.

use super::attr::file_attr;
use super::errno::refuse;
use crate::home::{Attributes, HomeError};
use fuser::{
    FileHandle, FopenFlags, Generation, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
};
use std::time::Duration;

pub(super) fn entry(
    ttl: Duration,
    operation: &'static str,
    found: Result<Attributes, HomeError>,
    reply: ReplyEntry,
) {
    match found {
        Ok(found) => reply.entry(&ttl, &file_attr(&found), Generation(found.generation)),
        Err(error) => reply.error(refuse(operation, &error)),
    }
}

pub(super) fn attributes(
    ttl: Duration,
    operation: &'static str,
    found: Result<Attributes, HomeError>,
    reply: ReplyAttr,
) {
    match found {
        Ok(found) => reply.attr(&ttl, &file_attr(&found)),
        Err(error) => reply.error(refuse(operation, &error)),
    }
}

pub(super) fn empty(operation: &'static str, done: Result<(), HomeError>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(refuse(operation, &error)),
    }
}

pub(super) fn opened(
    operation: &'static str,
    handle: Result<FileHandle, HomeError>,
    flags: FopenFlags,
    reply: ReplyOpen,
) {
    match handle {
        Ok(handle) => reply.opened(handle, flags),
        Err(error) => reply.error(refuse(operation, &error)),
    }
}

pub(super) fn written(operation: &'static str, count: Result<u32, HomeError>, reply: ReplyWrite) {
    match count {
        Ok(count) => reply.written(count),
        Err(error) => reply.error(refuse(operation, &error)),
    }
}
