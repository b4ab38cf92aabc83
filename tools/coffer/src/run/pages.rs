//! Completion scripts and manual pages, made from the clap command.

use crate::answer::Answer;
use crate::cli::command;
use crate::error::CliError;
use clap_complete::Shell;
use serde::Serialize;
use std::path::Path;

/// The answer of `completions`.
#[derive(Debug, Serialize)]
struct Script<'a> {
    ok: bool,
    script: &'a str,
}

/// The completion script of `shell`.
pub(super) fn completions(shell: Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "coffer", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Answer::new(&Script { ok: true, script: &script }, script.clone())
}

/// The answer of `manpages`.
#[derive(Debug, Serialize)]
struct Written<'a> {
    ok: bool,
    folder: &'a Path,
}

/// Writes `coffer.1`, `coffer-vm.1` and so on into `folder`.
pub(super) fn manpages(folder: &Path) -> Result<Answer, CliError> {
    clap_mangen::generate_to(command(), folder).map_err(CliError::file("write", folder))?;
    let text = format!("manual pages written to {}\n", folder.display());
    Ok(Answer::new(&Written { ok: true, folder }, text))
}
