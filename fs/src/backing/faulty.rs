//! A [`Backing`] in memory that fails on demand and remembers what a power loss would leave.
//!
//! Owns two images: the live one, which reads see, and the durable one, which holds what was flushed;
//! between them lies the list of changes since the last flush, from which [`FaultyBacking::crash`]
//! builds any state that a crash may leave. For tests only, here and (feature `faults`) in other crates.

use super::{Alignment, Backing};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{io, ops::Range};

/// What a disk writes as one: a torn write ends at a multiple of it.
const SECTOR: u64 = 512;

/// Kinds of calls, to aim a [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Backing::read_at`].
    Read,
    /// [`Backing::write_at`].
    Write,
    /// [`Backing::flush`].
    Flush,
    /// [`Backing::punch`].
    Punch,
    /// [`Backing::zero_range`].
    Zero,
    /// [`Backing::next_data`] and [`Backing::next_hole`].
    Seek,
    /// [`Backing::len`] and [`Backing::set_len`].
    Length,
}

/// When a [`Fault`] strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At the call of this number, counted from 0 since the storage was made.
    Number(u64),
    /// At every call whose range holds this byte.
    Covers(u64),
    /// At every call.
    Always,
}

/// One planned failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When it strikes.
    pub when: When,
    /// Only at calls of this kind.
    pub on: Option<Call>,
    /// Error number of the system, 5 for EIO, 28 for ENOSPC.
    pub errno: i32,
    /// Bytes that a write, punch or zeroing gets done before it fails.
    pub short: u64,
}

impl Fault {
    /// An EIO at the call of this number.
    pub fn eio_at(number: u64) -> Self {
        Self { when: When::Number(number), on: None, errno: 5, short: 0 }
    }

    /// An ENOSPC at the call of this number, after `short` bytes.
    pub fn full_at(number: u64, short: u64) -> Self {
        Self { when: When::Number(number), on: None, errno: 28, short }
    }

    fn strikes(&self, number: u64, call: Call, range: &Range<u64>) -> bool {
        let due = match self.when {
            When::Number(n) => n == number,
            When::Covers(byte) => range.contains(&byte),
            When::Always => true,
        };
        due && self.on.is_none_or(|on| on == call)
    }
}

/// A storage in memory with planned failures and crashes.
#[derive(Debug)]
pub struct FaultyBacking(Mutex<State>);

#[derive(Debug)]
struct State {
    live: Vec<u8>,
    /// One entry a sector of `live`: whether storage is behind it.
    allocated: Vec<bool>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    faults: Vec<Fault>,
    calls: u64,
    punches: bool,
    alignment: Option<Alignment>,
}

/// A change since the last flush.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Zero { range: Range<u64> },
    Length(u64),
}

impl FaultyBacking {
    /// `len` zero bytes, all of them a hole.
    pub fn new(len: u64) -> Self {
        Self::over(vec![0; index(len)], false)
    }

    /// Over a durable image, for example one that [`FaultyBacking::crash`] left.
    pub fn with_image(image: Vec<u8>) -> Self {
        Self::over(image, true)
    }

    fn over(image: Vec<u8>, allocated: bool) -> Self {
        let sectors = image.len().div_ceil(index(SECTOR));
        Self(Mutex::new(State {
            live: image.clone(),
            allocated: vec![allocated; sectors],
            durable: image,
            pending: Vec::new(),
            faults: Vec::new(),
            calls: 0,
            punches: true,
            alignment: None,
        }))
    }

    /// Plans a failure.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Drops all plans.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Acts as a file system that cannot punch holes.
    pub fn refuse_punch(&self) {
        self.state().punches = false;
    }

    /// Asks for aligned requests, as storage past the page cache does.
    pub fn ask_for(&self, alignment: Alignment) {
        self.state().alignment = Some(alignment);
    }

    /// Number of calls so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Number of changes since the last flush.
    pub fn unsynced(&self) -> usize {
        self.state().pending.len()
    }

    /// What reads see now.
    pub fn live(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    /// Bytes that have storage behind them, in multiples of 512.
    pub fn allocated(&self) -> u64 {
        self.state().allocated.iter().map(|a| if *a { SECTOR } else { 0 }).sum()
    }

    /// What a power loss leaves now: the flushed image plus, of the changes since, those sectors for
    /// which `survives(change, sector)` says so; `change` counts from 0 and `sector` is the number of a
    /// 512-byte sector of the storage (0 for a change of the length).
    pub fn crash(&self, mut survives: impl FnMut(usize, u64) -> bool) -> Vec<u8> {
        let state = self.state();
        let mut image = state.durable.clone();
        for (number, change) in state.pending.iter().enumerate() {
            change.apply(&mut image, |sector| survives(number, sector));
        }
        image
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a call; gives the failure that strikes it.
    fn call(&mut self, call: Call, range: &Range<u64>) -> Option<Fault> {
        let number = self.calls;
        self.calls += 1;
        self.faults.iter().find(|fault| fault.strikes(number, call, range)).copied()
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live, |_| true);
        match &change {
            Change::Write { offset, data } => {
                self.mark(&(*offset..*offset + data.len() as u64), true);
            }
            Change::Zero { .. } => {}
            Change::Length(len) => self.allocated.resize(index(len.div_ceil(SECTOR)), false),
        }
        self.pending.push(change);
    }

    fn mark(&mut self, range: &Range<u64>, allocated: bool) {
        if range.is_empty() {
            return;
        }
        // Only whole sectors become holes, but a part of a sector needs storage for all of it.
        let (first, end) = if allocated {
            (range.start / SECTOR, range.end.div_ceil(SECTOR))
        } else {
            (range.start.div_ceil(SECTOR), range.end / SECTOR)
        };
        for sector in first..end {
            self.allocated[index(sector)] = allocated;
        }
    }

    fn zero(&mut self, call: Call, offset: u64, len: u64) -> io::Result<()> {
        let range = self.inside(offset, len)?;
        let fault = self.call(call, &range);
        let done = fault.map_or(len, |fault| fault.short.min(len));
        let range = offset..offset + done;
        self.change(Change::Zero { range: range.clone() });
        self.mark(&range, call == Call::Zero);
        failed(fault)
    }

    fn inside(&self, offset: u64, len: u64) -> io::Result<Range<u64>> {
        match offset.checked_add(len) {
            Some(end) if end <= self.live.len() as u64 => Ok(offset..end),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn find(&self, offset: u64, allocated: bool) -> Option<u64> {
        let first = index(offset / SECTOR);
        let found = self.allocated.iter().skip(first).position(|a| *a == allocated)?;
        Some(offset.max((first + found) as u64 * SECTOR))
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>, mut survives: impl FnMut(u64) -> bool) {
        match self {
            Self::Length(len) => {
                if survives(0) {
                    image.resize(index(*len), 0);
                }
            }
            Self::Write { offset, data } => {
                for part in sectors(*offset..*offset + data.len() as u64) {
                    let bytes = &data[index(part.start - offset)..index(part.end - offset)];
                    if survives(part.start / SECTOR) && part.end <= image.len() as u64 {
                        image[index(part.start)..index(part.end)].copy_from_slice(bytes);
                    }
                }
            }
            Self::Zero { range } => {
                for part in sectors(range.clone()) {
                    if survives(part.start / SECTOR) && part.end <= image.len() as u64 {
                        image[index(part.start)..index(part.end)].fill(0);
                    }
                }
            }
        }
    }
}

impl Backing for FaultyBacking {
    fn alignment(&self) -> Option<Alignment> {
        self.state().alignment
    }

    fn is_memory(&self) -> bool {
        true
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.state();
        failed(state.call(Call::Length, &(0..0))).map(|()| state.live.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        failed(state.call(Call::Length, &(0..len)))?;
        state.change(Change::Length(len));
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        let range = state.inside(offset, buf.len() as u64)?;
        failed(state.call(Call::Read, &range))?;
        buf.copy_from_slice(&state.live[index(range.start)..index(range.end)]);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let range = state.inside(offset, buf.len() as u64)?;
        let fault = state.call(Call::Write, &range);
        let done = fault.map_or(buf.len(), |fault| index(fault.short).min(buf.len()));
        state.change(Change::Write { offset, data: buf[..done].to_vec() });
        failed(fault)
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.call(Call::Flush, &(0..0));
        // After a failed flush the kernel takes the pages for clean: a later flush that succeeds does
        // not cover what this one lost.
        let pending = std::mem::take(&mut state.pending);
        failed(fault)?;
        for change in pending {
            change.apply(&mut state.durable, |_| true);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if !state.punches {
            return Err(io::ErrorKind::Unsupported.into());
        }
        state.zero(Call::Punch, offset, len)
    }

    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.state().zero(Call::Zero, offset, len)
    }

    /// Zeroing is as fast as punching here: both are a mark in memory.
    fn zero_range_fast(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.can_punch() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.zero_range(offset, len)
    }

    fn can_punch(&self) -> bool {
        self.state().punches
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let mut state = self.state();
        failed(state.call(Call::Seek, &(offset..offset)))?;
        Ok(state.find(offset, true))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let mut state = self.state();
        failed(state.call(Call::Seek, &(offset..offset)))?;
        Ok(state.find(offset, false).unwrap_or(state.live.len() as u64))
    }
}

fn failed(fault: Option<Fault>) -> io::Result<()> {
    fault.map_or(Ok(()), |fault| Err(io::Error::from_raw_os_error(fault.errno)))
}

/// Cuts a range of bytes at the borders of sectors.
fn sectors(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = range.end.min((start / SECTOR + 1) * SECTOR);
        let part = start..end;
        start = end;
        (!part.is_empty()).then_some(part)
    })
}

#[expect(clippy::expect_used, reason = "an image in memory is never larger than the address space")]
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("an image in memory fits usize")
}

#[cfg(test)]
#[path = "faulty_tests.rs"]
mod tests;
