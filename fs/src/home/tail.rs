//! The end of a home file: its header, its size, and the order of steps that changes the size crash safely.
//!
//! Owns what happens around the last unit; must not know requests. The stored length carries the size, so one
//! `ftruncate` changes it, and no data write ever moves the end of the file. Two places hold bytes that nobody
//! asked for: the pad (rest of the last unit) and the carrier (bytes after it whose only content is their
//! number). Both must read as zero before the file grows over them.

use super::error::HomeError;
use super::file::HomeFile;
use super::header::PAGE_LEN;
use super::layout::{
    HEADER, SECTOR, SECTOR_LEN, Stored, UNIT, UNIT_LEN, decode, in_memory, physical, tail,
};
use super::scratch::{CHUNK, with_cipher_buffer};
use super::store::Store;
use crypto::Xts;

/// Size of an open file and what is known of its end.
pub(super) struct Tail {
    /// Plain size in bytes.
    pub(super) size: u64,
    /// Pad and carrier are known to be zero. Not known when a file is opened: a crash may have left a data
    /// write in the carrier whose growth was lost.
    clean: bool,
    /// A write or sync that was to zero them failed, so what reads as zero now may come back in a crash.
    unsure: bool,
    /// What the stored length was when the file was opened, until the first change.
    stored: Stored,
    /// A header whose write failed. It may have reached the storage, so another try must write the same one.
    unwritten: Option<Box<([u8; PAGE_LEN], Xts)>>,
    /// The stored length is 0, unless others have changed it.
    empty: bool,
}

/// When a pad or carrier that is not zero was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Right after a shrink, where the pad holds the bytes cut off.
    AfterShrink,
    /// At the first change of the size since the file was opened: only a crash can have left it.
    AfterCrash,
}

/// What there was to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zeroed {
    Nothing,
    /// The pad alone.
    Pad,
    /// The carrier; unit and carrier were then written together.
    Carrier,
}

impl Tail {
    pub(super) fn of(stored: u64) -> Tail {
        let (empty, stored) = (stored == 0, decode(stored));
        Tail { size: stored.size(), clean: false, unsure: false, stored, unwritten: None, empty }
    }

    /// Do pad and carrier read as zero, whatever happens?
    pub(super) fn is_clean(&self) -> bool {
        self.clean
    }

    /// Is nothing stored, as far as is known here?
    pub(super) fn is_empty(&self) -> bool {
        self.empty && self.stored == Stored::Virgin
    }

    /// Keeps a header whose write failed, in a file that was `emptied` after it.
    pub(super) fn keep_header(&mut self, header: Box<([u8; PAGE_LEN], Xts)>, emptied: bool) {
        self.unwritten = Some(header);
        self.empty = emptied;
    }

    pub(super) fn set(&mut self, size: u64, clean: bool) {
        self.size = size;
        self.clean = clean;
        self.stored = Stored::Sized(size);
    }
}

impl<S: Store> HomeFile<S> {
    /// Reads the header of a file that has room for one.
    ///
    /// A page of zeros with nothing but zeros behind it is what a crash leaves of a file that was never
    /// synced: such a file has a size, reads as zero, and gets a header when it is next written. A page of
    /// zeros with data behind it is damage.
    pub(super) fn load_header(&self, stored: u64) -> Result<(), HomeError> {
        if stored < HEADER {
            return Ok(());
        }
        let mut page = [0; PAGE_LEN];
        self.store.read_at(0, &mut page).map_err(HomeError::io("read of a file header"))?;
        if let Some(cipher) = self.keys.open(&page, &self.label)? {
            self.cipher.get_or_init(|| cipher);
        } else if !self.reads_as_zero(HEADER, stored)? {
            let what = "its header is empty but it has data";
            return Err(HomeError::Damaged { file: self.label.clone(), what });
        }
        Ok(())
    }

    /// Takes over a size that others have set in the storage.
    pub(super) fn refresh(&self) -> Result<(), HomeError> {
        if decode(self.length()?) == self.shared().stored {
            return Ok(());
        }
        // Or it is being changed here, right now.
        self.adopt(&mut self.exclusive())
    }

    /// Notes that a sync failed before the file was opened: what reads as zero behind its end may not be durable, and
    /// must be synced before the file grows.
    pub(crate) fn doubt(&self) {
        self.exclusive().unsure = true;
    }

    /// Makes the header if there is none; the caller holds the tail exclusively.
    pub(super) fn ensure_header(&self, tail: &mut Tail) -> Result<(), HomeError> {
        if self.cipher.get().is_some() {
            return Ok(());
        }
        self.under_lock(|| self.adopt_header(tail).and_then(|()| self.make_header(tail)))
    }

    /// Keeps others off a file without a header. Another host may be at the same place: what one writes under the header
    /// that the other replaces, nobody could read.
    pub(super) fn under_lock<R>(
        &self,
        make: impl FnOnce() -> Result<R, HomeError>,
    ) -> Result<R, HomeError> {
        self.store.lock().map_err(HomeError::io("lock of a file without a header"))?;
        let made = make();
        // Closing the file unlocks it as well.
        let _ = self.store.unlock();
        made
    }

    /// Takes over a header that others have made, and their size; the caller holds the lock of the file.
    fn adopt_header(&self, tail: &mut Tail) -> Result<(), HomeError> {
        self.adopt(tail)?;
        // In the place of one that was lost in a crash, it came without a change of the length. One whose write
        // failed here may be there in part.
        if self.cipher.get().is_none() && tail.unwritten.is_none() {
            self.load_header(self.length()?)?;
        }
        Ok(())
    }

    /// Takes over a length that others have set; the caller holds the tail exclusively.
    fn adopt(&self, tail: &mut Tail) -> Result<(), HomeError> {
        let stored = self.length()?;
        if decode(stored) != tail.stored {
            if self.cipher.get().is_none() {
                self.load_header(stored)?;
            }
            let (unwritten, unsure) = (tail.unwritten.take(), tail.unsure);
            *tail = Tail { unwritten, unsure, ..Tail::of(stored) };
        }
        Ok(())
    }

    fn make_header(&self, tail: &mut Tail) -> Result<(), HomeError> {
        if self.cipher.get().is_some() {
            return Ok(());
        }
        if tail.stored == Stored::Virgin && self.length()? > 0 {
            // Part of a header that never became one: it must not come back in the place of this one.
            self.set_len(0)?;
        }
        let header = self.next_header(tail)?;
        if let Err(error) = self.store.write_at(0, &header.0) {
            // Back to a file that was never written; if this fails too, a partial header is still one.
            let emptied = tail.stored == Stored::Virgin && self.store.set_len(0).is_ok();
            tail.keep_header(header, emptied);
            return Err(HomeError::io("write of a file header")(error));
        }
        self.cipher.get_or_init(|| header.1);
        Ok(())
    }

    /// The header to write: one that was to be written before, or a new one.
    pub(super) fn next_header(
        &self,
        tail: &mut Tail,
    ) -> Result<Box<([u8; PAGE_LEN], Xts)>, HomeError> {
        match tail.unwritten.take() {
            Some(header) => Ok(header),
            None => Ok(Box::new(self.keys.create(&self.label)?)),
        }
    }

    /// Makes the file longer. The caller has made the header.
    pub(super) fn grow(&self, tail: &mut Tail, size: u64) -> Result<(), HomeError> {
        if tail.stored == Stored::Broken {
            self.set_len(HEADER)?;
        } else if !tail.clean {
            self.clean(tail, Found::AfterCrash)?;
        }
        self.set_len(physical(size))?;
        // New units and the new carrier are holes, the old pad and carrier are zero.
        tail.set(size, true);
        Ok(())
    }

    /// Makes the file shorter, or sets the size it has.
    pub(super) fn shrink(&self, tail: &mut Tail, size: u64) -> Result<(), HomeError> {
        if self.cipher.get().is_none() {
            return self.shrink_blank(tail, size);
        }
        if tail.stored == Stored::Broken {
            self.set_len(HEADER)?;
            tail.set(0, true);
            return Ok(());
        }
        let units = size.div_ceil(UNIT);
        let same_unit = units == tail.size.div_ceil(UNIT);
        if same_unit && !tail.clean && tail.size != size {
            // What a crash left in the pad must not be mixed with what is cut off now, which may show again
            // until the next sync. A shrink is never refused for it; a sync that failed fails the next one.
            let _ = self.clean(tail, Found::AfterCrash);
        }
        if !size.is_multiple_of(UNIT) && !same_unit {
            // Cut where the carrier will be, so that the second call fills it with zeros. A crash between
            // the two shows the size rounded up to the unit, with bytes that were valid before.
            self.set_len(HEADER + units * UNIT)?;
            tail.set(units * UNIT, true);
        }
        self.set_len(physical(size))?;
        let same = tail.size == size;
        tail.set(size, tail.clean && same);
        if !same && !size.is_multiple_of(UNIT) {
            // Zero the pad now, which needs no sync: no growth was lost over it yet. Left for the next growth
            // it would need one. The shrink is done whatever becomes of it; growth tries again, and a sync that
            // failed fails the next one.
            let _ = self.clean(tail, Found::AfterShrink);
        }
        Ok(())
    }

    /// Without a header there is nothing but a length.
    fn shrink_blank(&self, tail: &mut Tail, size: u64) -> Result<(), HomeError> {
        let stored = match tail.stored {
            Stored::Virgin => 0,
            Stored::Sized(_) | Stored::Broken => physical(size),
        };
        self.set_len(stored)?;
        tail.set(size, true);
        tail.stored = decode(stored);
        Ok(())
    }

    /// Zeroes pad and carrier of the last unit, in place and inside the end of the file.
    fn clean(&self, state: &mut Tail, found: Found) -> Result<(), HomeError> {
        let (start, used) = tail(state.size);
        if let Some(cipher) = self.cipher.get().filter(|_| used > 0) {
            // Durably, if a crash left it: a second crash that loses this write but not the growth over it
            // would show it as data.
            let after_crash = found == Found::AfterCrash || state.unsure;
            let before = std::mem::replace(&mut state.unsure, true);
            let written = self.zero_tail(cipher, start, in_memory(used))?;
            let sync = match written {
                Zeroed::Nothing => before,
                Zeroed::Pad => after_crash,
                Zeroed::Carrier => true,
            };
            if sync {
                self.flush("sync of the last unit of a file")?;
            }
        }
        state.unsure = false;
        state.clean = true;
        Ok(())
    }

    /// Are there bytes in pad or carrier, which only a crash can have left in a file that nobody has open?
    pub(super) fn has_remains(&self) -> Result<bool, HomeError> {
        let state = self.shared();
        let (start, used) = tail(state.size);
        let Some(cipher) = self.cipher.get().filter(|_| used > 0) else { return Ok(false) };
        let used = in_memory(used);
        let found =
            with_cipher_buffer(UNIT_LEN + used, |bytes| self.read_tail(cipher, start, used, bytes));
        Ok(found? != Zeroed::Nothing)
    }

    /// Zeroes pad and carrier, durably, as the next growth would.
    pub(super) fn clear_remains(&self) -> Result<(), HomeError> {
        self.clean(&mut self.exclusive(), Found::AfterCrash)
    }

    /// Reads the last unit, as plaintext, and the carrier, and says which of its ends is not zero but must be.
    fn read_tail(
        &self,
        cipher: &Xts,
        start: u64,
        used: usize,
        bytes: &mut [u8],
    ) -> Result<Zeroed, HomeError> {
        let doing = "read of the last unit of a file";
        self.store.read_at(HEADER + start, bytes).map_err(HomeError::io(doing))?;
        let (unit, carrier) = bytes.split_at_mut(UNIT_LEN);
        cipher.decrypt(start / SECTOR, unit)?;
        let dirty = |bytes: &[u8]| bytes.iter().any(|&byte| byte != 0);
        Ok(match (dirty(carrier), dirty(&unit[used..])) {
            (true, _) => Zeroed::Carrier,
            (false, true) => Zeroed::Pad,
            (false, false) => Zeroed::Nothing,
        })
    }

    /// Rewrites as much of the last unit, of which `used` bytes are in use, as is not zero but must be.
    fn zero_tail(&self, cipher: &Xts, start: u64, used: usize) -> Result<Zeroed, HomeError> {
        with_cipher_buffer(UNIT_LEN + used, |bytes| {
            let zeroed = self.read_tail(cipher, start, used, bytes)?;
            let (from, to) = match zeroed {
                Zeroed::Carrier => (0, UNIT_LEN + used),
                Zeroed::Pad => (used - used % SECTOR_LEN, UNIT_LEN),
                Zeroed::Nothing => return Ok(zeroed),
            };
            let (unit, carrier) = bytes.split_at_mut(UNIT_LEN);
            unit[used..].fill(0);
            carrier.fill(0);
            cipher.encrypt(start / SECTOR, unit)?;
            let at = HEADER + start + from as u64;
            let doing = "write of the last unit of a file";
            let written = self.store.write_at(at, &bytes[from..to]);
            self.changed();
            written.map_err(HomeError::io(doing))?;
            Ok(zeroed)
        })
    }

    pub(super) fn length(&self) -> Result<u64, HomeError> {
        self.store.len().map_err(HomeError::io("length of a file"))
    }

    pub(super) fn set_len(&self, stored: u64) -> Result<(), HomeError> {
        let set = self.store.set_len(stored);
        self.changed();
        set.map_err(HomeError::io("change of a file's length"))
    }

    fn reads_as_zero(&self, mut at: u64, end: u64) -> Result<bool, HomeError> {
        let doing = "search for data in a file";
        while let Some(data) = self.store.next_data(at).map_err(HomeError::io(doing))? {
            if data >= end {
                break;
            }
            let len = in_memory(end - data).min(CHUNK);
            let zero = with_cipher_buffer(len, |bytes| {
                self.store.read_at(data, bytes).map_err(HomeError::io(doing))?;
                Ok::<bool, HomeError>(bytes.iter().all(|&byte| byte == 0))
            })?;
            if !zero {
                return Ok(false);
            }
            at = data + len as u64;
        }
        Ok(true)
    }
}
