//! What a test needs of the machine, and saying so when it is not there.
//!
//! A skipped test writes one line to the standard error that the test runner does not hide, so that a run that
//! proved less shows it.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Something that a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// User id 0: mounts, descriptors of others, tmpfs.
    Root,
    /// The FUSE device.
    Fuse,
    /// A program on PATH.
    Program(&'static str),
    /// Loop devices.
    Loop,
    /// The server programs of PostgreSQL, which Debian keeps away from PATH.
    Postgres,
    /// `COFFER_LONG=1`: tests that take minutes.
    Long,
}

impl Need {
    fn missing(self) -> Option<String> {
        let met = match self {
            Need::Root => rustix::process::geteuid().is_root(),
            Need::Fuse => Path::new("/dev/fuse").exists(),
            Need::Program(name) => find_program(name),
            Need::Loop => Path::new("/dev/loop-control").exists(),
            Need::Postgres => postgres().is_some(),
            Need::Long => is_long(),
        };
        if met {
            return None;
        }
        Some(match self {
            Need::Root => "needs root".into(),
            Need::Fuse => "needs /dev/fuse".into(),
            Need::Program(name) => format!("needs `{name}` on PATH"),
            Need::Loop => "needs /dev/loop-control (modprobe loop)".into(),
            Need::Postgres => "needs PostgreSQL's programs in /usr/lib/postgresql/*/bin".into(),
            Need::Long => "takes minutes; COFFER_LONG=1 (tools/test --long) runs it".into(),
        })
    }
}

/// Whether tests that can do more for longer shall.
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("COFFER_LONG").is_some_and(|value| value == "1")
}

/// The folder with the programs of the newest PostgreSQL server here.
#[must_use]
pub fn postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let folders = versions.map(|version| version.path().join("bin"));
    let mut folders: Vec<_> = folders.filter(|bin| bin.join("pgbench").is_file()).collect();
    folders.sort();
    folders.pop()
}

fn find_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Says on the standard error why `test` is skipped; `false` when everything is there.
#[must_use]
pub fn skip(test: &str, needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return false;
    }
    // Not eprintln!: the test runner would hide it.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {}", missing.join(", "));
    true
}

/// Leaves the test, visibly, when the machine lacks something: `needs!(Root, Fuse, Program("qemu-io"))`.
#[macro_export]
macro_rules! needs {
    ($($need:ident $(($name:expr))?),+ $(,)?) => {
        let here = std::thread::current().name().unwrap_or("test").to_owned();
        if $crate::skip::skip(&here, &[$($crate::skip::Need::$need $(($name))?),+]) {
            return;
        }
    };
}
