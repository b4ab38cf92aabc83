//! What the owner of a mount decides about it.
//!
//! Owns the settings and what each of them means for the kernel's caches; must not know the home.

use std::time::Duration;

/// How long names and attributes are believed while others may change the storage: long enough to save most
/// questions, short enough that their changes are soon seen.
const SHORT: Duration = Duration::from_secs(1);

/// How long while nobody else may: until the kernel needs the memory, but not without end, so that a mistake does
/// not last.
const LONG: Duration = Duration::from_secs(3600);

/// Who else may change the stored files of a home while it is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Caching {
    /// Other hosts may. Writes go through before they are acknowledged, names and attributes are asked for again
    /// after a second, and cached content is dropped when a file changed.
    #[default]
    Shared,
    /// Nobody may: whoever mounts vouches for it. The kernel collects writes and keeps size and times of open
    /// files itself until a sync or close; names, attributes and content are kept.
    Exclusive,
}

impl Caching {
    /// How long the kernel may believe names and attributes without asking.
    pub(super) fn ttl(self) -> Duration {
        match self {
            Caching::Shared => SHORT,
            Caching::Exclusive => LONG,
        }
    }
}

/// Settings of one mount.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Threads that answer the kernel, at least 1, at most [`super::MAX_THREADS`].
    pub threads: usize,
    /// Who else may change the storage.
    pub caching: Caching,
}
