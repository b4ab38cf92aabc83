//! Stopping an export while clients are at work.

use super::support::{LIMITS, SIZE, Served, export, plain_export, request};
use cryptfs::backing::{Backing, FaultyBacking};
use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(5);

#[test]
fn idle_clients_and_half_open_ones_do_not_hold_a_stop_up() {
    let served = Served::new(plain_export(), LIMITS);
    let mut idle = served.connect();
    idle.go();
    let mut silent = served.connect();
    let (tell, told) = std::sync::mpsc::channel();
    let server = served.server;
    std::thread::spawn(move || {
        let export = server.stop(Duration::from_secs(600)).ok().unwrap();
        assert!(tell.send(export).is_ok(), "nobody has waited for it");
    });
    let export = told.recv_timeout(Duration::from_secs(60)).expect("it waits for its grace");
    assert!(idle.is_at_end());
    // It may have been greeted before, or not even accepted, and is not left waiting.
    let mut rest = Vec::new();
    let end = silent.stream.read_to_end(&mut rest).map_or_else(|e| e.kind(), |_| ErrorKind::Other);
    assert!([ErrorKind::Other, ErrorKind::ConnectionReset].contains(&end), "{end:?}");
    assert!([0, 18].contains(&rest.len()), "{rest:?}");
    export.close().unwrap();
}

#[test]
fn requests_that_have_come_are_answered() {
    let served = Served::new(plain_export(), LIMITS);
    let mut client = served.connect();
    client.go();
    let mut bytes = Vec::new();
    for i in 0..32u64 {
        bytes.extend(request(1, 0, i, i * 4096, 4096).encode());
        bytes.extend([5; 4096]);
    }
    client.send(&bytes);
    let export = served.server.stop(GRACE).ok().unwrap();
    for i in 0..32 {
        assert_eq!(client.reply(), (i, 0));
    }
    assert!(client.is_at_end());
    let mut data = [0; 4096];
    export.volume().read(31 * 4096, &mut data).unwrap();
    assert_eq!(data, [5; 4096]);
    export.close().unwrap();
}

#[test]
fn a_client_that_does_not_take_its_answers_is_cut() {
    let served = Served::new(plain_export(), LIMITS);
    let mut client = served.connect();
    client.go();
    for i in 0..32 {
        client.send(&request(0, 0, i, 0, 4 << 20).encode());
    }
    assert!(served.server.stop(Duration::from_millis(200)).is_ok());
}

#[test]
fn the_socket_serves_again_after_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for _ in 0..3 {
        let copy = listener.try_clone().unwrap().into();
        let server = vmd::nbd::server::Server::start(plain_export(), copy, LIMITS).unwrap();
        let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let mut client = super::support::Client::new(stream);
        assert_eq!(client.go().0, SIZE);
        assert!(server.stop(GRACE).is_ok());
    }
}

#[test]
fn the_last_flush_happens_at_close() {
    let backing = Arc::new(FaultyBacking::new(SIZE));
    let served = Served::new(export(Box::new(Arc::clone(&backing)), SIZE, false), LIMITS);
    let mut client = served.connect();
    client.go();
    assert_eq!(client.write(0, &[1; 512]), 0);
    assert_ne!(backing.unsynced(), 0);
    served.server.stop(GRACE).ok().unwrap().close().unwrap();
    assert_eq!(backing.unsynced(), 0);
}

/// A storage whose writes wait until they are let go.
struct Stuck {
    inner: FaultyBacking,
    held: Mutex<bool>,
    released: Condvar,
}

impl Backing for Stuck {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let held = self.held.lock().unwrap();
        drop(self.released.wait_while(held, |held| *held).unwrap());
        self.inner.write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.punch(offset, len)
    }
    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.zero_range(offset, len)
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.inner.next_data(offset)
    }
    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.inner.next_hole(offset)
    }
}

#[test]
fn a_request_stuck_in_the_storage_is_reported_and_the_stop_may_be_repeated() {
    let backing = Arc::new(Stuck {
        inner: FaultyBacking::new(SIZE),
        held: Mutex::new(true),
        released: Condvar::new(),
    });
    let served = Served::new(export(Box::new(Arc::clone(&backing)), SIZE, false), LIMITS);
    let mut client = served.connect();
    client.go();
    client.send(&request(1, 0, 1, 0, 512).encode());
    client.send(&[1; 512]);
    let server = served.server.stop(Duration::from_millis(100)).err().expect("it is stuck");
    *backing.held.lock().unwrap() = false;
    backing.released.notify_all();
    assert!(server.stop(GRACE).is_ok());
    let mut data = [0; 512];
    backing.read_at(0, &mut data).unwrap();
    assert_ne!(data, [0; 512], "the write was finished");
}

/// A slow storage: the request in it finishes, those behind it are told that they will not be carried out.
#[test]
fn what_a_stuck_storage_holds_up_is_refused() {
    let backing = Arc::new(Stuck {
        inner: FaultyBacking::new(SIZE),
        held: Mutex::new(true),
        released: Condvar::new(),
    });
    let served = Served::new(export(Box::new(Arc::clone(&backing)), SIZE, false), LIMITS);
    let mut client = served.connect();
    client.go();
    for cookie in 0..4 {
        client.send(&request(1, 0, cookie, 0, 512).encode());
        client.send(&[1; 512]);
    }
    client.send(&request(0, 0, 4, 0, 512).encode());
    let stopping =
        std::thread::spawn(move || served.server.stop(Duration::from_millis(50)).is_ok());
    // After the grace and before the cut.
    std::thread::sleep(Duration::from_millis(200));
    *backing.held.lock().unwrap() = false;
    backing.released.notify_all();
    assert_eq!(client.reply(), (0, 0));
    for cookie in 1..5 {
        assert_eq!(client.reply(), (cookie, 108), "ESHUTDOWN");
    }
    assert!(client.is_at_end());
    assert!(stopping.join().unwrap());
}
