//! Messages of the link: any bytes with any number of descriptors are a message or an error of the peer, what is
//! understood is written as it was understood, and no descriptor is kept of what is not.

#![no_main]

use hostd_api::link::{Link, MAX_FDS, Request, Response};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use serde::{Serialize, de::DeserializeOwned};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    response: bool,
    fds: u8,
    message: &'a [u8],
}

/// Some file to pass.
static FILE: LazyLock<OwnedFd> =
    LazyLock::new(|| memfd_create("fuzzed", MemfdFlags::CLOEXEC).expect("a file"));

fn post(socket: &OwnedFd, message: &[u8], fds: usize) {
    let fds: Vec<BorrowedFd<'_>> = vec![FILE.as_fd(); fds];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    // A message too long for the socket reaches nobody.
    let _ = sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::DONTWAIT);
}

/// Receives, and has what was understood understood again.
fn receive<T: Serialize + DeserializeOwned>(link: &Link, fds: usize) {
    let Ok(Some((message, got))) = link.recv::<T>() else { return };
    assert_eq!(got.len(), fds);
    let value = serde_json::to_value(&message).expect("a message can be written");
    let again: T = serde_json::from_value(value.clone()).expect("and read again");
    assert_eq!(serde_json::to_value(&again).expect("as before"), value);
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fuzz_target!(|input: Input| {
    LazyLock::force(&FILE);
    let before = open_files();
    {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("a socket pair");
        let fds = usize::from(input.fds) % (MAX_FDS + 1);
        post(&ours, input.message, fds);
        drop(ours);
        let link = Link::from_fd(theirs).expect("a link");
        if input.response {
            receive::<Response>(&link, fds);
        } else {
            receive::<Request>(&link, fds);
        }
    }
    assert_eq!(open_files(), before, "descriptors are left");
});
