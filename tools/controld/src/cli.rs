//! The command line of controld, and its exit codes.
//!
//! Owns arguments and the way from an error to message and exit code; the work is in `daemon` and `setup`. Hardens the process before anything
//! else: it reads the private key of the authority.

use crate::api;
use crate::audit::{Head, LogError, verify};
use crate::config::{self, Config, ConfigError};
use crate::daemon::{self, StartError};
use crate::harden::{self, HardenError};
use crate::inventory::Name;
use crate::setup::{self, SetupError};
use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// The control plane daemon of Coffer.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the authority unless one is given, the certificate of this controld, and that of the first administrator.
    Init {
        /// Configuration file.
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
        /// Name of the administrator.
        #[arg(long, value_name = "NAME", default_value = "admin")]
        admin: String,
    },
    /// Check an audit log, or a copy of one, without controld.
    AuditVerify {
        /// Its folder.
        folder: PathBuf,
        /// The log must have this line as it was: its number and hash, as the log or the API showed them.
        #[arg(long, value_name = "NUMBER:HASH")]
        head: Option<String>,
    },
    /// Check a configuration file.
    CheckConfig {
        /// Configuration file.
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Print a configuration file with every key, its default and its meaning.
    SampleConfig,
    /// Print the OpenAPI 3.1 document of the API.
    Openapi,
}

/// What ends the program.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Harden(#[from] HardenError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0}")]
    Argument(String),
    #[error("the audit log does not hold: {0}")]
    Broken(String),
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
}

/// Runs the program; errors go to standard error, with the exit codes that `coffer` uses too.
#[must_use]
pub fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = format!("controld: {failure}\n");
            // Nobody is left to be told when standard error is gone.
            let _written = std::io::stderr().write_all(text.as_bytes());
            ExitCode::from(exit_code(&failure))
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    harden::process()?;
    start_log();
    match arguments.command {
        None => Ok(daemon::run(&Config::read(&arguments.config)?)?),
        Some(Verb::Init { config, admin }) => init(&config, &admin),
        Some(Verb::AuditVerify { folder, head }) => audit_verify(&folder, head.as_deref()),
        Some(Verb::CheckConfig { config }) => {
            Config::read(&config)?;
            print(&format!("{} is valid.\n", config.display()))
        }
        Some(Verb::SampleConfig) => print(config::SAMPLE),
        Some(Verb::Openapi) => print(&format!("{:#}\n", api::document())),
    }
}

fn init(path: &Path, admin: &str) -> Result<(), Failure> {
    let config = Config::read(path)?;
    let admin: Name = admin.parse().map_err(|e| Failure::Argument(format!("--admin: {e}")))?;
    let made = setup::init(&config, &admin, daemon::now())?;
    print(&format!(
        "The authority of site {} has the fingerprint {}.\n\
         {admin} is administrator, with the certificate {} and the key {}: give both to that person,\n\
         and remove the key here. Start controld, then make a join token for each host.\n\
         Back up {}: without the key of the authority, all hosts must join anew.\n",
        config.site,
        made.ca,
        made.admin.0.display(),
        made.admin.1.display(),
        config.state_dir.display(),
    ))
}

fn audit_verify(folder: &Path, head: Option<&str>) -> Result<(), Failure> {
    let head = head.map(|text| {
        let wrong = || Failure::Argument(format!("--head: {text:?} is not NUMBER:HASH"));
        let (seq, hash) = text.split_once(':').ok_or_else(wrong)?;
        Ok::<_, Failure>(Head { seq: seq.parse().map_err(|_| wrong())?, hash: hash.to_owned() })
    });
    let head = head.transpose()?;
    match verify(folder, head.as_ref())? {
        Ok(report) => print(&format!(
            "Lines {} to {} hold. The last one is {}:{}{}\n",
            report.first,
            report.last.seq,
            report.last.seq,
            report.last.hash,
            if head.is_some() { ", and the given one is in its place." } else { "." },
        )),
        Err(trouble) => Err(Failure::Broken(trouble.to_string())),
    }
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

/// Exit code by who must act; the list is in `docs/cli.md`.
fn exit_code(failure: &Failure) -> u8 {
    match failure {
        Failure::Config(_) | Failure::Argument(_) => 2,
        Failure::Broken(_) | Failure::Start(StartError::Broken { .. }) => 9,
        Failure::Output(_) | Failure::Log(_) => 10,
        Failure::Harden(_) | Failure::Start(StartError::Listen { .. } | StartError::Runtime(_)) => {
            11
        }
        Failure::Setup(_) | Failure::Start(_) => 1,
    }
}
