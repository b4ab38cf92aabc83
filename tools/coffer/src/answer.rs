//! What a command prints on stdout: one text for people, or one JSON document.
//!
//! Every command ends in an `Answer`, so that `--json` prints exactly one document whatever the command.

use crate::error::CliError;
use serde::Serialize;
use std::io::{self, ErrorKind, Write};

/// What a command has to say.
#[derive(Debug)]
pub(crate) struct Answer {
    text: String,
    json: String,
    failure: Option<CliError>,
}

impl Answer {
    /// An answer with the JSON form of `value` and `text` for people.
    pub(crate) fn new<T: Serialize>(value: &T, text: String) -> Self {
        Self { text, json: json_line(value), failure: None }
    }

    /// The command printed its answer, and still ends with this error.
    pub(crate) fn but(mut self, failure: Option<CliError>) -> Self {
        self.failure = failure;
        self
    }

    /// Prints it.
    pub(crate) fn print(self, json: bool) -> Result<(), CliError> {
        let out = if json { &self.json } else { &self.text };
        let mut stdout = io::stdout().lock();
        match stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            // A reader like `head` that has enough is no error.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => return Err(CliError::Output(error)),
        }
        self.failure.map_or(Ok(()), Err)
    }
}

/// Prints warnings for people on stderr.
pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        // A warning that cannot be shown must not stop the work.
        let _ = writeln!(io::stderr(), "warning: {}", crate::table::clean(warning));
    }
}

/// `value` as one JSON document with an end of line.
pub(crate) fn json_line<T: Serialize>(value: &T) -> String {
    #[expect(clippy::expect_used, reason = "our plain structs with string keys always serialize")]
    let mut text = serde_json::to_string_pretty(value).expect("plain data");
    text.push('\n');
    text
}
