//! What can go wrong in the command line itself, by fault.
//!
//! Messages name the thing and the reason; what to do about it is said in `advice`, the exit code in `exit`.

use hostd_api::client::ClientError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a command did not do its work.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// hostd said no, or could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Options that do not go together, or an answer of the user that means no.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// A file that is there already.
    #[error("{} exists already", path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// A file of this machine that cannot be read or written.
    #[error("cannot {doing} {}: {reason}", path.display())]
    File {
        /// What was tried: `read`, `write`, `open`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
    /// An image that is not taken.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A program that is needed and not there, or failed.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// A disk of that name is half imported.
    #[error("disk {disk} of VM {vm} is there already: an import of it did not finish")]
    Unfinished {
        /// Name of the VM.
        vm: String,
        /// Name of the disk.
        disk: String,
        /// It is still attached.
        attached: bool,
    },
    /// An import that failed, and what became of the disk.
    #[error("import of {vm}/{disk} failed: {cause}; {}", cleanup_text(cleanup.as_deref()))]
    Import {
        /// Name of the VM.
        vm: String,
        /// Name of the disk.
        disk: String,
        /// Why.
        cause: Box<CliError>,
        /// Why the unfinished disk could not be deleted, when it could not.
        cleanup: Option<Box<CliError>>,
    },
    /// The file of a backup does not hold what was sent.
    #[error("{} does not hold the backup that hostd sent: {what}", path.display())]
    BackupDamaged {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// A check that found damage which is still there.
    #[error("VM {vm} is damaged: {damaged} findings are not mended")]
    VmDamaged {
        /// Name of the VM.
        vm: String,
        /// Findings of damage.
        damaged: u64,
    },
    /// A rotation that did not reach every VM.
    #[error("{failed} of {total} VMs keep their old key; the old key still opens them")]
    RotateIncomplete {
        /// VMs that failed.
        failed: usize,
        /// VMs in all.
        total: usize,
    },
    /// Ctrl-C, or a request to end.
    #[error("interrupted")]
    Interrupted,
    /// The answer could not be printed.
    #[error("cannot print the answer: {0}")]
    Output(io::Error),
}

/// The user asked for something that cannot be meant.
#[derive(Debug, Error)]
pub(crate) enum UsageError {
    /// Nobody can be asked.
    #[error("{what} needs a confirmation, and nobody can be asked here")]
    NobodyToAsk {
        /// What would be done.
        what: String,
    },
    /// Asked, and the answer was not yes.
    #[error("not confirmed; nothing was done")]
    NotConfirmed,
}

/// An image that is not taken.
#[derive(Debug, Error)]
pub(crate) enum ImageError {
    /// The header is of a format that is not imported.
    #[error("{} is a {format} image, which is not imported directly", path.display())]
    Foreign {
        /// The image.
        path: PathBuf,
        /// Its format.
        format: &'static str,
    },
    /// It names other files that would be read.
    #[error("{} would read other files: {}", path.display(), names.join(", "))]
    ReadsOthers {
        /// The image.
        path: PathBuf,
        /// What it names.
        names: Vec<String>,
    },
    /// Its header makes no sense.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Its tables contradict themselves or its length.
    #[error("{} is damaged: {faults} faults in its tables, so parts of it would read as zeros", path.display())]
    Inconsistent {
        /// The image.
        path: PathBuf,
        /// How many.
        faults: u64,
    },
    /// A pipe, a folder, a character device.
    #[error("{} is neither a file nor a block device", path.display())]
    NoStorage {
        /// The path.
        path: PathBuf,
    },
    /// It holds nothing.
    #[error("{} is empty; there is nothing to import", path.display())]
    Empty {
        /// The image.
        path: PathBuf,
    },
}

/// A program that is needed.
#[derive(Debug, Error)]
pub(crate) enum HelperError {
    /// Not installed.
    #[error("{program} is not installed")]
    Missing {
        /// Name of the program.
        program: &'static str,
    },
    /// Could not be started or watched.
    #[error("cannot run {program}: {reason}")]
    NotRun {
        /// Name of the program.
        program: &'static str,
        /// What the kernel said.
        reason: io::Error,
    },
    /// Ended with an error.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// Name of the program.
        program: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its last words on stderr.
        said: String,
    },
    /// Ended because storage is full.
    #[error("{program} failed, storage is full: {said}")]
    NoSpace {
        /// Name of the program.
        program: &'static str,
        /// Its last words on stderr.
        said: String,
    },
    /// Answered in a way that is not understood.
    #[error("{program} gave no valid answer: {reason}")]
    Answer {
        /// Name of the program.
        program: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl CliError {
    /// For `map_err` on a file.
    pub(crate) fn file(
        doing: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |reason| Self::File { doing, path, reason }
    }
}

fn cleanup_text(failed: Option<&CliError>) -> String {
    match failed {
        None => String::from("the unfinished disk was deleted"),
        Some(reason) => format!("the unfinished disk could not be deleted: {reason}"),
    }
}
