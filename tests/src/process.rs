//! Processes of others, seen through /proc: whose they are, and ending them.

pub use rustix::process::Signal;

use rustix::process::{Pid, kill_process};
use std::fs;
use std::path::Path;

/// Process ids of all running processes.
fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Name of the program of a process, as its first argument says it.
fn program_of(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next()?;
    let path = String::from_utf8_lossy(first).into_owned();
    Path::new(&path).file_name()?.to_str().map(str::to_owned)
}

/// Process id of the parent.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Does the process have a file below `folder` open?
fn has_open(pid: i32, folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|path| path.starts_with(folder)))
}

/// Is there a process of that id that has not ended (a zombie has)?
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    !matches!(state, None | Some("Z" | "X"))
}

/// Processes named `program` that are children of `parent` or have a file below `folder` open.
#[must_use]
pub fn of_folder(program: &str, folder: &Path, parent: Option<i32>) -> Vec<i32> {
    let named = all().into_iter().filter(|pid| program_of(*pid).as_deref() == Some(program));
    named
        .filter(|pid| is_alive(*pid))
        .filter(|pid| has_open(*pid, folder) || (parent.is_some() && parent_of(*pid) == parent))
        .collect()
}

/// Process ids of the children of a process.
#[must_use]
pub fn children(parent: i32) -> Vec<i32> {
    all().into_iter().filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// Sends SIGKILL; a process that has ended already is as good.
pub fn kill(pid: i32) {
    send(pid, Signal::KILL);
}

/// Sends a signal to one process.
pub fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}
