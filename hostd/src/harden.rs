//! Hardening of the process, done before the configuration is read.
//!
//! Owns process-wide settings and the check that they took effect; must not know what the daemon does.
//! `cli` calls [`process`] first of all, so that no byte of a passphrase or key is ever in a dumpable,
//! swappable process.

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use thiserror::Error;

/// Permissions of everything the daemon makes, unless it sets others on purpose.
const UMASK: u32 = 0o077;

/// Hardening failed; the daemon does not run without it.
#[derive(Debug, Error)]
pub enum HardenError {
    /// The kernel refused a setting.
    #[error("cannot {what}: {source}")]
    Refused {
        /// The setting.
        what: &'static str,
        /// What the kernel said.
        source: rustix::io::Errno,
    },
    /// A setting was accepted but is not in force.
    #[error("{what} was set but is not in force")]
    NoEffect {
        /// The setting.
        what: &'static str,
    },
}

/// Makes the process undumpable, without core files, without new privileges, with umask 077, and raises
/// the limit of locked memory as far as the hard limit and the privileges of the process allow.
///
/// # Errors
/// [`HardenError`] when a setting is refused or not in force afterwards.
pub fn process() -> Result<(), HardenError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|source| HardenError::Refused { what: "make the process undumpable", source })?;
    rustix::process::setrlimit(Resource::Core, limit(Some(0)))
        .map_err(|source| HardenError::Refused { what: "forbid core files", source })?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|source| HardenError::Refused { what: "give up new privileges", source })?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
    raise_locked_memory();
    raise_descriptors();
    verify()
}

/// Checks that [`process`] took effect.
///
/// # Errors
/// [`HardenError::NoEffect`] naming the setting.
pub fn verify() -> Result<(), HardenError> {
    let dumpable = rustix::process::dumpable_behavior();
    if !matches!(dumpable, Ok(DumpableBehavior::NotDumpable)) {
        return Err(HardenError::NoEffect { what: "the undumpable process" });
    }
    if rustix::process::getrlimit(Resource::Core) != limit(Some(0)) {
        return Err(HardenError::NoEffect { what: "the ban on core files" });
    }
    match rustix::thread::no_new_privs() {
        Ok(true) => Ok(()),
        _ => Err(HardenError::NoEffect { what: "the ban on new privileges" }),
    }
}

/// Tries unlimited, then the hard limit. Neither has to work: the arena measures what is really there and
/// fails with the remedy when it is too little.
fn raise_locked_memory() {
    let hard = rustix::process::getrlimit(Resource::Memlock).maximum;
    if rustix::process::setrlimit(Resource::Memlock, limit(None)).is_err() {
        let raised = Rlimit { current: hard, maximum: hard };
        if let Err(e) = rustix::process::setrlimit(Resource::Memlock, raised) {
            tracing::debug!("RLIMIT_MEMLOCK stays as it is: {e}");
        }
    }
}

/// Descriptors that a host and its vmds may have. A vmd keeps one for every file of a home that the kernel knows,
/// so the usual hard limits (4096 to 20,000) let it know few at a time. This is the kernel's default
/// ceiling (fs.nr_open).
const DESCRIPTORS: u64 = 1 << 20;

/// Tries [`DESCRIPTORS`], then the hard limit; vmds inherit it. A failure shows as EMFILE where one is too many,
/// with its remedy.
fn raise_descriptors() {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    let wanted = hard.map(|hard| hard.max(DESCRIPTORS));
    let set = |value| {
        let raised = Rlimit { current: value, maximum: value };
        rustix::process::setrlimit(Resource::Nofile, raised)
    };
    if let Err(e) = set(wanted).or_else(|_| set(hard)) {
        tracing::debug!("RLIMIT_NOFILE stays as it is: {e}");
    }
}

fn limit(value: Option<u64>) -> Rlimit {
    Rlimit { current: value, maximum: value }
}
