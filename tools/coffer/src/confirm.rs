//! Asks before something is lost.
//!
//! Knows no command. Asks on a terminal only: without one, or with `--json`, `--yes` is needed.

use crate::error::UsageError;
use std::io::{self, BufRead, IsTerminal, Write};

/// Longest answer that is read, in bytes; names have at most 64.
const MAX_ANSWER: u64 = 256;

/// What is about to be done, and whether the user may be asked.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// For example `deleting VM web01`.
    pub(crate) what: String,
    /// What is lost, as a sentence.
    pub(crate) loss: String,
    /// The name that must be typed.
    pub(crate) name: &'a str,
    /// `--yes` was said.
    pub(crate) yes: bool,
    /// `--json` was said: nothing but documents may be printed.
    pub(crate) json: bool,
}

impl Question<'_> {
    /// Returns when it is meant.
    pub(crate) fn ask(&self) -> Result<(), UsageError> {
        if self.yes {
            return Ok(());
        }
        let stdin = io::stdin();
        if self.json || !stdin.is_terminal() {
            return Err(UsageError::NobodyToAsk { what: self.what.clone() });
        }
        self.answer(&mut stdin.lock(), &mut io::stderr())
    }

    fn answer(&self, input: &mut impl BufRead, output: &mut impl Write) -> Result<(), UsageError> {
        let asked = write!(output, "{} Type {} to go on: ", self.loss, self.name);
        asked.and_then(|()| output.flush()).map_err(|_| UsageError::NotConfirmed)?;
        let mut line = String::new();
        let read = io::Read::take(input, MAX_ANSWER).read_line(&mut line);
        match read {
            Ok(_) if line.trim() == self.name => Ok(()),
            _ => Err(UsageError::NotConfirmed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(yes: bool, json: bool) -> Question<'static> {
        let (what, loss) = ("deleting VM web01".to_owned(), "All is lost.".to_owned());
        Question { what, loss, name: "web01", yes, json }
    }

    #[test]
    fn only_the_name_is_a_yes() {
        for (typed, good) in [
            ("web01\n", true),
            (" web01 ", true),
            ("yes\n", false),
            ("", false),
            ("web010\n", false),
        ] {
            let mut shown = Vec::new();
            let answer = question(false, false).answer(&mut typed.as_bytes(), &mut shown);
            assert_eq!(answer.is_ok(), good, "{typed:?}");
            assert_eq!(shown, b"All is lost. Type web01 to go on: ");
        }
    }

    #[test]
    fn yes_and_json_do_not_ask() {
        assert!(question(true, true).ask().is_ok());
        assert!(matches!(question(false, true).ask(), Err(UsageError::NobodyToAsk { .. })));
    }
}
