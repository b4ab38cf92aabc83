//! The commands: each asks hostd and makes one `Answer`.
//!
//! `run` is the table of contents of the program. Commands parse nothing and print nothing but progress and
//! questions.

mod disk;
mod export;
mod fsck;
mod host;
mod import;
mod key;
mod pages;
mod provider;
mod vm;

use crate::answer::Answer;
use crate::api::Api;
use crate::cli::{Cli, Noun};
use crate::error::CliError;
use crate::progress::Style;
use hostd_api::error::LockReason;
use serde::Serialize;
use std::io::{self, IsTerminal};

/// What every command gets.
#[derive(Debug)]
struct Context {
    api: Api,
    json: bool,
}

impl Context {
    /// How progress is to be shown.
    fn progress(&self) -> Style {
        match (self.json, io::stderr().is_terminal()) {
            (true, _) => Style::Quiet,
            (false, true) => Style::Bar,
            (false, false) => Style::Lines,
        }
    }

    /// Tells people what they should know before long work; programs find it in the answer.
    fn warn(&self, warnings: &[String]) {
        if !self.json {
            crate::answer::warn(warnings);
        }
    }
}

/// Runs the command of `cli`.
pub(crate) fn run(cli: Cli) -> Result<Answer, CliError> {
    let context = Context { api: Api::new(&cli.common.socket), json: cli.common.json };
    match cli.noun {
        Noun::Vm(verb) => vm::run(&context, verb),
        Noun::Disk(verb) => disk::run(&context, verb),
        Noun::Key(verb) => key::run(&context, verb),
        Noun::Host(verb) => host::run(&context, &verb),
        Noun::Completions { shell } => Ok(pages::completions(shell)),
        Noun::Manpages { folder } => pages::manpages(&folder),
    }
}

/// The answer to a command that leaves nothing to show.
#[derive(Debug, Serialize)]
struct Done<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<&'a str>,
}

/// The code of a lock, with vSphere's word for it where there is one.
pub(crate) fn lock_code(lock: &LockReason) -> String {
    let code = kebab(&lock.code);
    match &lock.reason {
        Some(reason) => format!("{code} ({reason})"),
        None => code,
    }
}

/// The name of an enum value in the API, for example `vm-locked`.
pub(crate) fn kebab<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::from("unknown"),
    }
}
