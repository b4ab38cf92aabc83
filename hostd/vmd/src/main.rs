//! The data plane of one VM. Started by hostd, which passes the listening link socket as descriptor 3.

use clap::Parser;
use hostd_api::link::LINK_FD;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use vmd::{daemon, harden};

/// Environment variable with the log filter, in the syntax of `RUST_LOG`.
const LOG_FILTER: &str = "COFFER_LOG";

/// Serves the disks and the home of one VM. hostd starts it; there is nothing to gain by starting it by hand.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Name of the VM, to tell processes apart; hostd says the rest over the link.
    #[arg(long)]
    vm: String,
}

fn main() -> ExitCode {
    let hardened = harden::harden();
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env(LOG_FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    log.with_writer(std::io::stderr).init();
    let _span = tracing::info_span!("vmd", vm = arguments.vm).entered();
    if let Err(e) = hardened {
        tracing::error!("{e}");
        return ExitCode::FAILURE;
    }
    match link().and_then(|link| daemon::run(&link).map_err(|e| e.to_string())) {
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
