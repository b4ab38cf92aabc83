//! What a vmd takes from itself: the host's files, rights, system calls.
//!
//! Owns the order and the report. It must not know exports. Flow: [`root::Root::enter`] leaves the host's file
//! tree at the very start; [`confine`] does the rest at Setup, in the only thread there is, so that every later
//! thread inherits all of it; what the kernel cannot do is an error when confinement is required, and missing
//! from the returned list otherwise.

mod capabilities;
mod files;
pub mod root;
mod syscalls;

use root::Root;
use thiserror::Error;

/// Confinement that could not be put in force.
#[derive(Debug, Error)]
#[error("{what} is required but not in force: {reason}")]
pub struct ConfineError {
    what: &'static str,
    reason: String,
}

/// Confines the process to the VM folder in `root` and to what the data plane does. Returns what is in force.
///
/// # Errors
/// With `required`, when any part of it cannot be put in force.
pub fn confine(root: &Root, required: bool) -> Result<Vec<String>, ConfineError> {
    let mut in_force = Vec::new();
    // Files first: landlock opens /dev/fuse and makes system calls that the filter forbids afterwards.
    let steps: [(&'static str, Result<Vec<String>, String>); 4] = [
        ("mount-namespace", root.in_force()),
        ("landlock", files::restrict(root.folder())),
        ("capabilities", capabilities::drop_all_but_needed()),
        ("seccomp", syscalls::restrict()),
    ];
    for (what, outcome) in steps {
        match outcome {
            Ok(names) => in_force.extend(names),
            Err(reason) if required => return Err(ConfineError { what, reason }),
            Err(reason) => tracing::warn!(what, reason, "confinement is not in force"),
        }
    }
    Ok(in_force)
}
