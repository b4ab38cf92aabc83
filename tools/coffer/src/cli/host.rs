//! `coffer host`.

use clap::Subcommand;

/// Verbs of the host.
#[derive(Debug, Subcommand)]
pub(crate) enum HostVerb {
    /// Show hostd, its protection of keys, the datastores, and warnings.
    Status,
}
