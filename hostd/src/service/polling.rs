//! The places for threads that look for requests instead of sleeping, shared by all vmds of this host.
//!
//! Owns the memory; must not know what stands in it (that is `nbd::budget` of vmd). Flow: made once when hostd starts,
//! then a copy of the descriptor goes to each vmd with its Setup. A vmd of an earlier hostd keeps the places
//! of that one until it ends.

use crate::fault::Fault;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::os::fd::OwnedFd;

/// Bytes of a place.
const PLACE: u64 = 8;

/// Memory for `places`; nothing when there are none. It can neither shrink nor grow, so that no vmd can pull
/// it away from under another.
///
/// # Errors
/// What the kernel says.
pub(crate) fn places(places: u32) -> Result<Option<OwnedFd>, Fault> {
    if places == 0 {
        return Ok(None);
    }
    let failed = |e: rustix::io::Errno| Fault::Io {
        doing: "make memory to share with vmds,",
        path: "memfd".into(),
        source: e.into(),
    };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("coffer-polling", flags).map_err(failed)?;
    ftruncate(&fd, u64::from(places) * PLACE).map_err(failed)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).map_err(failed)?;
    Ok(Some(fd))
}

/// Half of the processors, and one at least: the clients need the others.
pub(crate) fn default_places() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors / 2).unwrap_or(u32::MAX).max(1)
}
