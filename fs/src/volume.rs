//! An encrypted disk: what a guest reads and writes, over a [`Backing`] that holds only ciphertext.
//!
//! Owns the way of a request: bounds, alignment, cipher, one call to the storage. It must not know NBD,
//! descriptors or where the key came from. Flow: a request is cut into an unaligned head, a body of
//! whole 512-byte sectors and an unaligned tail; the body takes one call to the storage and is ciphered
//! in the caller's buffer (or on its way, for storage that asks for aligned memory, in `blocks`), an edge is
//! read, changed and written under the lock of its sector.
//!
//! Payload byte x holds disk byte x (`docs/format.md`, "Disk payload"), so the payload never grows. A
//! 512-byte sector of zero ciphertext reads as zeros; discarding and zeroing make such sectors.
//!
//! # What concurrent requests may expect
//!
//! - Requests that touch different bytes do not disturb each other, also inside one sector: two
//!   unaligned writes of one sector follow each other, and a write that has returned is never undone by
//!   one that starts later.
//! - Of requests that overlap while they run, a read may see old, new or, cut at sectors, some of both;
//!   two writes leave in each sector that both touch the bytes of one or the other order, and an
//!   aligned write of a sector while an unaligned one changes a part of it may be lost in that sector.
//!   Disks with 512-byte sectors promise no more, and guests do not rely on it. This is the price for
//!   aligned writes, which are all that an operating system sends, taking no lock.
//! - A write survives a power loss once a [`Volume::flush`] that began after it has returned. Before
//!   that each of its sectors may be old or new; nothing outside it changes, because a sector is
//!   always written whole and alone carries its ciphertext.

mod blocks;
mod edge;
mod error;
mod extents;
mod geometry;
mod parts;

pub use blocks::release_scratch;
pub use error::{Fault, VolumeError};
pub use extents::Extent;
pub use geometry::{Geometry, GeometryError, MAX_SIZE, SECTOR, padded_size, unit_for};

use crate::backing::Backing;
use crate::flush::Flusher;
use crypto::{Dek, Engine, Unit, Xts};
use edge::{EdgeLocks, SECTOR_LEN};
use parts::{Edge, Parts};
use std::io;

/// Most bytes that one piece of advice prepares. The host's page cache belongs to all VMs, and the system call
/// does not return before the last page has been asked for.
pub const MAX_PREFETCH: u64 = 32 * 1024 * 1024;

/// An open disk. Dropping it wipes the key; what was not flushed then is as safe as after a write.
pub struct Volume {
    backing: Box<dyn Backing>,
    xts: Xts,
    geometry: Geometry,
    /// Held while an edge sector is read, changed and written. Whole sectors are written without.
    edges: EdgeLocks,
    flusher: Flusher,
}

impl Volume {
    /// Opens a disk with the default engine. The payload must have at least `geometry.size` bytes.
    pub fn open(
        backing: Box<dyn Backing>,
        key: Dek,
        geometry: Geometry,
    ) -> Result<Self, VolumeError> {
        Self::with_engine(backing, key, geometry, Engine::default())
    }

    /// [`Volume::open`] with a chosen engine.
    pub fn with_engine(
        backing: Box<dyn Backing>,
        key: Dek,
        geometry: Geometry,
        engine: Engine,
    ) -> Result<Self, VolumeError> {
        geometry.check()?;
        let payload = backing.len().map_err(|error| VolumeError::io("measure", 0, error))?;
        if payload < geometry.size {
            return Err(VolumeError::PayloadShort { payload, size: geometry.size });
        }
        let xts = Xts::with_engine(key, geometry.unit, engine)?;
        let (edges, flusher) = (EdgeLocks::default(), Flusher::default());
        Ok(Self { backing, xts, geometry, edges, flusher })
    }

    /// Bytes that the guest sees.
    pub fn size(&self) -> u64 {
        self.geometry.size
    }

    /// Data unit of the cipher.
    pub fn unit(&self) -> Unit {
        self.geometry.unit
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.geometry.read_only
    }

    /// Fills `buf` with the plaintext from `offset`. After an error `buf` holds nothing of use.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        self.inside(offset, buf.len() as u64)?;
        let parts = Parts::of(offset, buf.len());
        let (head, body, tail) = parts.split(buf);
        if let Some(edge) = parts.head {
            head.copy_from_slice(edge.of(&self.read_sector(edge)?));
        }
        self.read_whole(parts.body, body)?;
        if let Some(edge) = parts.tail {
            tail.copy_from_slice(edge.of(&self.read_sector(edge)?));
        }
        Ok(())
    }

    /// [`Volume::read`], but only if no device must be waited for: false, and nothing of use in `buf`, when one
    /// must or may.
    pub fn read_ready(&self, offset: u64, buf: &mut [u8]) -> Result<bool, VolumeError> {
        self.inside(offset, buf.len() as u64)?;
        if self.in_memory() {
            return self.read(offset, buf).map(|()| true);
        }
        if buf.is_empty() || !offset.is_multiple_of(SECTOR) || !buf.len().is_multiple_of(SECTOR_LEN)
        {
            return Ok(buf.is_empty());
        }
        let failed = |error| VolumeError::io("read", offset, error);
        let ready = self.backing.read_ready(offset, buf).map_err(failed)?;
        if ready {
            self.xts.decrypt(offset / SECTOR, buf)?;
        }
        Ok(ready)
    }

    /// Whether the storage is memory, so that no call waits for a device.
    pub fn in_memory(&self) -> bool {
        self.backing.is_memory()
    }

    /// Whether a write waits for a device, as one past the page cache does.
    pub fn waits_on_write(&self) -> bool {
        self.backing.waits_on_write()
    }

    /// Writes `buf` at `offset`. The buffer may be ciphered in place: what it holds afterwards is of no use.
    /// After an error each sector of the range holds old or new content, or, where a sector is not
    /// written as one by the storage, neither.
    pub fn write(&self, offset: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        self.writable()?;
        self.inside(offset, buf.len() as u64)?;
        let parts = Parts::of(offset, buf.len());
        let (head, body, tail) = parts.split(buf);
        if let Some(edge) = parts.head {
            self.change_sector(edge, head)?;
        }
        self.write_whole(parts.body, body)?;
        if let Some(edge) = parts.tail {
            self.change_sector(edge, tail)?;
        }
        Ok(())
    }

    /// Returns once everything written before the call survives a power loss. After a failure every
    /// later call fails too, because the system drops what it could not write: only opening the disk
    /// again, and writing again, helps.
    pub fn flush(&self) -> Result<(), VolumeError> {
        if self.read_only() {
            return Ok(());
        }
        self.flusher
            .flush(|| self.backing.flush())
            .map_err(|error| VolumeError::io("flush", 0, error))
    }

    /// Tells that the content of a range is of no use any more. The whole sectors in it read as zero
    /// afterwards where the storage can give them back, and as before where it cannot; bytes outside
    /// and edges do not change.
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), VolumeError> {
        self.writable()?;
        let end = self.inside(offset, len)?;
        let start = offset.next_multiple_of(SECTOR);
        let inner = (end / SECTOR * SECTOR).saturating_sub(start);
        if inner == 0 {
            return Ok(());
        }
        match self.backing.punch(start, inner) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            done => done.map_err(|error| VolumeError::io("discard", start, error)),
        }
    }

    /// Makes a range read as zeros. With `may_punch` its storage may be given back, without it stays.
    pub fn write_zeroes(&self, offset: u64, len: u64, may_punch: bool) -> Result<(), VolumeError> {
        self.writable()?;
        let end = self.inside(offset, len)?;
        let (parts, inner) = Parts::of_range(offset, end);
        for edge in [parts.head, parts.tail].into_iter().flatten() {
            let mut zeros = [0; SECTOR_LEN];
            self.change_sector(edge, edge.of_mut(&mut zeros))?;
        }
        if inner == 0 {
            return Ok(());
        }
        let failed = |error| VolumeError::io("write zeros to", parts.body, error);
        if may_punch {
            match self.backing.punch(parts.body, inner) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                done => return done.map_err(failed),
            }
        }
        self.backing.zero_range(parts.body, inner).map_err(failed)
    }

    /// [`Volume::write_zeroes`] where the storage can do it without writing zeros; false, and nothing has
    /// changed, where it cannot or where no whole sector is in the range.
    pub fn write_zeroes_fast(
        &self,
        offset: u64,
        len: u64,
        may_punch: bool,
    ) -> Result<bool, VolumeError> {
        self.writable()?;
        let end = self.inside(offset, len)?;
        let (parts, inner) = Parts::of_range(offset, end);
        if inner == 0 {
            return Ok(len == 0);
        }
        let punched = match may_punch {
            true => self.backing.punch(parts.body, inner),
            false => Err(io::ErrorKind::Unsupported.into()),
        };
        let zeroed = match punched {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.backing.zero_range_fast(parts.body, inner)
            }
            done => done,
        };
        match zeroed {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(false),
            done => done.map_err(|error| VolumeError::io("write zeros to", parts.body, error))?,
        }
        for edge in [parts.head, parts.tail].into_iter().flatten() {
            let mut zeros = [0; SECTOR_LEN];
            self.change_sector(edge, edge.of_mut(&mut zeros))?;
        }
        Ok(true)
    }

    /// Whether [`Volume::write_zeroes_fast`] is likely to work.
    pub fn zeroes_fast(&self) -> bool {
        !self.read_only() && self.backing.can_punch()
    }

    /// Advice that a range will be read soon, at most [`MAX_PREFETCH`] bytes of which are prepared.
    pub fn prefetch(&self, offset: u64, len: u64) -> Result<(), VolumeError> {
        self.inside(offset, len)?;
        self.backing.prefetch(offset, len.min(MAX_PREFETCH));
        Ok(())
    }

    /// Tells which parts of a range read as zeros without being stored: at most `max` extents, in order
    /// from `offset` on, neighbours of different kinds, together at most `len` bytes long and at least
    /// one byte unless `len` or `max` is 0. Borders between them are multiples of 512. A part that is
    /// not `zero` may still hold zeros.
    pub fn extents(&self, offset: u64, len: u64, max: usize) -> Result<Vec<Extent>, VolumeError> {
        let end = self.inside(offset, len)?;
        extents::find(&*self.backing, offset..end, max)
            .map_err(|error| VolumeError::io("find the extents of", offset, error))
    }

    /// How many bytes at `offset`, at most `len`, read as zeros without being stored; see [`Volume::extents`]. Asks
    /// the storage once.
    pub fn zeros_at(&self, offset: u64, len: u64) -> Result<u64, VolumeError> {
        let end = self.inside(offset, len)?;
        extents::zeros(&*self.backing, offset..end)
            .map_err(|error| VolumeError::io("find the extents of", offset, error))
    }

    /// The end of a range, if it lies in the disk.
    fn inside(&self, offset: u64, len: u64) -> Result<u64, VolumeError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size() => Ok(end),
            _ => Err(VolumeError::OutOfRange { offset, len, size: self.size() }),
        }
    }

    fn writable(&self) -> Result<(), VolumeError> {
        if self.read_only() { Err(VolumeError::ReadOnly) } else { Ok(()) }
    }

    fn read_sector(&self, edge: Edge) -> Result<[u8; SECTOR_LEN], VolumeError> {
        let mut sector = [0; SECTOR_LEN];
        self.read_whole(edge.sector * SECTOR, &mut sector)?;
        Ok(sector)
    }

    /// Replaces the bytes of an edge in its sector.
    fn change_sector(&self, edge: Edge, bytes: &[u8]) -> Result<(), VolumeError> {
        let _held = self.edges.hold(edge.sector);
        let mut sector = self.read_sector(edge)?;
        edge.of_mut(&mut sector).copy_from_slice(bytes);
        self.write_whole(edge.sector * SECTOR, &mut sector)
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod steps;
#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
#[cfg(test)]
mod thread_tests;
