//! Programs that people run on a home, through hostd and vmd, in both modes: what they check of their own data holds,
//! also after a crash.
//!
//! Each takes seconds as a part of tools/test, and does more with `COFFER_LONG=1`.

mod git;
mod images;
mod postgres;
mod sqlite;
mod storm;
mod trees;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tests::command::run_command;
use tests::host::Host;
use tests::scratch::mounts_below;
use tests::{skip, wait};

/// Ways to mount a home.
const MODES: [&str; 2] = ["--shared", "--exclusive"];

/// A host whose VM `web01` has its home mounted in a mode.
fn host_with_home(mode: &str) -> Host {
    let host = Host::start();
    fs::set_permissions(host.scratch().path(), fs::Permissions::from_mode(0o711)).unwrap();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["vm", "mount", "web01", mode]).ok();
    host
}

/// Mounts the home anew, so that all is read from the storage.
fn remount(host: &Host, mode: &str) {
    // What was closed may be open a little longer, in a loop device that goes for one.
    wait::until_true("the home is unmounted", || host.coffer(&["vm", "umount", "web01"]).code == 0);
    assert!(mounts_below(&host.run_dir()).is_empty());
    host.coffer(&["vm", "mount", "web01", mode]).ok();
}

/// Kills the vmd, and waits until hostd has a new one serve a new mount.
fn crash(host: &Host) {
    let restarts = |host: &Host| host.json(&["vm", "show", "web01"])["vmd_restarts"].as_u64();
    let before = restarts(host);
    host.kill_vmds();
    wait::until_true("the home is back", || {
        restarts(host) > before && fs::read_dir(host.home("web01")).is_ok()
    });
}

/// Sizes of a load in a normal and in a long run.
fn sized(normal: u32, long: u32) -> u32 {
    if skip::is_long() { long } else { normal }
}

/// Runs a program in a folder; it must succeed. Gives back what it said.
#[track_caller]
fn program<S: AsRef<OsStr>>(folder: &Path, name: &str, args: &[S]) -> String {
    let mut command = Command::new(name);
    command.current_dir(folder).args(args);
    run_command(command, None, wait::PROGRAM).ok()
}
