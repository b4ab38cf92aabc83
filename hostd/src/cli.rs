//! The command line of hostd, and its exit codes.
//!
//! Owns arguments and the way from an error to message and exit code; the work is in `daemon`. Hardens the
//! process before anything else.

use crate::config::{self, Config, ConfigError};
use crate::control;
use crate::daemon::{self, StartError};
use crate::fault::Fault;
use crate::harden::{self, HardenError};
use crate::key_file;
use crate::passphrase::PassphraseFault;
use clap::{Parser, Subcommand};
use hostd_api::error::ErrorCode;
use kms_client::KmsError;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// The host daemon of Coffer.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Make keys although the key file was never backed up. For trying out only.
    #[arg(long)]
    demo: bool,
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the key file of the built-in provider.
    Init(ConfigFile),
    /// Make a backup of the built-in provider the key file of this host.
    Restore {
        /// The file that `coffer key backup` wrote.
        backup: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Check a configuration file.
    CheckConfig(ConfigFile),
    /// Print a configuration file with every key, its default and its meaning.
    SampleConfig,
    /// Print the OpenAPI 3.1 document of the control API.
    Openapi,
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

/// What ends the program.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Harden(#[from] HardenError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
}

/// Runs the program; errors go to standard error, with the exit codes that `coffer` uses too.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(exit_code(&failure))
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    harden::process()?;
    start_log();
    match arguments.command {
        None => Ok(daemon::run(Config::read(&arguments.config)?, arguments.demo)?),
        Some(Verb::Init(file)) => print(&key_file::init(&Config::read(&file.config)?)?),
        Some(Verb::Restore { backup, config }) => {
            print(&key_file::restore(&Config::read(&config.config)?, &backup)?)
        }
        Some(Verb::CheckConfig(file)) => check(&file.config),
        Some(Verb::SampleConfig) => print(config::SAMPLE),
        Some(Verb::Openapi) => {
            let text =
                control::document().map_err(|e| StartError::from(Fault::Bug(e.to_string())))?;
            print(&format!("{text}\n"))
        }
    }
}

fn check(path: &Path) -> Result<(), Failure> {
    let config = Config::read(path)?;
    let mut text = format!("{} is valid.\n", path.display());
    for warning in config.warnings() {
        text.push_str(&format!("warning: {warning}\n"));
    }
    print(&text)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Logs to standard error, filtered by `COFFER_LOG` (`info` when unset). Under systemd the journal adds the time.
fn start_log() {
    let filter = EnvFilter::try_from_env("COFFER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Left on, a standard error that nobody reads any more would panic: the complaint goes there as well.
    let log = log.with_ansi(false).log_internal_errors(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}

fn complain(failure: &Failure) {
    let mut text = format!("hostd: {failure}\n");
    if let Failure::Start(StartError::Fault(fault)) = failure {
        text.push_str(&format!("hostd: {}\n", control::api_error(fault).remedy));
    }
    // Nobody is left to be told when standard error is gone.
    let _written = std::io::stderr().write_all(text.as_bytes());
}

/// Exit code by who must act; the list is in `docs/cli.md`.
fn exit_code(failure: &Failure) -> u8 {
    match failure {
        Failure::Harden(_) => 11,
        Failure::Config(_) => 2,
        Failure::Output(_) => 10,
        Failure::Start(e) => start_code(e),
    }
}

fn start_code(failure: &StartError) -> u8 {
    match failure {
        StartError::Memory(_) | StartError::Runtime(_) => 11,
        StartError::SelfTest(_) => 1,
        StartError::Passphrase(
            PassphraseFault::Unfit(_)
            | PassphraseFault::Differ
            | PassphraseFault::Exposed { .. }
            | PassphraseFault::NoCredentials(_)
            | PassphraseFault::NoTerminal(_)
            | PassphraseFault::Unreadable { .. },
        ) => 8,
        StartError::Provider { fault: KmsError::Exists { .. }, .. } => 5,
        StartError::Provider {
            fault:
                KmsError::Damaged { .. } | KmsError::BackupDamaged { .. } | KmsError::Unsupported { .. },
            ..
        } => 9,
        StartError::Provider { .. } => 8,
        StartError::Fault(fault) => code_of(control::api_error(fault).code),
    }
}

fn code_of(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::Internal | ErrorCode::DataPlane => 1,
        ErrorCode::InvalidArgument => 2,
        ErrorCode::NotFound => 4,
        ErrorCode::AlreadyExists => 5,
        ErrorCode::InUse | ErrorCode::WrongState | ErrorCode::StalePush => 6,
        ErrorCode::VmLocked => 7,
        ErrorCode::ProviderUnavailable | ErrorCode::BackupRequired => 8,
        ErrorCode::Damaged | ErrorCode::Unsupported => 9,
        ErrorCode::NoSpace | ErrorCode::Storage => 10,
        ErrorCode::HostLimit => 11,
        ErrorCode::Denied => 12,
    }
}
