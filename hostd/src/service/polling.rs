//! The places for threads that look for requests instead of sleeping, shared by all vmds of this host.
//!
//! Owns the memory; must not know what stands in it (that is `nbd::budget` of vmd). Flow: the first vmd that starts has it
//! made, and a copy of the descriptor goes to each with its Setup. A vmd of an earlier hostd gives that one's memory back
//! at the adoption, and it is taken up, so that the places count once, whoever started whom. Not taken up is memory for
//! another number of places, as after a change of the configuration, and whatever comes when this hostd has some
//! already: such a vmd keeps its own places until it ends.

use crate::fault::Fault;
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a place.
const PLACE: u64 = 8;

/// What nobody can do to the memory: change its size, or forbid more.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The places of this host.
#[derive(Debug)]
pub(crate) struct Polling {
    places: u32,
    memory: Mutex<Option<Arc<OwnedFd>>>,
}

impl Polling {
    /// So many places; with none, nobody looks.
    pub(crate) fn new(places: u32) -> Self {
        Self { places, memory: Mutex::default() }
    }

    /// The memory for a vmd that starts; nothing when there are no places.
    ///
    /// # Errors
    /// What the kernel says when it is made.
    pub(crate) fn memory(&self) -> Result<Option<Arc<OwnedFd>>, Fault> {
        let mut memory = self.lock();
        if memory.is_none() && self.places > 0 {
            *memory = Some(Arc::new(make(self.places)?));
        }
        Ok(memory.clone())
    }

    /// Takes up the memory that an adopted vmd shares with others of an earlier hostd. `false` when its places are
    /// others than those of this host.
    pub(crate) fn take_up(&self, found: OwnedFd) -> bool {
        let mut memory = self.lock();
        match &*memory {
            Some(memory) => identity(memory).is_some_and(|known| identity(&found) == Some(known)),
            None if self.fits(&found) => {
                *memory = Some(Arc::new(found));
                true
            }
            None => false,
        }
    }

    /// A vmd could be under foreign control: what it gives must do for others as what is made here does.
    fn fits(&self, memory: &OwnedFd) -> bool {
        let sealed = |seals: SealFlags| seals.difference(SealFlags::EXEC) == SEALS;
        let size = rustix::fs::fstat(memory).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
        let flags = rustix::fs::fcntl_getfl(memory);
        self.places > 0
            && rustix::fs::fcntl_get_seals(memory).is_ok_and(sealed)
            && size == Some(u64::from(self.places) * PLACE)
            && flags.is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
    }

    /// One assignment at a time, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity(memory: &OwnedFd) -> Option<(u64, u64)> {
    rustix::fs::fstat(memory).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// Memory for `places`. It can neither shrink nor grow, so that no vmd can pull it away from under another.
fn make(places: u32) -> Result<OwnedFd, Fault> {
    let failed = |e: rustix::io::Errno| Fault::Io {
        doing: "make memory to share with vmds,",
        path: "memfd".into(),
        source: e.into(),
    };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("coffer-polling", flags).map_err(failed)?;
    ftruncate(&fd, u64::from(places) * PLACE).map_err(failed)?;
    fcntl_add_seals(&fd, SEALS).map_err(failed)?;
    Ok(fd)
}

/// Half of the processors, and one at least: the clients need the others.
pub(crate) fn default_places() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors / 2).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes: u64, seals: SealFlags) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("places", flags).unwrap();
        ftruncate(&fd, bytes).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    #[test]
    fn the_memory_of_an_earlier_hostd_is_taken_up_once() {
        let old = Polling::new(2).memory().unwrap().unwrap();
        let other = Polling::new(2).memory().unwrap().unwrap();
        let polling = Polling::new(2);
        assert!(polling.take_up(old.try_clone().unwrap()));
        let now = polling.memory().unwrap().unwrap();
        assert_eq!(identity(&now), identity(&old));
        assert!(polling.take_up(old.try_clone().unwrap()), "the next vmd has the same");
        assert!(!polling.take_up(other.try_clone().unwrap()));
        assert_eq!(identity(&polling.memory().unwrap().unwrap()), identity(&old));
    }

    #[test]
    fn without_places_there_is_no_memory() {
        let polling = Polling::new(0);
        assert!(polling.memory().unwrap().is_none());
        assert!(!polling.take_up(make(2).unwrap()));
        assert!(polling.memory().unwrap().is_none());
    }

    #[test]
    fn memory_that_would_not_do_for_others_is_not_taken_up() {
        let polling = Polling::new(2);
        let whole = make(2).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&whole));
        let readable = rustix::fs::open(path, OFlags::RDONLY, rustix::fs::Mode::empty());
        let found = [
            memory(24, SEALS),
            memory(16, SealFlags::SHRINK | SealFlags::GROW),
            memory(16, SEALS | SealFlags::WRITE),
            memory(16, SEALS | SealFlags::FUTURE_WRITE),
            tempfile::tempfile().unwrap().into(),
            readable.unwrap(),
        ];
        for (number, found) in found.into_iter().enumerate() {
            assert!(!polling.take_up(found), "{number}");
        }
        assert!(polling.take_up(memory(16, SEALS)));
    }
}
