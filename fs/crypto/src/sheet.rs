//! Owns the hand-over of data keys to another process: a sheet of memory passed as a descriptor.
//!
//! It must not know sockets or processes: it makes and takes an [`OwnedFd`]. Flow:
//! [`KeySheet::seal`] writes keys into secret memory and unmaps it; the descriptor travels to the
//! other process; [`KeySheet::open`] copies the keys into that process's arena and wipes the sheet.
//!
//! Layout, little-endian: magic (8 bytes), number of keys (8 bytes), then for each key its kind
//! (8 bytes) and 64 bytes of room for it. Both ends are the same build, started by the same daemon,
//! so the magic carries the version.
//!
//! Where the kernel has no secret memory, the sheet is a sealed memfd that is locked while mapped.
//! Between the two mappings its pages could be swapped; `MemorySwapMax=0` on the unit prevents it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate,
    memfd_create,
};
use rustix::io::Errno;

use crate::KeyError;
use crate::arena::{Arena, Protection, Region, Slot, secret_memory_fd};
use crate::keys::sealed::Bytes;
use crate::keys::{DataKey, Dek, HomeKey};

/// Most keys of one sheet: one home and far more disks than a VM has (QEMU's PCI buses end sooner).
pub const MAX_SHEET_KEYS: usize = 256;

const MAGIC: [u8; 8] = *b"coffer\x01s";
const WORD: usize = 8;
const HEAD_BYTES: usize = 2 * WORD;
const ROOM: usize = 64;
const ENTRY_BYTES: usize = WORD + ROOM;
const KIND_HOME: u64 = 1;
const KIND_DISK: u64 = 2;
/// `SECRETMEM_MAGIC` of `linux/magic.h`, the file system type of secret memory.
const SECRET_MEMORY_TYPE: u64 = 0x5345_434d;

/// A key to be put on a sheet.
#[derive(Debug, Clone, Copy)]
pub enum SheetKey<'a> {
    /// A VM home's key.
    Home(&'a HomeKey),
    /// A disk's key.
    Disk(&'a Dek),
}

/// The keys of a received sheet, in the order in which they were given.
#[derive(Debug)]
pub struct KeySheet {
    keys: VecDeque<Entry>,
}

#[derive(Debug)]
enum Entry {
    Home(HomeKey),
    Disk(Dek),
}

impl KeySheet {
    /// Writes `keys` to a new sheet. The descriptor is close-on-exec; whoever holds it holds the keys.
    ///
    /// # Errors
    /// [`KeyError::SheetFull`], [`KeyError::Arena`] when the memory cannot be locked.
    pub fn seal(keys: &[SheetKey<'_>]) -> Result<OwnedFd, KeyError> {
        if keys.len() > MAX_SHEET_KEYS {
            return Err(KeyError::SheetFull { count: keys.len(), max: MAX_SHEET_KEYS });
        }
        let len = sheet_bytes(keys.len());
        match secret_memory_fd(len)? {
            Some(fd) => Self::fill(fd, keys, len, Protection::SecretMemory),
            None => Self::fill(locked_memory_fd(len)?, keys, len, Protection::LockedMemory),
        }
    }

    fn fill(
        fd: OwnedFd,
        keys: &[SheetKey<'_>],
        len: usize,
        kind: Protection,
    ) -> Result<OwnedFd, KeyError> {
        let sheet = Region::from_fd(fd.as_fd(), len, kind)?;
        let count = u64::try_from(keys.len()).map_err(|_| KeyError::Primitive("the key sheet"))?;
        sheet.write(0, &MAGIC);
        sheet.write(WORD, &count.to_le_bytes());
        for (index, key) in keys.iter().enumerate() {
            let at = HEAD_BYTES + index * ENTRY_BYTES;
            sheet.write(at, &key.kind().to_le_bytes());
            sheet.write(at + WORD, key.bytes());
        }
        Ok(fd)
    }

    /// Copies the keys of a received sheet into `arena` and wipes the sheet. For a moment the arena
    /// holds a copy of the whole sheet (at least a page) beside the keys.
    ///
    /// # Errors
    /// [`KeyError::SheetDamaged`] when it is no sheet, [`KeyError::EqualHalves`] for a disk key that
    /// must not be used, [`KeyError::Arena`]. The sheet is wiped in these cases too once mapped.
    pub fn open(fd: OwnedFd, arena: &Arena) -> Result<Self, KeyError> {
        let (len, kind) = measure(&fd)?;
        let sheet = Region::from_fd(fd.as_fd(), len, kind)?;
        drop(fd);
        // A private copy first: the sender could still have the sheet mapped.
        let copied = arena.slot(len.min(sheet_bytes(MAX_SHEET_KEYS)));
        let read = copied.map(|mut copy| {
            sheet.read(0, copy.bytes_mut());
            copy
        });
        sheet.wipe();
        let keys = parse(&read?, arena)?;
        Ok(Self { keys })
    }

    /// The next key, which must be a disk's.
    ///
    /// # Errors
    /// [`KeyError::SheetOrder`] when it is not, or when none is left.
    pub fn take_disk(&mut self) -> Result<Dek, KeyError> {
        match self.keys.pop_front() {
            Some(Entry::Disk(key)) => Ok(key),
            other => Err(self.put_back("disk", other)),
        }
    }

    /// The next key, which must be a home's.
    ///
    /// # Errors
    /// [`KeyError::SheetOrder`] when it is not, or when none is left.
    pub fn take_home(&mut self) -> Result<HomeKey, KeyError> {
        match self.keys.pop_front() {
            Some(Entry::Home(key)) => Ok(key),
            other => Err(self.put_back("home", other)),
        }
    }

    fn put_back(&mut self, wanted: &'static str, entry: Option<Entry>) -> KeyError {
        let found = match &entry {
            None => "nothing",
            Some(Entry::Home(_)) => "a home key",
            Some(Entry::Disk(_)) => "a disk key",
        };
        if let Some(entry) = entry {
            self.keys.push_front(entry);
        }
        KeyError::SheetOrder { wanted, found }
    }
}

impl SheetKey<'_> {
    fn kind(&self) -> u64 {
        match self {
            Self::Home(_) => KIND_HOME,
            Self::Disk(_) => KIND_DISK,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Home(key) => key.bytes(),
            Self::Disk(key) => key.bytes(),
        }
    }
}

/// The keys in the private copy of a sheet.
fn parse(copy: &Slot, arena: &Arena) -> Result<VecDeque<Entry>, KeyError> {
    let (head, entries) = copy
        .bytes()
        .split_at_checked(HEAD_BYTES)
        .ok_or(KeyError::SheetDamaged("it is too short"))?;
    let (magic, count) = head.split_at(WORD);
    if magic != MAGIC {
        return Err(KeyError::SheetDamaged("it does not start with the mark of this version"));
    }
    let count = usize::try_from(word(count)).unwrap_or(usize::MAX);
    if count > MAX_SHEET_KEYS || count > entries.len() / ENTRY_BYTES {
        return Err(KeyError::SheetDamaged("it has fewer keys than it says"));
    }
    entries.chunks_exact(ENTRY_BYTES).take(count).map(|entry| parse_entry(entry, arena)).collect()
}

fn parse_entry(entry: &[u8], arena: &Arena) -> Result<Entry, KeyError> {
    let (kind, room) = entry.split_at(WORD);
    match word(kind) {
        KIND_HOME => key_from(room, arena).map(Entry::Home),
        KIND_DISK => key_from(room, arena).map(Entry::Disk),
        _ => Err(KeyError::SheetDamaged("it has a key of an unknown kind")),
    }
}

fn key_from<K: DataKey>(room: &[u8], arena: &Arena) -> Result<K, KeyError> {
    let mut slot = arena.slot(K::LEN)?;
    slot.bytes_mut().copy_from_slice(&room[..K::LEN]);
    K::from_slot(slot)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

/// Bytes of a sheet of `keys` keys, whole pages.
fn sheet_bytes(keys: usize) -> usize {
    (HEAD_BYTES + keys * ENTRY_BYTES).next_multiple_of(rustix::param::page_size())
}

/// A memfd that cannot be resized any more, for kernels without secret memory.
fn locked_memory_fd(len: usize) -> Result<OwnedFd, KeyError> {
    let size = u64::try_from(len).map_err(|_| KeyError::Primitive("the key sheet"))?;
    let fd = memfd_create("coffer-keys", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|errno| sheet_io("memfd_create", errno))?;
    ftruncate(&fd, size).map_err(|errno| sheet_io("ftruncate", errno))?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(|errno| sheet_io("F_ADD_SEALS", errno))?;
    Ok(fd)
}

/// Size and kind of a received descriptor; refuses one that could shrink under the mapping.
fn measure(fd: &OwnedFd) -> Result<(usize, Protection), KeyError> {
    let size = fstat(fd).map_err(|errno| sheet_io("fstat", errno))?.st_size;
    let len = usize::try_from(size).unwrap_or(0);
    if len == 0 || len > sheet_bytes(MAX_SHEET_KEYS) || len % rustix::param::page_size() != 0 {
        return Err(KeyError::SheetDamaged("it has not the size of one"));
    }
    let file_system = fstatfs(fd).map_err(|errno| sheet_io("fstatfs", errno))?.f_type;
    if u64::try_from(file_system) == Ok(SECRET_MEMORY_TYPE) {
        return Ok((len, Protection::SecretMemory));
    }
    match fcntl_get_seals(fd) {
        Ok(seals) if seals.contains(SealFlags::SHRINK) => Ok((len, Protection::LockedMemory)),
        _ => Err(KeyError::SheetDamaged("it is neither secret memory nor a sealed memfd")),
    }
}

fn sheet_io(call: &'static str, errno: Errno) -> KeyError {
    KeyError::SheetIo { call, source: errno.into() }
}

#[cfg(test)]
#[path = "sheet_tests.rs"]
mod tests;
