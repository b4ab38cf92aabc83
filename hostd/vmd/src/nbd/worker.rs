//! One thread of a connection in the transmission phase.
//!
//! Owns the loop from socket to socket. It must not know what requests do. Flow: requests are taken from the inbox as
//! long as it holds whole ones, answers gather in the outbox, and both meet the socket once per batch; before
//! a request that takes time the desk goes to another thread ([`Crew`]). A promise of durable data
//! (FLUSH, FUA) is settled by one flush of the volume just before the batch leaves.

use super::acceptor::STACK;
use super::buffer::Buffer;
use super::commands::Next;
use super::connection::{ConnectionError, size, unsent};
use super::crew::{Crew, Lend, Turn};
use super::export::{Export, InHand};
use super::inbox::Inbox;
use super::outbox::{CAPACITY, Outbox};
use super::polling::{Polling, Watch};
use super::proto::transmission::{EXTENDED_REQUEST_LEN, REQUEST_LEN, Request};
use super::proto::{Framing, Terms};
use super::transport::{Patience, Received, Transport};
use cryptfs::volume::release_scratch;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder, Scope};
use std::time::Instant;

/// Replies are sent when this many bytes wait, even if more requests are at hand: the client works on them
/// while we work on the rest.
const SEND_AT: usize = 256 * 1024;

/// A client is taken to have several requests in flight for this many batches after it was seen to.
const DEEP_FOR: u32 = 64;

/// What the threads of a connection share.
pub(super) struct Shared<'a> {
    pub(super) transport: Transport<'a>,
    pub(super) export: &'a Export,
    pub(super) terms: Terms,
    pub(super) crew: Crew<Box<Desk>>,
    /// Held while replies are sent, so that those of two threads do not mix.
    pub(super) sending: Mutex<()>,
}

/// What belongs to receiving, for one thread at a time.
pub(super) struct Desk {
    pub(super) inbox: Inbox,
    polling: Polling,
    /// Requests since the last receive.
    taken: u32,
    /// Batches for which the client is still taken to have several requests in flight.
    deep: u32,
}

/// A thread of a connection.
pub(super) struct Worker<'scope, 'env> {
    pub(super) shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
    pub(super) outbox: Outbox,
    /// Payload of a WRITE whose desk was given away.
    pub(super) spare: Buffer,
    /// The long READ in the outbox, counted until it is sent. Only while the desk is with others: what a thread at the
    /// desk has in its outbox is the only such answer of the connection.
    pub(super) answer: Option<InHand<'env>>,
    /// The large buffers that this thread keeps, counted while it is not at the desk.
    kept: Option<InHand<'env>>,
}

/// What of a thread's buffers is in use when it gives the desk away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InUse {
    /// Nothing.
    Nothing,
    /// So many bytes of the outbox, for an answer that is counted.
    Answer(u64),
    /// The spare buffer, for a payload that is counted.
    Payload,
}

impl Desk {
    pub(super) fn new(inbox: Inbox) -> Self {
        Self { inbox, polling: Polling::new(), taken: 0, deep: 0 }
    }

    /// Whether the client has, or lately had, more than one request in flight.
    pub(super) fn is_deep(&self) -> bool {
        self.deep > 0 || !self.inbox.unread().is_empty()
    }

    /// The same, for whoever has not yet taken a payload of `length` bytes.
    pub(super) fn is_deep_behind(&self, length: usize) -> bool {
        self.deep > 0 || self.inbox.unread().len() > length
    }

    /// It was seen to.
    pub(super) fn go_deep(&mut self) {
        self.deep = DEEP_FOR;
    }

    /// The batch is done with.
    fn account(&mut self, alone: bool) {
        if self.taken == 0 {
            return;
        }
        self.polling.took(self.taken, Instant::now());
        self.deep = if self.taken > 1 || !alone { DEEP_FOR } else { self.deep.saturating_sub(1) };
        self.taken = 0;
    }
}

impl<'scope, 'env> Worker<'scope, 'env> {
    pub(super) fn new(shared: &'scope Shared<'env>, scope: &'scope Scope<'scope, 'env>) -> Self {
        let outbox = Outbox::new(shared.terms.framing);
        Self { shared, scope, outbox, spare: Buffer::new(), answer: None, kept: None }
    }

    /// Works until the connection is over; for the first thread.
    pub(super) fn run_to_the_end(mut self) {
        let mut patient = false;
        loop {
            match self.shared.crew.take(patient) {
                Turn::Desk(desk) => self.work(desk),
                Turn::Nothing => self.release(),
                Turn::Over => return,
            }
            patient = self.outbox.is_released();
        }
    }

    /// Works as long as there is something to do; for the other threads.
    fn run(mut self) {
        while let Turn::Desk(desk) = self.shared.crew.take(false) {
            self.work(desk);
        }
        self.shared.crew.leave();
    }

    /// Sits at the desk until it is given away or the connection is over.
    fn work(&mut self, desk: Box<Desk>) {
        match self.lead(desk) {
            Ok(true) => self.keep(InUse::Nothing),
            Ok(false) => self.shared.crew.end(Ok(())),
            Err(error) => {
                if matches!(error, ConnectionError::Gone | ConnectionError::Socket(_)) {
                    // Whoever waits for the client would wait for ever.
                    self.shared.transport.cut();
                }
                self.shared.crew.end(Err(error));
            }
        }
    }

    /// True when the desk was given away, false when the client has taken leave.
    fn lead(&mut self, mut desk: Box<Desk>) -> Result<bool, ConnectionError> {
        let header = match self.shared.terms.framing {
            Framing::Extended => EXTENDED_REQUEST_LEN,
            Framing::Simple | Framing::Structured => REQUEST_LEN,
        };
        loop {
            while desk.inbox.unread().len() < header {
                desk.inbox.make_room_for_header(header).map_err(ConnectionError::Memory)?;
                if !self.fill(&mut desk, header)? {
                    let whole = desk.inbox.unread().is_empty();
                    return if whole { Ok(false) } else { Err(ConnectionError::Cut) };
                }
            }
            desk.taken += 1;
            let request = Request::parse(desk.inbox.take(header), self.shared.terms.framing);
            let request = match request {
                Ok(request) => request,
                // What was asked for before a violation is still answered.
                Err(violation) => return self.send().and(Err(violation.into())),
            };
            match self.perform(desk, &request)? {
                Next::Request(Some(kept)) => desk = kept,
                Next::Request(None) => {
                    let sent = self.send();
                    self.answer = None;
                    return sent.map(|()| true);
                }
                Next::Leave => return self.send().map(|()| false),
            }
            if self.outbox.len() >= SEND_AT {
                let waiting = u64::try_from(self.outbox.len()).unwrap_or(u64::MAX);
                // Sending is a good part of the work: another thread goes on meanwhile, unless too much waits to be
                // taken by the client already.
                if desk.inbox.unread().len() >= header
                    && let Some(_held) = self.shared.export.payloads().take(waiting)
                {
                    return self.lend(desk, Lend::Work, InUse::Answer(waiting)).map(|()| true);
                }
                self.send()?;
            }
        }
    }

    /// Gives the desk to another thread, and sends what waits, since what follows takes time.
    pub(super) fn lend(
        &mut self,
        desk: Box<Desk>,
        why: Lend,
        in_use: InUse,
    ) -> Result<(), ConnectionError> {
        if self.shared.crew.lend(desk, why) {
            self.hire();
        }
        self.send()?;
        self.keep(in_use);
        Ok(())
    }

    /// Has the large buffers counted that this thread keeps although it is not at the desk, beside what is `in_use` and
    /// counted already; gives them back when there are too many.
    fn keep(&mut self, in_use: InUse) {
        let outbox = match in_use {
            InUse::Answer(bytes) => self.outbox.large().saturating_sub(size(bytes)),
            InUse::Nothing | InUse::Payload => self.outbox.large(),
        };
        let spare = if in_use == InUse::Payload { 0 } else { large(&self.spare) };
        let bytes = u64::try_from(outbox + spare).unwrap_or(u64::MAX);
        if self.kept.as_ref().map_or(0, InHand::bytes) == bytes {
            return;
        }
        self.kept = None;
        if bytes == 0 {
            return;
        }
        self.kept = self.shared.export.payloads().take(bytes);
        if self.kept.is_none() {
            if outbox > 0 {
                self.outbox.release();
            }
            if spare > 0 {
                self.spare.release();
            }
        }
    }

    /// Makes the thread that the crew asks for. Without it the desk waits for one of those that there are.
    pub(super) fn hire(&self) {
        let (shared, scope) = (self.shared, self.scope);
        let thread = Builder::new().name(format!("nbd:{}+", shared.export.name()));
        let spawned =
            thread.stack_size(STACK).spawn_scoped(scope, move || Worker::new(shared, scope).run());
        if let Err(e) = spawned {
            shared.crew.leave();
            shared.export.faults.note(&format!("cannot make a thread for a client: {e}"));
        }
    }

    /// Receives until `length` bytes of payload are at hand; the inner error is a lack of memory for them.
    pub(super) fn collect(
        &mut self,
        desk: &mut Desk,
        length: usize,
    ) -> Result<io::Result<()>, ConnectionError> {
        while desk.inbox.unread().len() < length {
            if let Err(e) = desk.inbox.make_room_for_payload(length) {
                return Ok(Err(e));
            }
            if !self.fill(desk, length)? {
                return Err(ConnectionError::Cut);
            }
        }
        Ok(Ok(()))
    }

    /// Throws a payload away.
    pub(super) fn discard(&mut self, desk: &mut Desk, payload: u64) -> Result<(), ConnectionError> {
        let mut left = size(payload);
        loop {
            let now = left.min(desk.inbox.unread().len());
            desk.inbox.consume(now);
            left -= now;
            if left == 0 {
                return Ok(());
            }
            desk.inbox.make_room_for_header(1).map_err(ConnectionError::Memory)?;
            if !self.fill(desk, 1)? {
                return Err(ConnectionError::Cut);
            }
        }
    }

    /// Room in the outbox for a reply with `payload` bytes; the inner error is a lack of memory.
    pub(super) fn reserve(&mut self, payload: usize) -> Result<io::Result<()>, ConnectionError> {
        if !self.outbox.fits(payload) {
            self.send()?;
        }
        Ok(self.outbox.reserve(payload))
    }

    /// Sends what waits, after the flush that it may have promised.
    fn send(&mut self) -> Result<(), ConnectionError> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let Shared { export, transport, sending, .. } = self.shared;
        if self.outbox.has_promises() {
            let flushed = export.volume().flush();
            self.outbox.settle(flushed.err().map(|e| export.faults.volume("flush", 0, &e)));
        }
        let _turn = sending.lock().unwrap_or_else(PoisonError::into_inner);
        self.outbox.send(transport).map_err(unsent)
    }

    /// Sends what waits, then receives at least once; false when the client has closed.
    fn fill(&mut self, desk: &mut Desk, need: usize) -> Result<bool, ConnectionError> {
        self.send()?;
        let alone = self.shared.crew.is_alone();
        desk.account(alone);
        loop {
            match self.receive(desk, need, alone).map_err(ConnectionError::Socket)? {
                Received::Bytes(_) => return Ok(true),
                Received::Closed => return Ok(false),
                Received::Nothing => {
                    self.release();
                    self.idle(desk, need)?;
                }
            }
        }
    }

    /// Receives once, after looking for a while if that pays and nobody else is at work.
    fn receive(&self, desk: &mut Desk, need: usize, alone: bool) -> io::Result<Received> {
        let transport = &self.shared.transport;
        let begun = Instant::now();
        if alone && let Some(watch) = desk.polling.watch(begun) {
            let received = self.look(&mut desk.inbox, need, watch)?;
            if received != Received::Nothing {
                desk.polling.found();
                return Ok(received);
            }
        }
        let received = desk.inbox.receive(transport, need, Patience::Wait)?;
        desk.polling.slept(begun.elapsed());
        Ok(received)
    }

    /// Looks for a request as long as `watch` says and the host's budget allows.
    fn look(&self, inbox: &mut Inbox, need: usize, watch: Watch) -> io::Result<Received> {
        let Some(_place) = self.shared.export.budget().claim() else {
            return Ok(Received::Nothing);
        };
        while Instant::now() < watch.first {
            std::hint::spin_loop();
        }
        loop {
            let received = inbox.receive(&self.shared.transport, need, Patience::Look)?;
            if received != Received::Nothing || Instant::now() >= watch.until {
                return Ok(received);
            }
            // The client may need this processor to say something.
            thread::yield_now();
        }
    }

    /// Nothing came for a while: gives memory back and sleeps until something does.
    fn idle(&self, desk: &mut Desk, need: usize) -> Result<(), ConnectionError> {
        desk.inbox.release();
        self.shared.transport.wait().map_err(ConnectionError::Socket)?;
        desk.inbox.make_room_for_header(need).map_err(ConnectionError::Memory)
    }

    fn release(&mut self) {
        self.outbox.release();
        self.spare.release();
        self.kept = None;
        release_scratch();
    }
}

/// Bytes of a buffer beyond what every thread has.
fn large(buffer: &Buffer) -> usize {
    buffer.len().saturating_sub(CAPACITY)
}

impl Drop for Worker<'_, '_> {
    /// After a panic nobody waits for the desk that went with it.
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.transport.cut();
            self.shared.crew.end(Ok(()));
        }
    }
}
