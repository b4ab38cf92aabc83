//! Closing a file on a storage that is slow to tell its late faults.

use super::tests::keys;
use super::*;
use crate::backing::{Backing, FileBacking};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A storage that says when it is asked for its faults, and has one as soon as it is let go.
struct Slow {
    inner: FileBacking,
    asked: Sender<()>,
    go: Mutex<Receiver<()>>,
}

impl Backing for Slow {
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

impl Store for Slow {
    fn sync_all(&self) -> io::Result<()> {
        self.flush()
    }
    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn settle(&self) -> io::Result<()> {
        self.asked.send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        Err(io::Error::from_raw_os_error(libc::EDQUOT))
    }
    fn lock(&self) -> io::Result<()> {
        Ok(())
    }
    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn who_closes_while_another_asks_gets_the_same_answer() {
    let ((asked, is_asked), (go, may_go)) = (channel(), channel());
    let inner = FileBacking::from(tempfile::tempfile().unwrap());
    let slow = Slow { inner, asked, go: Mutex::new(may_go) };
    let file = HomeFile::open(slow, 0, keys(), "f".into()).unwrap();
    file.write(0, b"x").unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| file.settle());
        is_asked.recv().unwrap();
        let second = scope.spawn(|| file.settle());
        std::thread::sleep(Duration::from_millis(50));
        go.send(()).unwrap();
        for closed in [first, second] {
            let error = closed.join().unwrap().unwrap_err();
            assert!(matches!(error, HomeError::Io { .. }), "{error}");
        }
    });
    assert!(is_asked.try_recv().is_err(), "asked once");
}
