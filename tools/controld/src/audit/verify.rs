//! Checking a whole log, and handing it out.
//!
//! Owns reading all files in order; writes nothing, so a log can be checked while it is written, and by whoever has a copy of the
//! folder. Must not know verbs.

use super::chain::{self, Head, LineFault};
use super::file::{self, LogError};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// A line does not hold.
    Line {
        /// The file.
        path: PathBuf,
        /// Line in that file, from 1 on.
        line: u64,
        /// What is wrong.
        fault: LineFault,
    },
    /// A file is named for another line than it begins with, so one before it is missing or was renamed.
    File {
        /// The file.
        path: PathBuf,
        /// Number of the line that should come.
        expected: u64,
    },
    /// The last line has no end: a crash cut it short before it was acknowledged, or somebody cut it.
    Torn {
        /// The file.
        path: PathBuf,
    },
    /// The log ends before a line that somebody has the head of: lines are missing at its end.
    Short {
        /// Number of that line.
        head: u64,
        /// Number of the last one there is.
        last: u64,
    },
    /// The line of a head has another hash: the log was written anew.
    Rewritten {
        /// Number of that line.
        seq: u64,
    },
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Number of the first line there is: 1, unless older files were moved away.
    pub first: u64,
    /// The last line that holds.
    pub last: Head,
    /// Whether the log has the line of the head that was asked for, as it was.
    pub anchored: bool,
}

/// Checks every line of the log in a folder, and that it has the line of `anchor`, where one is given.
///
/// # Errors
/// The outer error says that the log cannot be read, the inner one the first thing that is wrong with it.
pub fn verify(folder: &Path, anchor: Option<&Head>) -> Result<Result<Report, Trouble>, LogError> {
    let mut anchored = anchor.is_some_and(|anchor| anchor.seq == 0);
    let walked = walk(folder, |_, head| {
        if let Some(anchor) = anchor.filter(|anchor| anchor.seq == head.seq) {
            if anchor.hash != head.hash {
                return Err(Trouble::Rewritten { seq: head.seq });
            }
            anchored = true;
        }
        Ok(())
    })?;
    Ok(walked.and_then(|(first, last)| match anchor {
        Some(anchor) if !anchored => Err(Trouble::Short { head: anchor.seq, last: last.seq }),
        _ => Ok(Report { first, last, anchored }),
    }))
}

/// Writes the log as JSON lines from the line `from` on, each with its hash, up to the first line that does not hold.
///
/// # Errors
/// As [`verify`].
pub fn export(
    folder: &Path,
    from: u64,
    out: &mut dyn Write,
) -> Result<Result<Head, Trouble>, LogError> {
    let mut failed = None;
    let walked = walk(folder, |line, head| {
        if head.seq >= from && failed.is_none() {
            let written = out.write_all(line).and_then(|()| out.write_all(b"\n"));
            failed = written.err();
        }
        Ok(())
    })?;
    match failed {
        Some(e) => Err(file::io_fault("write the export of", folder)(e)),
        None => Ok(walked.map(|(_, last)| last)),
    }
}

/// Goes over all lines; the result is the number of the first one and the last head.
fn walk(
    folder: &Path,
    mut each: impl FnMut(&[u8], &Head) -> Result<(), Trouble>,
) -> Result<Result<(u64, Head), Trouble>, LogError> {
    let files = file::files(folder)?;
    let Some((first, _)) = files.first() else { return Ok(Ok((1, Head::nothing()))) };
    let mut head = match first {
        1 => Head::nothing(),
        _ => match file::first_claim(&files, *first) {
            Err(LogError::Broken { path, fault, .. }) => {
                return Ok(Err(Trouble::Line { path, line: 1, fault }));
            }
            claimed => claimed?,
        },
    };
    for (named, path) in &files {
        if *named != head.seq + 1 {
            return Ok(Err(Trouble::File { path: path.clone(), expected: head.seq + 1 }));
        }
        let content = std::fs::read(path).map_err(file::io_fault("read", path))?;
        let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for (line, bytes) in (1..).zip(file::lines(&content[..whole])) {
            let wrong = |fault| Trouble::Line { path: path.clone(), line, fault };
            head = match chain::follow(&head, bytes) {
                Ok((_, head)) => head,
                Err(fault) => return Ok(Err(wrong(fault))),
            };
            if let Err(trouble) = each(bytes, &head) {
                return Ok(Err(trouble));
            }
        }
        if whole < content.len() {
            return Ok(Err(Trouble::Torn { path: path.clone() }));
        }
    }
    Ok(Ok((*first, head)))
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line { path, line, fault } => {
                write!(f, "line {line} of {} {fault}", path.display())
            }
            Self::File { path, expected } => {
                write!(
                    f,
                    "{} does not begin with line {expected}: a file is missing or was renamed",
                    path.display()
                )
            }
            Self::Torn { path } => {
                write!(
                    f,
                    "the last line of {} has no end: a crash or somebody cut it short",
                    path.display()
                )
            }
            Self::Short { head, last } => {
                write!(
                    f,
                    "the log ends with line {last}, but line {head} was there: its end is missing"
                )
            }
            Self::Rewritten { seq } => {
                write!(f, "line {seq} is not the one that was there: the log was written anew")
            }
        }
    }
}
