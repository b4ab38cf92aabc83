//! The command line as it is typed: nouns, verbs and options, parsed once into rich types.
//!
//! Owns names, help texts and the grammar; runs nothing. `main` parses a `Cli` and hands it to `run`.

mod disk;
mod host;
mod key;
mod vm;

pub(crate) use disk::{DiskName, DiskVerb, ExportArgs, ImportArgs};
pub(crate) use host::HostVerb;
pub(crate) use key::{KeyVerb, ProviderVerb, TpmVerb};
pub(crate) use vm::VmVerb;

use crate::exit;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;

/// Where hostd listens when nothing else is said.
pub(crate) const DEFAULT_SOCKET: &str = "/run/coffer/hostd.sock";

/// Encrypted VMs on KVM hosts: VM folders, disks and keys of this host.
#[derive(Debug, Parser)]
#[command(name = "coffer", version, max_term_width = 100, after_long_help = exit::help_text())]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) common: Common,
    /// What it is about.
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

/// Options that every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Socket of hostd.
    #[arg(long, global = true, env = "COFFER_SOCKET", hide_env_values = true, value_name = "PATH",
          default_value = DEFAULT_SOCKET, help_heading = "Common options")]
    pub(crate) socket: PathBuf,
    /// Print one JSON document; an error is one JSON document on stderr.
    #[arg(long, global = true, help_heading = "Common options")]
    pub(crate) json: bool,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Virtual machines: make, list, mount the home, lock and unlock.
    #[command(subcommand)]
    Vm(VmVerb),
    /// Disks of a VM: make, import, export, attach, resize.
    #[command(subcommand)]
    Disk(DiskVerb),
    /// Keys and key providers: state, backup, rotation.
    #[command(subcommand)]
    Key(KeyVerb),
    /// This host.
    #[command(subcommand)]
    Host(HostVerb),
    /// Print the completion script of a shell.
    #[command(hide = true)]
    Completions {
        /// Shell to complete in.
        shell: Shell,
    },
    /// Write the manual pages, one a command, into a folder.
    #[command(hide = true)]
    Manpages {
        /// Folder that exists.
        folder: PathBuf,
    },
}

/// The clap command, for completions, manual pages and tests.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// A name on the command line; hostd knows the rules, but an empty one would change the request.
fn name_parser() -> NonEmptyStringValueParser {
    NonEmptyStringValueParser::new()
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
