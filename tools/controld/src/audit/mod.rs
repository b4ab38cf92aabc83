//! The audit log: who did what to which key, when, why and with what outcome.
//!
//! Owns the files of the log and their chain; must not know the verbs it writes about. Flow: a verb calls [`Log::append`], which
//! returns when the line is on the disk, and only then acts or answers; [`verify()`] reads the whole log again.
//!
//! What the chain proves: every line has the hash of the line before it, so a line that was changed, removed, added or moved breaks the chain
//! from there on. Two things no chain in a file can prove: that nobody wrote the whole file anew, and that nothing is missing at its end. For
//! these there are [`Head`]s: number and hash of the last line, kept elsewhere (in the store of controld after every act, and by whoever
//! asks for one). [`verify()`] with a head tells whether the log still has that line where it was.

mod chain;
mod file;
mod verify;

pub use chain::{Act, Head, LineFault, MAX_LINE, Outcome, Record, Target, Who};
pub use file::{Log, LogError};
pub use verify::{Report, Trouble, export, verify};
