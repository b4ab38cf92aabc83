//! One home file: plain reads and writes on a stored file, crash safe.
//!
//! Owns the rules of `docs/format.md`, "VM home"; must not know names, nodes or FUSE. Flow of a write: inside
//! the size it takes the range lock of its sectors, reads what it covers only in part, encrypts once into the
//! thread's buffer and writes once; beyond the size it first grows the file (`tail`).
//!
//! Order of locks: the tail (shared for I/O inside the size, exclusive to change it), then one range.

use super::error::HomeError;
use super::keys::HomeKeys;
use super::layout::{self, HEADER, MAX_SIZE, SECTOR, SECTOR_LEN, Span, in_memory};
use super::ranges::{Access, RangeLock};
use super::recent::Recent;
use super::scratch::{PIECE, with_cipher_buffer};
use super::store::Store;
use super::tail::Tail;
use crate::flush::Flusher;
use crypto::Xts;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// An open home file, shared by all its handles.
pub(crate) struct HomeFile<S> {
    pub(super) store: S,
    pub(super) keys: Arc<HomeKeys>,
    /// Last known name, for messages.
    pub(super) label: String,
    /// Unset until the file has a header.
    pub(super) cipher: OnceLock<Xts>,
    pub(super) ranges: RangeLock,
    tail: RwLock<Tail>,
    /// All syncs go through it: handles share the descriptor, and the system tells a descriptor of a lost
    /// write only once.
    flusher: Flusher,
    /// The stored length was looked at.
    looked: Recent<()>,
    /// Changed since the storage was last asked for late faults.
    unsettled: AtomicBool,
    /// Held while it is asked.
    settling: Mutex<()>,
    /// Only this host can see it.
    pub(super) alone: bool,
}

impl<S: Store> HomeFile<S> {
    /// Reads the header; `stored` is the length of the stored file.
    ///
    /// # Errors
    /// A damaged or foreign header is refused here, so no byte of such a file is ever served.
    pub(crate) fn open(
        store: S,
        stored: u64,
        keys: Arc<HomeKeys>,
        label: String,
    ) -> Result<Self, HomeError> {
        let file = HomeFile {
            store,
            keys,
            label,
            cipher: OnceLock::new(),
            ranges: RangeLock::new(),
            tail: RwLock::new(Tail::of(stored)),
            flusher: Flusher::default(),
            looked: Recent::default(),
            unsettled: AtomicBool::new(false),
            settling: Mutex::default(),
            alone: false,
        };
        file.load_header(stored)?;
        file.looked.get(|| Ok::<(), HomeError>(()))?;
        Ok(file)
    }

    /// The same for a file that only this host can see, if `alone`: the caller vouches for that.
    pub(crate) fn seen_by_us_only(mut self, alone: bool) -> Self {
        self.alone = alone;
        self
    }

    /// Notices when others have changed the size since the file was opened here; looks at most once a moment. Others
    /// may append to a file that is read here. Where both change the size of one file, one of them loses.
    pub(crate) fn look_again(&self) -> Result<(), HomeError> {
        self.looked.get(|| self.refresh())
    }

    /// Plain size in bytes.
    #[cfg(test)]
    pub(crate) fn size(&self) -> u64 {
        self.shared().size
    }

    /// Hands the plain bytes of `at..at + len`, cut at the end of the file, to `deliver`.
    pub(crate) fn read<R>(
        &self,
        at: u64,
        len: usize,
        deliver: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, HomeError> {
        let mut tail = self.shared();
        let wanted = at.saturating_add(len as u64);
        if wanted > tail.size {
            drop(tail);
            self.look_again()?;
            tail = self.shared();
        }
        let end = wanted.min(tail.size);
        if at >= end {
            return Ok(deliver(&[]));
        }
        let span = Span::new(at, end);
        with_cipher_buffer(in_memory(span.to - span.from), |buffer| {
            match self.cipher.get() {
                Some(cipher) => {
                    let _held = self.ranges.acquire(span.from..span.to, Access::Read);
                    self.load(cipher, span.from, buffer)?;
                }
                // Without a header there is only a size: everything reads as zero.
                None => buffer.fill(0),
            }
            drop(tail);
            Ok(deliver(&buffer[in_memory(at - span.from)..in_memory(end - span.from)]))
        })
    }

    /// Writes all of `data` at `at`, growing the file when it ends beyond.
    pub(crate) fn write(&self, at: u64, data: &[u8]) -> Result<(), HomeError> {
        let end = end_of(at, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        {
            let tail = self.shared();
            if end <= tail.size && self.cipher.get().is_some() {
                return self.write_inside(at, data);
            }
        }
        self.look_again()?;
        let mut tail = self.exclusive();
        if self.write_first(&mut tail, at, data)? {
            return Ok(());
        }
        self.ensure_header(&mut tail)?;
        let old = tail.size;
        if end > old {
            self.grow(&mut tail, end)?;
        }
        let written = self.write_inside(at, data);
        if written.is_err() && end > old {
            // The first fault is the one to report; if this fails too, the file is longer and reads as zero.
            let _ = self.shrink(&mut tail, old);
        }
        written
    }

    /// Sets the plain size; new bytes are zero.
    pub(crate) fn truncate(&self, size: u64) -> Result<(), HomeError> {
        let size = end_of(size, 0)?;
        self.look_again()?;
        let mut tail = self.exclusive();
        if size > tail.size {
            self.ensure_header(&mut tail)?;
        }
        // The header, and with it a size, may be that of another host.
        if size > tail.size { self.grow(&mut tail, size) } else { self.shrink(&mut tail, size) }
    }

    /// Makes everything acknowledged so far durable. Once this has failed for anybody, here or inside a
    /// change of the size, it fails for all until the file was closed by all and is opened again.
    pub(crate) fn sync(&self, data_only: bool) -> Result<(), HomeError> {
        if data_only {
            return self.flush("sync of a file");
        }
        let synced = self.flusher.flush_myself(|| self.store.sync_all());
        synced.map_err(HomeError::io("sync of a file"))
    }

    /// Makes data and size durable.
    pub(super) fn flush(&self, doing: &'static str) -> Result<(), HomeError> {
        self.flusher.flush(|| self.store.flush()).map_err(HomeError::io(doing))
    }

    /// What closing a handle asks for: late faults of a network storage are reported here.
    pub(crate) fn settle(&self) -> Result<(), HomeError> {
        // Of two that close at once, the one with nothing left to ask returns after the answer to the other.
        let _alone = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.unsettled.swap(false, Ordering::Acquire) {
            return self.verdict();
        }
        self.flusher.ask(|| self.store.settle()).map_err(HomeError::io("flush of a file"))
    }

    /// The failure of an earlier sync, for those who close the file and cannot be told later.
    pub(super) fn verdict(&self) -> Result<(), HomeError> {
        self.flusher.verdict().map_err(HomeError::io("sync of a file"))
    }

    /// Notes that the stored file was changed; after the change, so that it is not settled before.
    pub(super) fn changed(&self) {
        self.unsettled.store(true, Ordering::Release);
    }

    pub(super) fn shared(&self) -> RwLockReadGuard<'_, Tail> {
        // A panic elsewhere leaves the tail as it was before or after one system call; both are valid.
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn exclusive(&self) -> RwLockWriteGuard<'_, Tail> {
        self.tail.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes inside the size; the caller holds the tail.
    pub(super) fn write_inside(&self, mut at: u64, mut data: &[u8]) -> Result<(), HomeError> {
        let whole = Span::new(at, at + data.len() as u64);
        let _held = self.ranges.acquire(whole.from..whole.to, Access::Write);
        while !data.is_empty() {
            // Cut where sectors end.
            let room = PIECE - in_memory(at % PIECE as u64);
            let (piece, rest) = data.split_at(data.len().min(room));
            self.write_piece(at, piece)?;
            at += piece.len() as u64;
            data = rest;
        }
        Ok(())
    }

    /// Head, tail, body: the edge sectors are read first where they are covered in part, the body is not;
    /// all three go out in one write. The caller holds the range.
    fn write_piece(&self, at: u64, data: &[u8]) -> Result<(), HomeError> {
        let cipher = self.expect_cipher()?;
        let span = Span::new(at, at + data.len() as u64);
        with_cipher_buffer(in_memory(span.to - span.from), |out| {
            if span.ragged_head() {
                let sector = &mut out[..SECTOR_LEN];
                self.load(cipher, span.from, sector)?;
                let start = in_memory(at - span.from);
                let take = data.len().min(SECTOR_LEN - start);
                sector[start..start + take].copy_from_slice(&data[..take]);
                cipher.encrypt(span.sector(), sector)?;
            }
            if span.ragged_tail() && span.to - span.from > SECTOR {
                let first = span.to - SECTOR;
                let sector = &mut out[in_memory(first - span.from)..];
                self.load(cipher, first, sector)?;
                let take = in_memory(span.end - first);
                sector[..take].copy_from_slice(&data[data.len() - take..]);
                cipher.encrypt(first / SECTOR, sector)?;
            }
            let body = span.body();
            if body.start < body.end {
                let plain = &data[in_memory(body.start - at)..in_memory(body.end - at)];
                let from = in_memory(body.start - span.from);
                cipher.encrypt_into(
                    body.start / SECTOR,
                    plain,
                    &mut out[from..from + plain.len()],
                )?;
            }
            let written = self.store.write_at(HEADER + span.from, out);
            self.changed();
            written.map_err(HomeError::io("write to a file"))
        })
    }

    /// Reads whole sectors and decrypts them.
    pub(super) fn load(&self, cipher: &Xts, mut at: u64, out: &mut [u8]) -> Result<(), HomeError> {
        for piece in out.chunks_mut(PIECE) {
            self.store.read_at(HEADER + at, piece).map_err(HomeError::io("read of a file"))?;
            cipher.decrypt(at / SECTOR, piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    pub(super) fn expect_cipher(&self) -> Result<&Xts, HomeError> {
        let what = "its header was not made before its data";
        self.cipher.get().ok_or_else(|| HomeError::Damaged { file: self.label.clone(), what })
    }
}

/// End of `len` bytes at `at`, if a file may be that large.
pub(super) fn end_of(at: u64, len: u64) -> Result<u64, HomeError> {
    match at.checked_add(len) {
        Some(end) if end <= MAX_SIZE => Ok(end),
        Some(size) => Err(HomeError::TooLarge { size }),
        None => Err(HomeError::TooLarge { size: u64::MAX }),
    }
}

const _: () = assert!(layout::UNIT.is_multiple_of(SECTOR), "units are made of whole sectors");

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "full_tests.rs"]
mod full_tests;

#[cfg(test)]
#[path = "settle_tests.rs"]
mod settle_tests;
