//! Hardening of the process, done before the configuration is read.
//!
//! Owns process-wide settings and the check that they took effect: the private key of the authority is in this process, so no part of it may end
//! up in a core file or be read by another process of the same user. Must not know what the daemon does.

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use thiserror::Error;

/// Permissions of everything the daemon makes, unless it sets others on purpose.
const UMASK: u32 = 0o077;

/// Hardening failed; the daemon does not run without it.
#[derive(Debug, Error)]
#[error("cannot {what}")]
pub struct HardenError {
    /// The setting.
    what: &'static str,
}

/// Makes the process undumpable, without core files, without new privileges, with umask 077.
///
/// # Errors
/// [`HardenError`] when a setting is refused or not in force afterwards.
pub fn process() -> Result<(), HardenError> {
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    let failed = |what| move |_| HardenError { what };
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("make the process undumpable"))?;
    rustix::process::setrlimit(Resource::Core, no_core).map_err(failed("forbid core files"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("give up new privileges"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
    let in_force =
        matches!(rustix::process::dumpable_behavior(), Ok(DumpableBehavior::NotDumpable))
            && rustix::process::getrlimit(Resource::Core) == no_core
            && matches!(rustix::thread::no_new_privs(), Ok(true));
    if in_force { Ok(()) } else { Err(HardenError { what: "see that the hardening is in force" }) }
}
