//! The check of the home, in a thread of its own.
//!
//! Owns that thread and what it needs; what can be wrong with a home is known to `cryptfs`. Flow: [`Check::start`]
//! answers hostd at once, and the lines of the report go through a pipe until the check ends, or hostd closes its end.

use crate::confine::root::Root;
use crate::home::{naming, open_folder, take_key};
use crate::refusal::Refusal;
use cryptfs::fsck::{Line, Report};
use cryptfs::home::check::{CheckError, check};
use crypto::Arena;
use hostd_api::error::ErrorCode;
use hostd_api::link::CheckHome;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use uuid::Uuid;

/// Descriptors of a check.
#[derive(Debug)]
pub struct CheckFds {
    /// The end of a pipe that is written.
    pub report: OwnedFd,
    /// Key sheet with the home key.
    pub sheet: OwnedFd,
}

/// A check that runs, or has ended.
#[derive(Debug)]
pub struct Check(JoinHandle<()>);

impl Check {
    /// Starts it.
    ///
    /// # Errors
    /// When the folder, the key or the descriptor is no good, or no thread can be had.
    pub fn start(
        vm: Uuid,
        asked: &CheckHome,
        root: &Root,
        fds: CheckFds,
        arena: &Arena,
    ) -> Result<Self, Refusal> {
        let CheckFds { report, sheet } = fds;
        only_a_pipe(&report)?;
        let folder = open_folder(root)?;
        let key = take_key(sheet, arena)?;
        let CheckHome { repair, names } = *asked;
        let (arena, pipe) = (arena.clone(), File::from(report));
        let thread = std::thread::Builder::new().name("check".into());
        let look = move |report: &mut Report<'_>| {
            check(folder, key, vm, naming(names), arena, repair, report)
        };
        let work = move || run(look, repair, &pipe);
        thread.spawn(work).map(Check).map_err(|e| {
            let message = format!("cannot start a thread for the check: {e}");
            Refusal::new(ErrorCode::HostLimit, message, "raise the limit of threads of hostd")
        })
    }

    /// Has it ended?
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// Anything else could block for ever, or be a file that the report would be written over.
fn only_a_pipe(report: &OwnedFd) -> Result<(), Refusal> {
    let stat = rustix::fs::fstat(report)
        .map_err(|e| Refusal::invalid(format!("a descriptor without a status: {e}")))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => Ok(()),
        _ => Err(Refusal::invalid("the report of a check goes through a pipe")),
    }
}

fn run(look: impl FnOnce(&mut Report<'_>) -> Result<(), CheckError>, repair: bool, pipe: &File) {
    tracing::info!(repair, "checking the home");
    let mut emit = |line: &Line| send(pipe, line);
    let is_read = || is_read(pipe);
    let mut report = Report::new(&mut emit).heard_by(&is_read);
    let checked = look(&mut report);
    let totals = report.totals();
    tracing::info!(?totals, "the check of the home has ended");
    let last = match checked {
        Ok(()) => Line::Done(totals),
        Err(error) => Line::Failed(error.to_string()),
    };
    if let Err(error) = send(pipe, &last) {
        // hostd is gone, or has given up.
        tracing::warn!(%error, "the end of a check was told to nobody");
    }
}

/// Whether hostd still holds the other end (poll(2), `POLLERR`).
fn is_read(pipe: &File) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let polled = poll(&mut fds, Some(&now));
    polled.is_err() || !fds.iter().any(|fd| fd.revents().contains(PollFlags::ERR))
}

/// One line of JSON in one write.
fn send(mut pipe: &File, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    pipe.write_all(&text)
}
