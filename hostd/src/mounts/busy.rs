//! Who keeps a mount busy.
//!
//! Owns a bounded look at `/proc`: working folder, root, program, open files and mappings of each process. Must not
//! call into the mount; reading a process's mappings may still wait for that process, so the look is made by a thread
//! of its own and given up after a while. Flow: `unmount` was told that the mount is busy and asks [`holders`], whose
//! answer goes into the message.

use super::{STACK, unescape};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// Most processes looked at, and descriptors of each: bounds the time of an error message on a host with very many.
const MAX_PROCESSES: usize = 16_384;
const MAX_DESCRIPTORS: usize = 4_096;

/// Most bytes of a list of mappings; a QEMU has some ten thousand, a program with a million is cut.
const MAX_MAPS: u64 = 4 << 20;

/// Most holders named in a message.
const MAX_HOLDERS: usize = 8;

/// How long the look may take.
const LOOK_WAIT: Duration = Duration::from_secs(3);

/// Processes that use something below `target`, as `name (pid)`; those that were found in time, and no more than
/// [`MAX_HOLDERS`].
pub(super) fn holders(target: &Path) -> Vec<String> {
    let (found, holders) = mpsc::channel();
    let target = target.to_owned();
    let thread = Builder::new().name("busy".into()).stack_size(STACK);
    if let Err(e) = thread.spawn(move || look(&target, &found)) {
        tracing::warn!("nobody can look for who is busy: {e}");
        return Vec::new();
    }
    let end = Instant::now() + LOOK_WAIT;
    let next = || holders.recv_timeout(end.saturating_duration_since(Instant::now())).ok();
    std::iter::from_fn(next).take(MAX_HOLDERS).collect()
}

/// ` by cp (4711), bash (4712)`, or nothing.
pub(super) fn named(holders: &[String]) -> String {
    if holders.is_empty() { String::new() } else { format!(" by {}", holders.join(", ")) }
}

fn look(target: &Path, found: &Sender<String>) {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    let processes = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.as_bytes().iter().all(u8::is_ascii_digit)));
    for process in processes.take(MAX_PROCESSES) {
        // Whoever asked has gone when nothing can be told any more.
        if holds(&process, target) && found.send(describe(&process)).is_err() {
            return;
        }
    }
}

fn holds(process: &Path, target: &Path) -> bool {
    let inside = |link: PathBuf| std::fs::read_link(link).is_ok_and(|to| to.starts_with(target));
    ["cwd", "root", "exe"].iter().any(|link| inside(process.join(link)))
        || std::fs::read_dir(process.join("fd"))
            .is_ok_and(|fds| fds.flatten().take(MAX_DESCRIPTORS).any(|fd| inside(fd.path())))
        || maps(process, target)
}

/// Whether a file below `target` is mapped into the process, which needs no open descriptor.
fn maps(process: &Path, target: &Path) -> bool {
    let mut text = Vec::new();
    let read =
        File::open(process.join("maps")).and_then(|f| f.take(MAX_MAPS).read_to_end(&mut text));
    read.is_ok() && text.split(|b| *b == b'\n').filter_map(mapped).any(|p| p.starts_with(target))
}

/// The file of a mapping (proc_pid_maps(5)): what begins with the first slash, newlines in it escaped.
fn mapped(line: &[u8]) -> Option<PathBuf> {
    let path = line.get(line.iter().position(|b| *b == b'/')?..)?;
    Some(PathBuf::from(OsString::from_vec(unescape(path))))
}

fn describe(process: &Path) -> String {
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    let pid = process.file_name().unwrap_or_default().to_string_lossy();
    format!("{} ({pid})", name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_mappings_are_found_in_their_lines() {
        let line =
            b"7f5d8c000000-7f5d8c021000 r-xp 00000000 00:2d 1234  /run/a b/home/lib\\012x.so";
        assert_eq!(mapped(line).unwrap(), Path::new("/run/a b/home/lib\nx.so"));
        assert_eq!(mapped(b"7ffc-7ffd rw-p 00000000 00:00 0   [stack]"), None);
        assert_eq!(mapped(b""), None);
    }

    /// Whether the whole look finds this process. [`holders`] gives up after a while and names a few only: on a busy
    /// host, or with more programs running from the same folder, this one need not be among them.
    fn is_found(target: &Path) -> bool {
        let (found, holders) = mpsc::channel();
        look(target, &found);
        drop(found);
        let own = format!("({})", std::process::id());
        holders.iter().any(|holder| holder.ends_with(&own))
    }

    #[test]
    fn this_process_is_found_by_an_open_file_and_by_its_program() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("open")).unwrap();
        assert!(is_found(dir.path()));
        drop(file);
        assert!(!is_found(tempfile::tempdir().unwrap().path()));
        let program = std::env::current_exe().unwrap();
        assert!(is_found(program.parent().unwrap()));
        assert!(maps(Path::new("/proc/self"), &program));
        assert!(!maps(Path::new("/proc/self"), dir.path()));
    }

    #[test]
    fn no_more_holders_are_named_than_a_message_can_take() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(named(&holders(dir.path())), "");
        let open = || {
            let file = File::create(dir.path().join("open")).unwrap();
            std::process::Command::new("sleep").arg("600").stdin(file).spawn().unwrap()
        };
        let mut all: Vec<_> = (0..MAX_HOLDERS + 3).map(|_| open()).collect();
        let found = holders(dir.path());
        for child in &mut all {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(found.len() <= MAX_HOLDERS, "{found:?}");
    }
}
