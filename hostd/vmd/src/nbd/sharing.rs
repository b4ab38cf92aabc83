//! When the desk of a connection goes to another thread.
//!
//! Owns that judgement, and what limits it: the long payloads that threads have in their hands. It must not know
//! requests. Flow: a command asks before it works long ([`Worker::worth_sharing`], [`Worker::worth_lending`]) or waits
//! for the storage ([`Worker::before_waiting`], [`Worker::before_reading`]).

use super::connection::{ConnectionError, size};
use super::crew::Lend;
use super::export::{Export, InHand};
use super::outbox::CAPACITY;
use super::worker::{Desk, InUse, Worker};

/// Requests from this length on are worked on away from the desk, if more are in flight and a processor is free for
/// them: from here on the work takes longer than to call another thread.
const SHARED_FROM: u64 = 128 * 1024;

/// The desk, while the thread has not given it away.
pub(super) type Seat = Option<Box<Desk>>;

impl<'env> Worker<'_, 'env> {
    /// Gives the desk away, if it is still here, before a call that may wait for the storage; keeps it when the
    /// client has nothing else in flight.
    pub(super) fn before_waiting(&mut self, seat: &mut Seat) -> Result<(), ConnectionError> {
        self.before_waiting_with(seat, InUse::Nothing)
    }

    fn before_waiting_with(
        &mut self,
        seat: &mut Seat,
        in_use: InUse,
    ) -> Result<(), ConnectionError> {
        if self.shared.export.volume().in_memory() {
            return Ok(());
        }
        match seat.take() {
            Some(desk) if desk.is_deep() => self.lend(desk, Lend::Wait, in_use)?,
            None if self.shared.crew.urge() => self.hire(),
            kept => *seat = kept,
        }
        Ok(())
    }

    /// The same before a READ of `length` bytes. A long answer goes with its thread until the client has taken it, so
    /// the desk stays when there are enough of those: then the client waits for this one.
    pub(super) fn before_reading(
        &mut self,
        seat: &mut Seat,
        length: u64,
    ) -> Result<(), ConnectionError> {
        if length < SHARED_FROM || seat.is_none() {
            return self.before_waiting(seat);
        }
        let export: &'env Export = self.shared.export;
        let Some(held) = export.payloads().take(length) else { return Ok(()) };
        self.before_waiting_with(seat, InUse::Answer(length))?;
        if seat.is_none() {
            self.answer = Some(held);
        }
        Ok(())
    }

    /// Whether a request of `length` bytes, of which `payload` have come and are not taken yet, is worth another thread
    /// for those behind it; `memory` counts for it as long as the answer lives.
    pub(super) fn worth_sharing(
        &self,
        desk: &mut Desk,
        length: u64,
        payload: usize,
        memory: u64,
    ) -> Option<InHand<'env>> {
        let export: &'env Export = self.shared.export;
        let deep = |desk: &Desk| desk.is_deep_behind(payload) || self.shared.transport.has_more();
        if length < SHARED_FROM || !deep(desk) {
            return None;
        }
        desk.go_deep();
        export.payloads().take(memory)
    }

    /// Whether the desk goes before a WRITE with `length` bytes of payload, which have come, and why; the payload
    /// counts as long as the answer lives, and with it the buffer that it lies in, which may go along.
    pub(super) fn worth_lending(
        &self,
        desk: &mut Desk,
        length: u64,
    ) -> Option<(Lend, InHand<'env>)> {
        let memory = length.max(large_in(desk));
        if !self.shared.export.volume().waits_on_write() {
            let shared = self.worth_sharing(desk, length, size(length), memory);
            return shared.map(|shared| (Lend::Work, shared));
        }
        // Not known of a client that is new or has only few in flight; to ask costs nothing beside the device.
        if !desk.is_deep_behind(size(length)) && !self.shared.transport.has_more() {
            return None;
        }
        desk.go_deep();
        let export: &'env Export = self.shared.export;
        export.payloads().take(memory).map(|held| (Lend::Wait, held))
    }
}

/// Bytes of the buffer of what comes in, beyond what every thread has.
fn large_in(desk: &Desk) -> u64 {
    u64::try_from(desk.inbox.size().saturating_sub(CAPACITY)).unwrap_or(u64::MAX)
}
