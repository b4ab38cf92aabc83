//! Having a vmd check a home, and reading its report.
//!
//! Owns the pipe and its limits; must not know what findings mean. A vmd could be under foreign control, so nothing
//! that it sends takes more room than the limits below, and one that falls silent is given up.

use super::Service;
use crate::fault::Fault;
use crate::host::Host;
use crate::vm::{Collected, Opened, Vm, WhyEnd, home_names, unfinished};
use cryptfs::fsck::Line;
use cryptfs::safe::Safe;
use crypto::{KeySheet, SheetKey};
use hostd_api::link::{CheckHome, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::PipeReader;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long a vmd may be silent. It speaks every few seconds between files; one file may take as long as it takes to
/// read it, if its header was lost.
const SILENCE: Duration = Duration::from_secs(600);

/// How often it is looked whether the check must give way meanwhile.
const STEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Longest line: a path and a sentence, escaped twice.
const MAX_LINE: usize = 64 * 1024;

/// Bytes read at a time; the size of a pipe (pipe(7)).
const CHUNK: usize = 64 * 1024;

impl Host {
    /// Has the vmd look at everything in the home, and collects what it finds.
    ///
    /// # Errors
    /// Faults of the link; what the vmd refuses; `data-plane` when it does not come to the end.
    pub(crate) fn check_home(
        &self,
        vm: &Vm,
        service: &mut Service,
        safe: Opened<Safe>,
        repair: bool,
        why_end: WhyEnd<'_>,
        found: &mut Collected,
    ) -> Result<(), Fault> {
        let (reader, writer) =
            std::io::pipe().map_err(Fault::io("make a pipe for", vm.folder.path()))?;
        let sheet = KeySheet::seal(&[SheetKey::Home(&safe.key)])?;
        let request = Request::CheckHome(CheckHome { repair, names: home_names(&safe.body) });
        service.up(vm)?.call(&request, &[writer.as_fd(), sheet.as_fd()])?;
        // From here on the end of the vmd is the end of the pipe.
        drop((writer, sheet, safe));
        let ended = follow(&reader, found, why_end);
        ended.map_err(|why| unfinished(vm, &why))
    }
}

/// Reads lines until the last one.
fn follow(reader: &PipeReader, found: &mut Collected, why_end: WhyEnd<'_>) -> Result<(), String> {
    let mut text = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let got = receive(reader, &mut chunk, why_end)?;
        text.extend_from_slice(chunk.get(..got).unwrap_or_default());
        while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            let line = serde_json::from_slice(text.get(..end).unwrap_or_default());
            text.drain(..=end);
            match line.map_err(|e| format!("the vmd sent no line of a report: {e}"))? {
                Line::Finding(finding) => found.take(finding),
                Line::Alive => {}
                Line::Done(totals) => {
                    found.add(totals);
                    return Ok(());
                }
                Line::Failed(why) => return Err(why),
            }
        }
        if text.len() > MAX_LINE {
            return Err("the vmd sent a line over the limit".into());
        }
    }
}

/// Waits for bytes; at least one.
fn receive(reader: &PipeReader, chunk: &mut [u8], why_end: WhyEnd<'_>) -> Result<usize, String> {
    let end = Instant::now() + SILENCE;
    loop {
        if let Some(why) = why_end() {
            return Err(why.into());
        }
        match poll(&mut [PollFd::new(reader, PollFlags::IN)], Some(&STEP)) {
            Ok(0) if Instant::now() >= end => {
                return Err(format!("the vmd was silent for {} s", SILENCE.as_secs()));
            }
            Ok(0) | Err(Errno::INTR) => continue,
            other => other.map_err(|e| e.to_string())?,
        };
        match rustix::io::read(reader, &mut *chunk) {
            Ok(0) => return Err("the vmd ended".into()),
            Err(Errno::INTR) => {}
            other => return other.map_err(|e| e.to_string()),
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
