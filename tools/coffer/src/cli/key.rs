//! `coffer key`.

use super::name_parser;
use clap::Subcommand;
use std::path::PathBuf;

/// Verbs of keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Show providers and keys: who can give keys, and what they are for.
    Status,
    /// Write the sealed backup of the native provider to a file, and tell hostd that it is safe.
    Backup {
        /// File to write, best on another machine or medium.
        file: PathBuf,
        /// Replace FILE when it exists.
        #[arg(long)]
        force: bool,
    },
    /// Give VMs a new key; data is not rewritten (shallow recrypt).
    Rotate {
        /// Only this VM; all by default.
        #[arg(long, value_name = "NAME", value_parser = name_parser())]
        vm: Option<String>,
    },
}
