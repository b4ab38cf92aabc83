//! Storage of a home file: reserving it, giving it back, and finding where data is.
//!
//! Owns the mapping of `fallocate` and `lseek` onto the stored file; must not know FUSE flags. A hole in the
//! stored file is a hole in the plain file, at the same offset after the header.

use super::error::HomeError;
use super::file::{HomeFile, end_of};
use super::layout::{HEADER, SECTOR, Span, UNIT, in_memory};
use super::ranges::Access;
use super::scratch::with_cipher_buffer;
use super::store::Store;
use crypto::Xts;
use std::io;
use std::ops::Range;

/// How a range is made zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zeroing {
    /// Its storage is given back.
    Punch,
    /// Its storage is kept.
    Keep,
}

impl<S: Store> HomeFile<S> {
    /// Reserves storage for `at..at + len` and, unless `keep_size`, grows the file to its end.
    pub(crate) fn allocate(&self, at: u64, len: u64, keep_size: bool) -> Result<(), HomeError> {
        let end = end_of(at, len)?;
        self.look_again()?;
        let mut tail = self.exclusive();
        self.ensure_header(&mut tail)?;
        let (from, to) = (at - at % UNIT, end.next_multiple_of(UNIT));
        match self.store.allocate(HEADER + from, to - from) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return Err(HomeError::NotSupported("reserving space on this storage"));
            }
            done => done.map_err(HomeError::io("reserving space"))?,
        }
        if !keep_size && end > tail.size {
            self.grow(&mut tail, end)?;
        }
        Ok(())
    }

    /// Makes `at..at + len` read as zero and, unless `keep_size`, grows the file to its end.
    pub(crate) fn zero(
        &self,
        at: u64,
        len: u64,
        how: Zeroing,
        keep_size: bool,
    ) -> Result<(), HomeError> {
        let end = end_of(at, len)?;
        self.zero_inside(at, end, how)?;
        if how == Zeroing::Keep {
            self.allocate(at, len, keep_size)?;
        }
        Ok(())
    }

    fn zero_inside(&self, at: u64, end: u64, how: Zeroing) -> Result<(), HomeError> {
        let tail = self.shared();
        let Some(cipher) = self.cipher.get() else { return Ok(()) };
        if at >= tail.size {
            return Ok(());
        }
        // A clean pad may go with the last bytes, which gives the whole unit back. What a crash left in a pad
        // must stay until it is zeroed durably.
        let end = match end >= tail.size {
            true if tail.is_clean() => tail.size.next_multiple_of(UNIT),
            true => tail.size,
            false => end,
        };
        let span = Span::new(at, end);
        let _held = self.ranges.acquire(span.from..span.to, Access::Write);
        // The body first: where the storage cannot do it, nothing was changed.
        let body = span.body();
        if body.start < body.end {
            self.zero_body(body, how)?;
        }
        if span.ragged_head() {
            self.zero_in_sector(cipher, span.from, at, end)?;
        }
        if span.ragged_tail() && span.to - span.from > SECTOR {
            self.zero_in_sector(cipher, span.to - SECTOR, at, end)?;
        }
        Ok(())
    }

    /// Zeroes whole sectors.
    fn zero_body(&self, body: Range<u64>, how: Zeroing) -> Result<(), HomeError> {
        let (start, len) = (HEADER + body.start, body.end - body.start);
        let zeroed = match how {
            Zeroing::Punch => self.store.punch(start, len),
            Zeroing::Keep => self.store.zero_range(start, len),
        };
        self.changed();
        match zeroed {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                Err(HomeError::NotSupported("holes on this storage"))
            }
            done => done.map_err(HomeError::io("zeroing a range")),
        }
    }

    /// Zeroes the part of one sector that lies inside `at..end`.
    fn zero_in_sector(
        &self,
        cipher: &Xts,
        sector: u64,
        at: u64,
        end: u64,
    ) -> Result<(), HomeError> {
        with_cipher_buffer(in_memory(SECTOR), |bytes| {
            self.load(cipher, sector, bytes)?;
            let from = in_memory(at.max(sector) - sector);
            let to = in_memory(end.min(sector + SECTOR) - sector);
            bytes[from..to].fill(0);
            cipher.encrypt(sector / SECTOR, bytes)?;
            let written = self.store.write_at(HEADER + sector, bytes);
            self.changed();
            written.map_err(HomeError::io("write to a file"))
        })
    }

    /// First offset at or after `at` that may hold data.
    ///
    /// # Errors
    /// [`HomeError::PastEnd`] when there is none.
    pub(crate) fn next_data(&self, at: u64) -> Result<u64, HomeError> {
        let tail = self.shared();
        if at >= tail.size {
            return Err(HomeError::PastEnd);
        }
        let found = self.store.next_data(HEADER + at).map_err(HomeError::io("search for data"))?;
        // What is found in the carrier is beyond the size.
        match found.map(|stored| stored.saturating_sub(HEADER).max(at)) {
            Some(data) if data < tail.size => Ok(data),
            _ => Err(HomeError::PastEnd),
        }
    }

    /// First offset at or after `at` where a hole begins; the end of the file is one.
    ///
    /// # Errors
    /// [`HomeError::PastEnd`] at or after the end.
    pub(crate) fn next_hole(&self, at: u64) -> Result<u64, HomeError> {
        let tail = self.shared();
        if at >= tail.size {
            return Err(HomeError::PastEnd);
        }
        let found =
            self.store.next_hole(HEADER + at).map_err(HomeError::io("search for a hole"))?;
        Ok(found.saturating_sub(HEADER).max(at).min(tail.size))
    }
}
