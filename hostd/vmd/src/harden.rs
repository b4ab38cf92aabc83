//! What a vmd takes from itself before it holds a key.
//!
//! Owns the process-wide settings that need no knowledge of the VM; `confine` does the rest once hostd has said
//! which VM it is. Flow: [`harden`] is the first call of `main`.

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask,
};
use thiserror::Error;

/// A setting that the kernel refused; running without it is not an option.
#[derive(Debug, Error)]
#[error("cannot {what}: {source}")]
pub struct HardenError {
    what: &'static str,
    source: Errno,
}

/// No core dumps (three ways, with the arena's DONTDUMP), nobody may attach, no new privileges, files of ours
/// are private, no terminal.
///
/// # Errors
/// [`HardenError`] names the setting.
pub fn harden() -> Result<(), HardenError> {
    let failed = |what| move |source| HardenError { what, source };
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("make the process undumpable"))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(failed("forbid core dumps"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("give up new privileges"))?;
    umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match rustix::process::setsid() {
        // EPERM: we lead a session or a process group already, which is as good.
        Ok(_) | Err(Errno::PERM) => {}
        Err(e) => return Err(failed("start a session")(e)),
    }
    Ok(())
}
