//! The files of the log: appending, flushing, and a new file when one is long.
//!
//! Owns the folder `audit/`: `NNNNNNNNNNNNNNNN.jsonl`, named by the number of the first line in hexadecimal, so that names sort as lines do. Must not know
//! verbs. A line counts as written when `fdatasync` has returned; one that a crash cut short has no line feed, was never
//! acknowledged, and is cut off at the next start.

use super::chain::{self, Act, Head, LineFault};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// A file of this length is followed by a new one: some 100,000 lines, which any editor can show.
const FILE_BYTES: u64 = 64 << 20;

/// Why the log cannot be used.
#[derive(Debug, Error)]
pub enum LogError {
    /// A file operation failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process writes it.
    #[error("another process writes the audit log in {}; stop it", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The log does not hold together.
    #[error("line {line} of {} {fault}; keep the folder as it is for whoever looks into it, and start with an empty one", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Line in that file, from 1 on.
        line: u64,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// An earlier line could not be written.
    #[error("the audit log in {} failed before; nothing is done without it. Free space or mend the storage, and restart", path.display())]
    Failed {
        /// The folder.
        path: PathBuf,
    },
    /// A line cannot be made.
    #[error("a line of the audit log cannot be made: {0}")]
    Line(String),
}

/// The log of one controld, open for writing.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    file_bytes: u64,
    /// Held as long as the log is.
    _lock: File,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open {
        file: File,
        length: u64,
        head: Head,
    },
    /// A write failed: what is in the file is not known, and nothing comes after it.
    Failed,
}

impl Log {
    /// Opens the log in a folder, makes it when there is none, and checks its last file.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(folder: &Path) -> Result<Self, LogError> {
        Self::open_with(folder, FILE_BYTES)
    }

    /// With another length of files.
    pub(crate) fn open_with(folder: &Path, file_bytes: u64) -> Result<Self, LogError> {
        make_folder(folder)?;
        let lock = open(&folder.join("lock"), OFlags::RDWR | OFlags::CREATE)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| LogError::InUse { path: folder.to_owned() })?;
        let state = Mutex::new(resume(folder)?);
        Ok(Self { folder: folder.to_owned(), file_bytes, _lock: lock, state })
    }

    /// Writes a line; it is on the disk when this returns. `time` is seconds since 1970.
    ///
    /// # Errors
    /// [`LogError`]: the line may or may not be there, and no other one can be written until the log is opened again.
    pub fn append(&self, time: u64, act: &Act) -> Result<Head, LogError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Open { file, length, head } = &mut *state else {
            return Err(LogError::Failed { path: self.folder.clone() });
        };
        let made = chain::line(head, time, act).map_err(|e| LogError::Line(e.to_string()))?;
        let (line, next) = made;
        let written = self.write(file, length, &line, next.seq);
        match written {
            Ok(()) => {
                *head = next.clone();
                Ok(next)
            }
            Err(e) => {
                *state = State::Failed;
                Err(e)
            }
        }
    }

    /// The last line.
    ///
    /// # Errors
    /// [`LogError::Failed`].
    pub fn head(&self) -> Result<Head, LogError> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open { head, .. } => Ok(head.clone()),
            State::Failed => Err(LogError::Failed { path: self.folder.clone() }),
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn write(
        &self,
        file: &mut File,
        length: &mut u64,
        line: &str,
        seq: u64,
    ) -> Result<(), LogError> {
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if *length > 0 && length.saturating_add(bytes) > self.file_bytes {
            *file = begin_file(&self.folder, seq)?;
            *length = 0;
        }
        let path = &self.folder;
        file.write_all(line.as_bytes()).map_err(io_fault("write to the audit log in", path))?;
        file.sync_data().map_err(io_fault("flush the audit log in", path))?;
        *length += bytes;
        Ok(())
    }
}

/// Finds the end of the log: every line of the last file is checked, and the start of that file against its name. Older files
/// are for `verify`.
fn resume(folder: &Path) -> Result<State, LogError> {
    let files = files(folder)?;
    let Some((first, path)) = files.last() else {
        return Ok(State::Open { file: begin_file(folder, 1)?, length: 0, head: Head::nothing() });
    };
    let mut head = before(&files, *first)?;
    let broken = |line, fault| LogError::Broken { path: path.clone(), line, fault };
    if *first != head.seq + 1 {
        return Err(broken(1, LineFault::Order { after: head.seq }));
    }
    let mut content = Vec::new();
    let mut file = open(path, OFlags::RDWR | OFlags::APPEND)?;
    file.read_to_end(&mut content).map_err(io_fault("read", path))?;
    let mut whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut numbered = (1..).zip(lines(&content[..whole])).peekable();
    while let Some((number, line)) = numbered.next() {
        match chain::follow(&head, line) {
            Ok((_, next)) => head = next,
            // After a power cut the end of the last line may be there and its beginning not.
            Err(LineFault::Shape(_)) if numbered.peek().is_none() => {
                whole -= line.len() + 1;
                break;
            }
            Err(fault) => return Err(broken(number, fault)),
        }
    }
    if whole < content.len() {
        tracing::warn!(
            "the last line of {} was cut short by a crash, before it was acknowledged; it is cut off",
            path.display()
        );
    }
    let length = u64::try_from(whole).unwrap_or(u64::MAX);
    file.set_len(length).and_then(|()| file.sync_all()).map_err(io_fault("cut", path))?;
    Ok(State::Open { file, length, head })
}

/// The head before the last file: the last line of the file before it.
fn before(files: &[(u64, PathBuf)], first: u64) -> Result<Head, LogError> {
    let Some((_, path)) = files.len().checked_sub(2).and_then(|at| files.get(at)) else {
        // The first file there is; older ones may have been moved away, and then its first line says what it follows.
        return match first {
            1 => Ok(Head::nothing()),
            _ => first_claim(files, first),
        };
    };
    let content = std::fs::read(path).map_err(io_fault("read", path))?;
    let last = lines(&content).next_back().unwrap_or_default();
    claim(last, path, |record, hash| Head { seq: record.seq, hash })
}

/// What the first line of the first file says it follows.
pub(super) fn first_claim(files: &[(u64, PathBuf)], first: u64) -> Result<Head, LogError> {
    let Some((_, path)) = files.first() else { return Ok(Head::nothing()) };
    let content = std::fs::read(path).map_err(io_fault("read", path))?;
    let line = lines(&content).next().unwrap_or_default();
    if line.is_empty() {
        return Ok(Head { seq: first.saturating_sub(1), hash: chain::NOTHING.to_owned() });
    }
    claim(line, path, |record, _| Head { seq: record.seq.saturating_sub(1), hash: record.prev })
}

/// What a line says of itself. Its own hash is checked; that it follows another is not.
fn claim(
    line: &[u8],
    path: &Path,
    head: impl FnOnce(chain::Record, String) -> Head,
) -> Result<Head, LogError> {
    let broken = |fault| LogError::Broken { path: path.to_owned(), line: 0, fault };
    let (record, hash) = chain::alone(line).map_err(broken)?;
    Ok(head(record, hash))
}

/// Lines without their line feeds.
pub(super) fn lines(content: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let is_empty = content.is_empty();
    content.split(|byte| *byte == b'\n').filter(move |_| !is_empty)
}

/// Files of the log with the number of their first line, in order.
pub(super) fn files(folder: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io_fault("read", folder))? {
        let path = entry.map_err(io_fault("read", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_suffix(".jsonl").filter(|number| number.len() == 16);
        if let Some(Ok(first)) = number.map(|number| u64::from_str_radix(number, 16)) {
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files)
}

fn begin_file(folder: &Path, first: u64) -> Result<File, LogError> {
    let path = folder.join(format!("{first:016x}.jsonl"));
    let file = open(&path, OFlags::RDWR | OFlags::APPEND | OFlags::CREATE)?;
    let sync = File::open(folder).and_then(|folder| folder.sync_all());
    sync.map_err(io_fault("flush", folder))?;
    Ok(file)
}

fn make_folder(folder: &Path) -> Result<(), LogError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(io_fault("make folder", folder))
}

fn open(path: &Path, flags: OFlags) -> Result<File, LogError> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR);
    opened.map(File::from).map_err(|e| io_fault("open", path)(e.into()))
}

pub(super) fn io_fault(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { doing, path, source }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
