//! The data plane of one VM. Started by hostd, which passes the listening link socket as descriptor 3; by a developer
//! as `vmd scratch`, which needs no hostd and keeps nothing.

use clap::{Parser, Subcommand};
use hostd_api::link::LINK_FD;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use vmd::scratch::parse_size;
use vmd::{daemon, harden, scratch};

/// Environment variable with the log filter, in the syntax of `RUST_LOG`.
const LOG_FILTER: &str = "COFFER_LOG";

/// Serves the disks and the home of one VM. hostd starts it; there is nothing to gain by starting it by hand.
#[derive(Parser)]
#[command(version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Name of the VM, to tell processes apart; hostd says the rest over the link.
    #[arg(long, required = true)]
    vm: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// For developers: serve an empty disk with a random key on the socket that the caller passed (socket
    /// activation). It lives in memory, unconfined, and is lost at the end.
    Scratch {
        /// Size: bytes, or K, M, G in powers of 1024.
        #[arg(long, default_value = "64M", value_parser = parse_size)]
        size: u64,
        /// Allow no writes.
        #[arg(long)]
        read_only: bool,
    },
}

fn main() -> ExitCode {
    let hardened = harden::harden();
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env(LOG_FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    log.with_writer(std::io::stderr).init();
    let vm = arguments.vm.unwrap_or_else(|| "scratch".to_owned());
    let _span = tracing::info_span!("vmd", vm).entered();
    if let Err(e) = hardened {
        tracing::error!("{e}");
        return ExitCode::FAILURE;
    }
    let outcome = match arguments.command {
        Some(Command::Scratch { size, read_only }) => {
            scratch::run(size, read_only).map_err(|e| e.to_string())
        }
        None => link().and_then(|link| daemon::run(&link).map_err(|e| e.to_string())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// The link socket that hostd passed.
fn link() -> Result<OwnedFd, String> {
    // SAFETY: nothing in this process has opened a descriptor yet that it keeps, so number 3 is either what
    // hostd passed or closed; a closed one is told apart before it is used.
    let fd = unsafe { OwnedFd::from_raw_fd(LINK_FD) };
    match rustix::net::sockopt::socket_acceptconn(&fd) {
        Ok(true) => {
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
                .map_err(|e| e.to_string())?;
            Ok(fd)
        }
        _ => {
            std::mem::forget(fd);
            Err(format!("descriptor {LINK_FD} is no listening socket: vmd is started by hostd"))
        }
    }
}
