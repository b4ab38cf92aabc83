//! Runs `qemu-img`: `info`, `check` and `convert`.
//!
//! Owns its argument lists and the watch over the child; knows no VM and no API. Options are those of QEMU 5.0
//! and later (`--target-is-zero`); tried with 7.2 of Debian 12 and 10.0. Flow of a copy: spawn -> one thread
//! reads progress, one keeps the last words of stderr -> the caller's thread shows progress and looks at the
//! interrupt flag.

use crate::error::{CliError, HelperError};
use crate::image::Format;
use crate::interrupt::Interrupt;
use crate::progress::{Meter, Parser, WHOLE};
use serde::Deserialize;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The program.
pub(crate) const PROGRAM: &str = "qemu-img";

/// Figures waiting to be shown; more would be stale, and the reader thread may wait.
const WAITING_FIGURES: usize = 16;

/// Last words of stderr that are kept, in bytes: a few lines.
const LAST_WORDS: usize = 2048;

/// How often the interrupt flag is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How the C library says ENOSPC in the locale that the program is run in. Over NBD the server sends the number, and
/// QEMU says it in the same words.
const NO_SPACE: &str = "No space left on device";

/// What `qemu-img info` tells, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Info {
    /// Size in bytes as a guest sees it.
    pub(crate) virtual_size: u64,
}

/// Asks for the size of the image at `path`, which must be absolute, as `format`.
pub(crate) fn info(path: &Path, format: Format) -> Result<Info, HelperError> {
    let output = command()
        .args(["info", "--output=json", "-f", format.name()])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(not_run)?;
    if !output.status.success() {
        return Err(failed(output.status, &output.stderr));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| HelperError::Answer { program: PROGRAM, reason: e.to_string() })
}

/// What `qemu-img check` tells, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Checked {
    #[serde(default)]
    corruptions: u64,
    #[serde(default)]
    check_errors: u64,
}

/// Counts the faults that make the content of the image at `path` doubtful: a cut qcow2, for example, has
/// tables that point past its end, and `qemu-img convert` would read zeros there without a word. Clusters that
/// nothing uses are no such fault.
pub(crate) fn faults(path: &Path, format: Format) -> Result<u64, HelperError> {
    let output = command()
        .args(["check", "--output=json", "-f", format.name()])
        .arg(path)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(not_run)?;
    match serde_json::from_slice::<Checked>(&output.stdout) {
        Ok(found) => Ok(found.corruptions.saturating_add(found.check_errors)),
        Err(_) => {
            let said = "`qemu-img check` could not look at it".to_owned();
            Err(HelperError::Failed { program: PROGRAM, status: output.status, said })
        }
    }
}

/// One copy.
#[derive(Debug)]
pub(crate) struct Copy<'a> {
    /// Format of the source; never guessed.
    pub(crate) from: Format,
    /// Path or NBD URI.
    pub(crate) source: &'a OsStr,
    /// Format of the target.
    pub(crate) to: Format,
    /// Path or NBD URI.
    pub(crate) target: &'a OsStr,
    /// The target is there already and reads as zeros: zeros are left out.
    pub(crate) into_zeros: bool,
}

impl Copy<'_> {
    fn arguments(&self) -> Vec<OsString> {
        // Written back with a flush at the end: the default of `convert`, `unsafe`, sends none.
        let mut list: Vec<OsString> =
            ["convert", "-p", "-t", "writeback"].map(OsString::from).into();
        list.extend(["-f", self.from.name(), "-O", self.to.name()].map(OsString::from));
        if self.into_zeros {
            list.extend(["-n", "-S", "4k", "--target-is-zero"].map(OsString::from));
        }
        list.extend([self.source.to_owned(), self.target.to_owned()]);
        list
    }
}

/// Runs `copy` to its end, showing progress on `meter`, or kills it when `interrupt` is set.
pub(crate) fn convert(
    copy: &Copy<'_>,
    meter: &mut Meter,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    let mut child = command()
        .args(copy.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C reaches this process only, which ends the child in its own time.
        .process_group(0)
        .spawn()
        .map_err(not_run)?;
    let (figures, words) = readers(&mut child);
    let watched = watch(&figures, meter, interrupt);
    if watched.is_err() {
        // Fails only for a child that has ended, which is what is wanted.
        let _ = child.kill();
    }
    let status = child.wait().map_err(not_run)?;
    if status.success() && watched.is_ok() {
        tell(meter, WHOLE);
    }
    meter.end();
    let words = words.and_then(|thread| thread.join().ok()).unwrap_or_default();
    watched?;
    if status.success() { Ok(()) } else { Err(failed(status, &words).into()) }
}

fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    command.env("LC_ALL", "C");
    command
}

fn watch(
    figures: &Receiver<u32>,
    meter: &mut Meter,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    loop {
        if interrupt.is_set() {
            return Err(CliError::Interrupted);
        }
        match figures.recv_timeout(LOOK) {
            // qemu-img prints the whole at its end, also of a copy that failed.
            Ok(WHOLE) => {}
            Ok(figure) => tell(meter, figure),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn tell(meter: &mut Meter, figure: u32) {
    if let Some(line) = meter.show(figure) {
        // Progress that cannot be shown must not stop the copy.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Starts the readers of both pipes of `child`.
fn readers(child: &mut Child) -> (Receiver<u32>, Option<JoinHandle<Vec<u8>>>) {
    let (sender, figures) = mpsc::sync_channel(WAITING_FIGURES);
    if let Some(mut stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut parser = Parser::default();
            let mut chunk = [0; 256];
            while let Ok(count @ 1..) = stdout.read(&mut chunk) {
                if let Some(figure) = parser.push(&chunk[..count])
                    && sender.send(figure).is_err()
                {
                    break;
                }
            }
        });
    }
    let words = child.stderr.take().map(|stderr| thread::spawn(move || last_words(stderr)));
    (figures, words)
}

fn last_words(mut stderr: impl Read) -> Vec<u8> {
    let mut kept = VecDeque::with_capacity(LAST_WORDS);
    let mut chunk = [0; 512];
    while let Ok(count @ 1..) = stderr.read(&mut chunk) {
        kept.extend(&chunk[..count]);
        let surplus = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..surplus);
    }
    kept.into()
}

fn not_run(reason: io::Error) -> HelperError {
    match reason.kind() {
        io::ErrorKind::NotFound => HelperError::Missing { program: PROGRAM },
        _ => HelperError::NotRun { program: PROGRAM, reason },
    }
}

fn failed(status: ExitStatus, stderr: &[u8]) -> HelperError {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines.join("; ");
    if said.contains(NO_SPACE) {
        return HelperError::NoSpace { program: PROGRAM, said };
    }
    HelperError::Failed { program: PROGRAM, status, said }
}

#[cfg(test)]
#[path = "qemu_img_tests.rs"]
mod tests;
