//! Power cuts: at whatever moment they come, and whatever of the unflushed writes the disk has lost by then.
//!
//! Owns no test itself. A recorded disk (`tests::cut`) carries the storage while steps are done whose effects are known;
//! then states of that disk are built, the kernel mounts each as after a loss of power, and Coffer opens what is there.
//! `home` does so with a mounted home and `sealed` with safes, descriptors, leases and payloads, in the test itself:
//! thousands of states. `host` does it with the verbs of the whole product, and a disk over NBD.
//!
//! `COFFER_CUT_SEED` begins with another seed, `COFFER_CUT_STATES` tries about so many states, and a
//! state that fails is kept in the folder `COFFER_CUT_KEEP` names, with the log up to it. The steps of a seed are
//! always the same, but not when the kernel writes what they leave.

mod ground;
mod home;
mod host;
mod past;
mod sealed;

use ground::{Cut, Record};
use std::fmt::Debug;

/// States of a recording in a short run.
const STATES: usize = 180;

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

/// Ends the test after a fault, with the steps that led to it.
fn report(cut: Cut, record: &Record, told: &[String], judged: Result<(), String>) {
    let Err(fault) = judged else { return };
    let steps = told.iter().enumerate().take(cut.begun + 1);
    let steps: Vec<String> = steps.map(|(step, told)| format!("{step:4} {told}")).collect();
    panic!("{fault}\n{cut}, of {} events\n{}", record.log.len(), steps.join("\n"));
}

/// Whether something is what it may be.
fn among<T: PartialEq + Debug>(what: &str, found: &T, may_be: &[&T]) -> Result<(), String> {
    match may_be.contains(&found) {
        true => Ok(()),
        false => Err(format!("{what} is {found:?}, but was one of {may_be:?}")),
    }
}
