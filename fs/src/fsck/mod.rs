//! What a check of a VM reports: findings, one after the other, and a count at the end.
//!
//! Owns the shape of a report and its limits, and the check of what lies around the home (`folder`); the home itself
//! is checked by [`crate::home::check`], which needs its key. Must not know who reads a report. Flow: a check hands
//! each [`Finding`] to a [`Report`], which counts it and passes it on as a [`Line`] while there is room.

mod folder;

pub use folder::{Claims, check_folder};

use serde::{Deserialize, Serialize};
use std::io;

/// Most findings that are passed on; the others are counted. Whoever has so many needs a backup, not a longer list,
/// and a report must fit in memory at its reader.
pub const MAX_FINDINGS: u64 = 1000;

/// Longest path in a finding, in bytes; of a longer one the end is shown.
pub const MAX_PATH: usize = 1024;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// Something is not as it was written, and may be lost.
    Damaged,
    /// Remains of work that was cut short; they harm nothing.
    Leftover,
}

/// What can be done about a finding without a risk for data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is", deny_unknown_fields)]
pub enum Mend {
    /// Nothing, only its owner can decide.
    Not {
        /// What the owner can do.
        remedy: String,
    },
    /// A repair would do this.
    Possible {
        /// In words that follow "a repair".
        how: String,
    },
    /// A repair did it.
    Done {
        /// In words that follow "a repair".
        how: String,
    },
    /// A repair tried, and changed nothing.
    Failed {
        /// In words that follow "a repair".
        how: String,
        /// Why not.
        reason: String,
    },
}

impl Mend {
    /// Nothing but this advice.
    pub fn not(remedy: impl Into<String>) -> Mend {
        Mend::Not { remedy: remedy.into() }
    }

    /// Says what a repair would do, or does it.
    pub fn by<E: std::fmt::Display>(
        how: &str,
        repair: bool,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Mend {
        let how = how.to_owned();
        if !repair {
            return Mend::Possible { how };
        }
        match work() {
            Ok(()) => Mend::Done { how },
            Err(error) => Mend::Failed { how, reason: error.to_string() },
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Path below the VM folder, as [`shown_path`] writes it.
    pub path: String,
    /// Path in the mounted home, likewise, where the names of the home are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<String>,
    /// How bad it is.
    pub grade: Grade,
    /// What is wrong.
    pub what: String,
    /// What can be done.
    pub mend: Mend,
}

/// Counts of a whole check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Files, folders, links and others that were looked at.
    pub objects: u64,
    /// Findings of [`Grade::Damaged`] that were not mended.
    pub damaged: u64,
    /// Findings of [`Grade::Leftover`] that were not mended.
    pub leftovers: u64,
    /// Findings that were mended.
    pub mended: u64,
    /// Findings that were counted only.
    pub unlisted: u64,
}

/// One piece of a report, in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "line", content = "with")]
pub enum Line {
    /// Something was found.
    Finding(Finding),
    /// Nothing was found for a while, but the check goes on.
    Alive,
    /// The check came to its end.
    Done(Totals),
    /// The check could not go on.
    Failed(String),
}

/// Counts findings and passes them on.
pub struct Report<'a> {
    totals: Totals,
    listed: u64,
    emit: &'a mut dyn FnMut(&Line) -> io::Result<()>,
    is_heard: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").field("totals", &self.totals).finish_non_exhaustive()
    }
}

impl<'a> Report<'a> {
    /// A report whose lines go to `emit`.
    pub fn new(emit: &'a mut dyn FnMut(&Line) -> io::Result<()>) -> Report<'a> {
        Report { totals: Totals::default(), listed: 0, emit, is_heard: &(|| true) }
    }

    /// The same, whose reader can leave: `is_heard` tells before each object whether somebody still reads.
    #[must_use]
    pub fn heard_by(self, is_heard: &'a dyn Fn() -> bool) -> Report<'a> {
        Report { is_heard, ..self }
    }

    /// Whether somebody still reads.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        (self.is_heard)()
    }

    /// Counts an object that was looked at.
    pub fn looked_at(&mut self) {
        self.totals.objects += 1;
    }

    /// Says that the check goes on.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn alive(&mut self) -> io::Result<()> {
        (self.emit)(&Line::Alive)
    }

    /// Counts a finding, and passes it on unless there were too many.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn found(&mut self, finding: Finding) -> io::Result<()> {
        let count = match (&finding.mend, finding.grade) {
            (Mend::Done { .. }, _) => &mut self.totals.mended,
            (_, Grade::Damaged) => &mut self.totals.damaged,
            (_, Grade::Leftover) => &mut self.totals.leftovers,
        };
        *count += 1;
        if self.listed >= MAX_FINDINGS {
            self.totals.unlisted += 1;
            return Ok(());
        }
        self.listed += 1;
        (self.emit)(&Line::Finding(finding))
    }

    /// The counts so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }
}

/// A path for people: UTF-8 as it is; control characters, backslashes and all other bytes escaped as in C.
///
/// Names come from guests, and are shown in terminals.
pub fn shown_path(path: &[u8]) -> String {
    let cut = path.len().saturating_sub(MAX_PATH);
    let mut shown = String::from(if cut > 0 { "..." } else { "" });
    for chunk in path[cut..].utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        shown.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    shown
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
