//! The command line of Coffer: a client of hostd.
//!
//! Owns the text that people and scripts see; holds no key and decides nothing about data. Flow: `cli` parses
//! -> `run` asks hostd through `api` -> one `Answer` is printed, or one report of `advice` -> `exit`.
#![forbid(unsafe_code)]

mod advice;
mod answer;
mod api;
mod cli;
mod confirm;
mod error;
mod exit;
mod image;
mod interrupt;
mod progress;
mod qemu_args;
mod qemu_img;
mod run;
mod savefile;
mod size;
mod table;
mod time;

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let json = cli.common.json;
    let done = run::run(cli).and_then(|answer| answer.print(json));
    match done {
        Ok(()) => exit::Exit::Ok.into(),
        Err(error) => {
            report(&advice::Report::of(&error), json);
            exit::exit_of(&error).into()
        }
    }
}

/// Help and version go to stdout as they are; wrong arguments are an error like any other.
fn usage(error: &clap::Error) -> ExitCode {
    // The arguments did not parse, so this one is looked for by hand.
    let json = std::env::args_os().any(|argument| argument == "--json");
    if !error.use_stderr() {
        // Nobody is left to tell when the help cannot be printed.
        let _ = error.print();
        return exit::Exit::Ok.into();
    }
    if json {
        report(&advice::Report::of_usage(&error.render().to_string()), true);
    } else {
        let _ = error.print();
    }
    exit::Exit::Usage.into()
}

fn report(report: &advice::Report, json: bool) {
    let text = if json { answer::json_line(report) } else { report.text() };
    // The exit code still tells when stderr is closed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
