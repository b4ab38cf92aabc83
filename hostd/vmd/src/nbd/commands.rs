//! What a connection does for one request.
//!
//! Owns the way from a checked request to its reply in the outbox. It must not know the framing of replies, nor when they
//! are sent and the desk is given away (`sharing`). Flow: [`Worker::perform`] checks a request, throws the
//! payload of a refused one away, and calls the volume; an error becomes a code in `fault`.

use super::connection::{ConnectionError, size};
use super::crew::Lend;
use super::proto::chunk::Head;
use super::proto::status::{ALLOCATION_ID, FILTER_LEN, Filter, MAX_EXTENTS};
use super::proto::transmission::{Action, Request};
use super::proto::{Framing, WireError};
use super::sharing::Seat;
use super::worker::{Desk, InUse, Shared, Worker};
use cryptfs::volume::{Volume, VolumeError};
use std::sync::atomic::Ordering;

/// READs from this length on are looked through for holes, in steps of the same length. Asking the storage where
/// data begins takes 0.3 us (measured on ext4 and tmpfs), a hundredth of what 64 KiB of data take from pread
/// through the cipher into the socket, and a hole saves all of that. Below, holes are hardly ever met. Where data
/// ends is not asked: in 64 MiB of data tmpfs takes 0.3 ms to find out, since it walks page by page.
const HOLES_FROM: u64 = 64 * 1024;

/// Most chunks of one READ; what comes after is one chunk of data. Bounds the room for their headers.
const MAX_CHUNKS: usize = 16;

/// Room for the header, offset and size of one chunk.
const CHUNK_ROOM: usize = 32 + 8 + 4;

/// A buffer for a payload above this size is given back after use: several threads of a connection may have one.
const KEPT: usize = 4 * 1024 * 1024;

/// Whether to go on.
pub(super) enum Next {
    Request(Seat),
    Leave,
}

impl Worker<'_, '_> {
    /// Carries out one request and puts its reply into the outbox.
    pub(super) fn perform(
        &mut self,
        mut desk: Box<Desk>,
        request: &Request,
    ) -> Result<Next, ConnectionError> {
        let Shared { export, terms, .. } = self.shared;
        let action = match request.check(export.shape(), *terms) {
            Ok(Action::Disconnect) => return Ok(Next::Leave),
            Ok(_) if export.refuses() => Err(WireError::Shutdown),
            checked => checked,
        };
        let action = match action {
            Ok(action) => action,
            Err(error) => {
                self.discard(&mut desk, request.payload())?;
                self.fail(request, error)?;
                return Ok(Next::Request(Some(desk)));
            }
        };
        let mut seat = Some(desk);
        match action {
            Action::Disconnect => return Ok(Next::Leave),
            Action::Read { whole } => self.read(&mut seat, request, whole)?,
            Action::Write { durable } => self.write(&mut seat, request, durable)?,
            Action::Flush => self.promise(&mut seat, request)?,
            Action::Trim { durable } => {
                self.change(&mut seat, request, durable, |volume, offset, length| {
                    volume.discard(offset, length)
                })?;
            }
            Action::Cache => self.change(&mut seat, request, false, Volume::prefetch)?,
            Action::WriteZeroes { durable, may_punch, fast } => {
                self.write_zeroes(&mut seat, request, durable, may_punch, fast)?;
            }
            Action::BlockStatus { one } => {
                self.status(&mut seat, request, request.length, one)?;
            }
            Action::FilteredStatus { one } => self.filtered_status(&mut seat, request, one)?,
        }
        Ok(Next::Request(seat))
    }

    /// One pread into the place it is sent from, decrypted there.
    fn read(
        &mut self,
        seat: &mut Seat,
        request: &Request,
        whole: bool,
    ) -> Result<(), ConnectionError> {
        let shared = seat
            .as_mut()
            .and_then(|desk| self.worth_sharing(desk, request.length, 0, request.length));
        if shared.is_some()
            && let Some(desk) = seat.take()
        {
            self.lend(desk, Lend::Work, InUse::Answer(request.length))?;
            self.answer = shared;
        }
        let in_chunks =
            !whole && request.length >= HOLES_FROM && self.shared.terms.framing != Framing::Simple;
        let around = if in_chunks { MAX_CHUNKS * CHUNK_ROOM } else { 0 };
        if let Err(e) = self.reserve(size(request.length) + around)? {
            let error = self.shared.export.faults.memory(&e);
            return self.fail(request, error);
        }
        if request.length == 0 {
            // A chunk of data must not be empty.
            self.outbox.success(head(request));
        } else if in_chunks {
            self.read_in_chunks(seat, request)?;
        } else {
            self.read_data(seat, request, request.offset, request.length, true)?;
        }
        Ok(())
    }

    /// A long READ: what is not stored is named instead of sent. Each chunk is complete before its header is
    /// written, so an error is told in place of the chunk that it struck, and ends the reply.
    fn read_in_chunks(
        &mut self,
        seat: &mut Seat,
        request: &Request,
    ) -> Result<(), ConnectionError> {
        let volume = self.shared.export.volume();
        let end = request.offset + request.length;
        // What is answered ends at `told`; from there to `at` there is data.
        let (mut told, mut at) = (request.offset, request.offset);
        let mut chunks = 0;
        // A round adds two chunks at most, and the last one is for what remains.
        while at < end && chunks + 3 <= MAX_CHUNKS {
            // A storage that cannot tell has data everywhere.
            let zeros = volume.zeros_at(at, end - at).unwrap_or(0);
            if zeros == 0 {
                at = end.min(at + HOLES_FROM);
                continue;
            }
            if told < at {
                if !self.read_data(seat, request, told, at - told, false)? {
                    return Ok(());
                }
                chunks += 1;
            }
            told = at + zeros;
            self.outbox.hole(head(request), at, narrow(zeros), told == end);
            chunks += 1;
            at = told;
        }
        if told < end {
            self.read_data(seat, request, told, end - told, true)?;
        }
        Ok(())
    }

    /// Reads `length` bytes at `at` into the outbox, as all or a chunk of the reply; false when that failed and
    /// the reply has ended with the error. Before it waits for the storage, the desk goes.
    fn read_data(
        &mut self,
        seat: &mut Seat,
        request: &Request,
        at: u64,
        length: u64,
        done: bool,
    ) -> Result<bool, ConnectionError> {
        let export = self.shared.export;
        let mut read = export.volume().read_ready(at, self.outbox.payload(size(length)));
        if let Ok(false) = read {
            self.before_reading(seat, request.length)?;
            // What waited may have been sent, and the buffer given back.
            if let Err(e) = self.reserve(size(length) + MAX_CHUNKS * CHUNK_ROOM)? {
                let error = export.faults.memory(&e);
                self.reserve(0)?.map_err(ConnectionError::Memory)?;
                self.outbox.fail(head(request), error, Some(at));
                return Ok(false);
            }
            let room = self.outbox.payload(size(length));
            read = export.volume().read(at, room).map(|()| true);
        }
        match read {
            Ok(_) => {
                self.outbox.data(head(request), at, narrow(length), done);
                export.counters.bytes_read.fetch_add(length, Ordering::Relaxed);
                Ok(true)
            }
            Err(e) => {
                let error = export.faults.volume("read", at, &e);
                self.outbox.fail(head(request), error, Some(at));
                Ok(false)
            }
        }
    }

    /// The payload is encrypted where it was received, and written from there. One that is long, or must wait for the
    /// device, takes its buffer along when the desk goes.
    fn write(
        &mut self,
        seat: &mut Seat,
        request: &Request,
        durable: bool,
    ) -> Result<(), ConnectionError> {
        let Some(desk) = seat else { return Ok(()) };
        let (length, export) = (size(request.length), self.shared.export);
        if let Err(e) = self.collect(desk, length)? {
            let error = export.faults.memory(&e);
            self.discard(desk, request.length)?;
            return self.fail(request, error);
        }
        let lent = self.worth_lending(desk, request.length);
        let handed =
            lent.as_ref().map(|(why, _)| (*why, desk.inbox.hand_over(length, &mut self.spare)));
        let done = match handed {
            Some((why, Ok(there))) => {
                if let Some(desk) = seat.take() {
                    self.lend(desk, why, InUse::Payload)?;
                }
                let payload = self.spare.bytes_mut().get_mut(there).unwrap_or_default();
                export.volume().write(request.offset, payload)
            }
            Some((_, Err(_))) | None => {
                export.volume().write(request.offset, desk.inbox.take(length))
            }
        };
        if self.spare.len() > KEPT {
            self.spare.release();
        }
        if done.is_ok() {
            export.counters.bytes_written.fetch_add(request.length, Ordering::Relaxed);
        }
        self.conclude(seat, request, durable, done)
    }

    fn write_zeroes(
        &mut self,
        seat: &mut Seat,
        request: &Request,
        durable: bool,
        may_punch: bool,
        fast: bool,
    ) -> Result<(), ConnectionError> {
        if !fast {
            return self.change(seat, request, durable, |volume, offset, length| {
                volume.write_zeroes(offset, length, may_punch)
            });
        }
        self.before_waiting(seat)?;
        let volume = self.shared.export.volume();
        match volume.write_zeroes_fast(request.offset, request.length, may_punch) {
            Ok(false) => self.fail(request, WireError::NotSupported),
            done => self.conclude(seat, request, durable, done.map(|_| ())),
        }
    }

    /// A command with neither a payload nor data in its reply.
    fn change(
        &mut self,
        seat: &mut Seat,
        request: &Request,
        durable: bool,
        command: impl FnOnce(&Volume, u64, u64) -> Result<(), VolumeError>,
    ) -> Result<(), ConnectionError> {
        self.before_waiting(seat)?;
        let done = command(self.shared.export.volume(), request.offset, request.length);
        self.conclude(seat, request, durable, done)
    }

    /// BLOCK_STATUS whose range and context are in the payload.
    fn filtered_status(
        &mut self,
        seat: &mut Seat,
        request: &Request,
        one: bool,
    ) -> Result<(), ConnectionError> {
        let Some(desk) = seat else { return Ok(()) };
        self.collect(desk, FILTER_LEN)?.map_err(ConnectionError::Memory)?;
        let filter = desk.inbox.take(FILTER_LEN).first_chunk().and_then(Filter::parse);
        match filter.filter(|filter| filter.context == ALLOCATION_ID && filter.length > 0) {
            Some(Filter { length, .. })
                if self.shared.export.shape().holds(request.offset, length) =>
            {
                self.status(seat, request, length, one)
            }
            _ => self.fail(request, WireError::Invalid),
        }
    }

    /// The extents of `length` bytes, which are at least one.
    fn status(
        &mut self,
        seat: &mut Seat,
        request: &Request,
        length: u64,
        one: bool,
    ) -> Result<(), ConnectionError> {
        self.before_waiting(seat)?;
        let export = self.shared.export;
        let max = if one { 1 } else { MAX_EXTENTS };
        let extents = match export.volume().extents(request.offset, length, max) {
            Ok(extents) => extents,
            Err(e) => {
                let error = export.faults.volume("status", request.offset, &e);
                return self.fail(request, error);
            }
        };
        let room = self.outbox.status_len(extents.len());
        self.reserve(room)?.map_err(ConnectionError::Memory)?;
        self.outbox.status(head(request), &extents);
        Ok(())
    }

    /// Answers a command without data in its reply.
    fn conclude(
        &mut self,
        seat: &mut Seat,
        request: &Request,
        durable: bool,
        done: Result<(), VolumeError>,
    ) -> Result<(), ConnectionError> {
        match done {
            Ok(()) if durable => self.promise(seat, request),
            Ok(()) => {
                self.reserve(0)?.map_err(ConnectionError::Memory)?;
                self.outbox.success(head(request));
                Ok(())
            }
            Err(e) => {
                let error = self.shared.export.faults.volume("change", request.offset, &e);
                self.fail(request, error)
            }
        }
    }

    fn fail(&mut self, request: &Request, error: WireError) -> Result<(), ConnectionError> {
        self.reserve(0)?.map_err(ConnectionError::Memory)?;
        self.outbox.fail(head(request), error, None);
        Ok(())
    }

    /// The reply is true only after a flush. Where that may take time, it does not hold others up.
    fn promise(&mut self, seat: &mut Seat, request: &Request) -> Result<(), ConnectionError> {
        self.before_waiting(seat)?;
        self.reserve(0)?.map_err(ConnectionError::Memory)?;
        self.outbox.promise(head(request));
        Ok(())
    }
}

fn head(request: &Request) -> Head {
    Head { cookie: request.cookie, offset: request.offset }
}

/// A length inside a READ, which the payload limit keeps far below 4 GiB.
fn narrow(length: u64) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
