//! A stored file in memory that remembers every change since the last sync.

use super::Dice;
use crate::backing::Backing;
use crate::home::layout::{HEADER, SECTOR_LEN, in_memory};
use crate::home::store::Store;
use std::io;
use std::sync::{Arc, Mutex};

/// One change of the stored file.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Data { at: usize, bytes: Vec<u8> },
    Length(usize),
}

/// The durable image, the changes since, and the live image.
#[derive(Debug, Default)]
struct State {
    live: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// Writes of anything but stored bytes fail.
    full: bool,
    syncs: u64,
    /// Calls that still succeed before one fails.
    fault_in: Option<u64>,
}

impl State {
    /// Fails the call whose turn it is, once.
    fn turn(&mut self) -> io::Result<()> {
        match self.fault_in {
            Some(0) => {
                self.fault_in = None;
                Err(io::Error::from_raw_os_error(5))
            }
            Some(left) => {
                self.fault_in = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Disk(Mutex<State>);

impl Disk {
    pub(super) fn of(image: Vec<u8>) -> Arc<Disk> {
        let state = State { live: image.clone(), durable: image, ..State::default() };
        Arc::new(Disk(Mutex::new(state)))
    }

    pub(super) fn changes(&self) -> usize {
        self.0.lock().unwrap().changes.len()
    }

    pub(super) fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    pub(super) fn live(&self) -> Vec<u8> {
        self.0.lock().unwrap().live.clone()
    }

    pub(super) fn durable_has_header(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.durable.len() >= in_memory(HEADER) && state.durable[..96].iter().any(|&b| b != 0)
    }

    /// Makes every write that is not a rewrite of stored bytes fail with ENOSPC.
    pub(super) fn set_full(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    /// Makes one call fail, after so many that succeed; `None` calls it off.
    pub(super) fn set_fault(&self, calls: Option<u64>) {
        self.0.lock().unwrap().fault_in = calls;
    }

    /// The image when `done` changes persisted in order, and of the next one the first `torn` sectors.
    pub(super) fn in_order(&self, done: usize, torn: usize) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let mut image = state.durable.clone();
        for change in &state.changes[..done] {
            change.apply(&mut image);
        }
        if let Some(Change::Data { at, bytes }) = state.changes.get(done) {
            let cut = (torn * SECTOR_LEN).saturating_sub(at % SECTOR_LEN).min(bytes.len());
            put(&mut image, *at, &bytes[..cut], true);
        }
        image
    }

    /// The image when of the first `issued` changes a prefix of the length changes persisted, and any subset
    /// of the sectors of the data writes.
    pub(super) fn reordered(&self, issued: usize, dice: &mut Dice) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let changes = &state.changes[..issued];
        let lengths = changes.iter().filter(|c| c.moves_end(&state.durable)).count() as u64;
        let mut left = dice.below(lengths + 1);
        let keep_out_of_8 = dice.below(9);
        let mut image = state.durable.clone();
        for change in changes {
            match change {
                Change::Length(len) if left > 0 => {
                    image.resize(*len, 0);
                    left -= 1;
                }
                Change::Length(_) => {}
                Change::Data { at, bytes } => {
                    if change.moves_end(&state.durable) && left > 0 {
                        image.resize((at + bytes.len()).max(image.len()), 0);
                        left -= 1;
                    }
                    let mut done = 0;
                    while done < bytes.len() {
                        let sector = SECTOR_LEN - (at + done) % SECTOR_LEN;
                        let part = &bytes[done..bytes.len().min(done + sector)];
                        if dice.below(8) < keep_out_of_8 {
                            put(&mut image, at + done, part, false);
                        }
                        done += part.len();
                    }
                }
            }
        }
        image
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Change::Data { at, bytes } => put(image, *at, bytes, true),
            Change::Length(len) => image.resize(*len, 0),
        }
    }

    /// Only the header page of a file without one may move the end by a write.
    fn moves_end(&self, durable: &[u8]) -> bool {
        match self {
            Change::Data { at, .. } => *at == 0 && durable.len() < in_memory(HEADER),
            Change::Length(_) => true,
        }
    }
}

/// Puts bytes into an image; those beyond its end extend it or are lost.
fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8], extend: bool) {
    let end = at + bytes.len();
    if extend && end > image.len() && !bytes.is_empty() {
        image.resize(end, 0);
    }
    if at < image.len() {
        let fits = bytes.len().min(image.len() - at);
        image[at..at + fits].copy_from_slice(&bytes[..fits]);
    }
}

impl Backing for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.turn()?;
        state.live.resize(in_memory(len), 0);
        state.changes.push(Change::Length(in_memory(len)));
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.turn()?;
        let at = in_memory(offset);
        let bytes = state.live.get(at..at + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let (at, end) = (in_memory(offset), in_memory(offset) + buf.len());
        let header = at == 0 && buf.len() == in_memory(HEADER);
        assert!(header || end <= state.live.len(), "a data write moved the end of the file");
        let new = (end > state.live.len()) || state.live[at..end].contains(&0);
        let fault = match state.turn() {
            Ok(()) if state.full && new => Err(io::Error::from_raw_os_error(28)),
            turn => turn,
        };
        if let Err(fault) = fault {
            // The storage may take a first part of the write before it finds out.
            let part = buf.len() / 2 / SECTOR_LEN * SECTOR_LEN;
            put(&mut state.live, at, &buf[..part], true);
            state.changes.push(Change::Data { at, bytes: buf[..part].to_vec() });
            return Err(fault);
        }
        put(&mut state.live, at, buf, true);
        state.changes.push(Change::Data { at, bytes: buf.to_vec() });
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.turn()?;
        state.durable = state.live.clone();
        state.changes.clear();
        state.syncs += 1;
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.turn()?;
        let zeros = vec![0; in_memory(len)];
        put(&mut state.live, in_memory(offset), &zeros, false);
        state.changes.push(Change::Data { at: in_memory(offset), bytes: zeros });
        Ok(())
    }

    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.punch(offset, len)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let state = self.0.lock().unwrap();
        let rest = state.live.get(in_memory(offset)..).unwrap_or_default();
        Ok(rest.iter().position(|&byte| byte != 0).map(|skip| offset + skip as u64))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let state = self.0.lock().unwrap();
        let rest = state.live.get(in_memory(offset)..).unwrap_or_default();
        let skip = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
        Ok(offset + skip as u64)
    }
}

impl Store for Arc<Disk> {
    fn sync_all(&self) -> io::Result<()> {
        self.flush()
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}
