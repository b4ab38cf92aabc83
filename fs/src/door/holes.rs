//! The thread that searches for holes in files of which the kernel may hold writes that it collected.
//!
//! Owns its queue and loop. The kernel (6.18) asks where a file has data without writing first what it has, so fresh
//! data would be taken for a hole, and a copier would skip it. It writes when it is told to drop the file's pages; but
//! that takes threads that serve the writes, so none of them may wait for it. Flow: the operations hand over the search
//! and its reply, this thread has the pages dropped, searches, and answers.

use super::errno::Faults;
use super::protocol::{Answer, Reply};
use super::requests::search;
use crate::home::{HomeError, OpenFile};
use ::fuser::{INodeNo, Notifier};
use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

/// Most searches that wait. Each is a program that waits for its answer, and programs that search are few.
const MOST: usize = 1024;

/// What `lseek(2)` asks of an open file.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) id: u64,
    pub(super) open: Arc<OpenFile>,
    pub(super) at: u64,
    pub(super) whence: i32,
}

/// A reply of any transport.
type Send = Box<dyn FnOnce(Result<Answer<'_>, Errno>) + std::marker::Send>;

struct Waiting {
    search: Search,
    answer: Send,
}

/// Where searches are handed over.
pub(super) struct Searches {
    sender: SyncSender<Waiting>,
    faults: Arc<Faults>,
}

/// The other end, until the thread starts.
pub(super) struct Queue {
    receiver: Receiver<Waiting>,
    faults: Arc<Faults>,
}

/// A queue and its two ends.
pub(super) fn queue(faults: &Arc<Faults>) -> (Searches, Queue) {
    let (sender, receiver) = sync_channel(MOST);
    let ours = Searches { sender, faults: Arc::clone(faults) };
    (ours, Queue { receiver, faults: Arc::clone(faults) })
}

impl Searches {
    /// Hands a search over. It never waits: the thread needs those who serve.
    pub(super) fn hand_over(&self, search: Search, reply: impl Reply) {
        let answer = Box::new(move |answer: Result<Answer<'_>, Errno>| reply.send(answer));
        if let Err(error) = self.sender.try_send(Waiting { search, answer }) {
            let limit = HomeError::Limit { what: "searches for holes", limit: MOST };
            let (std::sync::mpsc::TrySendError::Full(waiting)
            | std::sync::mpsc::TrySendError::Disconnected(waiting)) = error;
            (waiting.answer)(Err(self.faults.refuse("lseek", &limit)));
        }
    }
}

impl Queue {
    /// Starts the thread; it ends when the other end is gone.
    pub(super) fn start(self, notifier: Notifier) -> io::Result<JoinHandle<()>> {
        Builder::new().name("home-holes".into()).spawn(move || {
            for waiting in self.receiver {
                let found = after_writes(&waiting.search, &notifier);
                let found =
                    found.map(Answer::Offset).map_err(|error| self.faults.refuse("lseek", &error));
                (waiting.answer)(found);
            }
        })
    }
}

/// Searches after the kernel has written what it held of the file from there on.
fn after_writes(asked: &Search, notifier: &Notifier) -> Result<i64, HomeError> {
    let at = i64::try_from(asked.at).map_err(|_| HomeError::PastEnd)?;
    // A length of 0 is all the rest.
    notifier
        .inval_inode(INodeNo(asked.id), at, 0)
        .map_err(HomeError::io("write of what the kernel had collected"))?;
    search(&asked.open, asked.at, asked.whence)
}
