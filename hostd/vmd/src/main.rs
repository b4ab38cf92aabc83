//! The data plane of one VM. Started by hostd, which passes the listening link socket as descriptor 3
//! and the VM folder as descriptor 4; by a developer as `vmd scratch`, which needs no hostd and keeps nothing.

use clap::{Parser, Subcommand};
use hostd_api::link::{FOLDER_FD, LINK_FD};
use rustix::fs::FileType;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use vmd::confine::root::Root;
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
    // Left on, a standard error that nobody reads any more would panic: the complaint goes there as well.
    log.with_writer(std::io::stderr).log_internal_errors(false).init();
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
        None => serve(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Leaves the host's file tree before a single request is read.
fn serve() -> Result<(), String> {
    let link = passed(LINK_FD, "listening socket", |fd| {
        rustix::net::sockopt::socket_acceptconn(fd).unwrap_or(false)
    })?;
    let folder = passed(FOLDER_FD, "folder", |fd| {
        rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
    })?;
    close_others()?;
    daemon::run(&link, Root::enter(folder)).map_err(|e| e.to_string())
}

/// Closes what whoever started hostd left open in it: a folder among them would lead back to the host.
fn close_others() -> Result<(), String> {
    let first = libc::c_uint::try_from(FOLDER_FD + 1).map_err(|e| e.to_string())?;
    // SAFETY: nothing in this process owns a descriptor above those that hostd passed yet.
    match unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => Err(format!("cannot close descriptors: {}", std::io::Error::last_os_error())),
    }
}

/// A descriptor that hostd passed by its number.
fn passed(number: RawFd, what: &str, is: impl Fn(&OwnedFd) -> bool) -> Result<OwnedFd, String> {
    // SAFETY: nothing in this process has opened a descriptor yet that it keeps, so the number is either what
    // hostd passed or closed; a closed one is told apart before it is used.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    if !is(&fd) {
        std::mem::forget(fd);
        return Err(format!("descriptor {number} is no {what}: vmd is started by hostd"));
    }
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(|e| e.to_string())?;
    Ok(fd)
}
