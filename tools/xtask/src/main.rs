//! Chores of the repository: `cargo xtask tidy` checks the house rules that no compiler knows.
//!
//! Owns the command line. Must not know a rule: those are in `tidy`. A run goes `main` -> `tidy::run` ->
//! one pure check a rule -> the findings, printed as `file:line: [rule] what; remedy`.

mod tidy;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Chores of the repository")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check sizes, dependency edges, `unsafe`, module docs, words and links
    Tidy,
}

fn main() -> ExitCode {
    let Cli { chore: Chore::Tidy } = Cli::parse();
    match report(&mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "xtask: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints the findings and says whether there were none.
fn report(out: &mut impl Write) -> Result<bool, tidy::TidyError> {
    let outcome = tidy::run(&root())?;
    for finding in &outcome.findings {
        writeln!(out, "{finding}")?;
    }
    writeln!(out, "tidy: {} files, {} findings", outcome.files, outcome.findings.len())?;
    Ok(outcome.findings.is_empty())
}

/// The workspace: two folders above this package.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
