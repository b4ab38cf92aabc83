//! Where the programs under test are.
//!
//! Cargo gives a test only the programs of its own package, so they are built here once per test process (nothing
//! happens when they are fresh). `COFFER_BIN_DIR` names a folder with installed ones instead.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Packages whose programs the tests start.
const PROGRAMS: [&str; 3] = ["hostd", "vmd", "coffer"];

/// Path of a program of this workspace: `hostd`, `vmd` or `coffer`.
///
/// # Panics
/// When it cannot be built, or is not in `COFFER_BIN_DIR`.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(prepare).join(name);
    assert!(path.is_file(), "{} is missing; `cargo build --bins` makes it", path.display());
    path
}

fn prepare() -> PathBuf {
    if let Some(folder) = std::env::var_os("COFFER_BIN_DIR") {
        return PathBuf::from(folder);
    }
    let folder = profile_folder();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "-q", "--bins"]).current_dir(project());
    for program in PROGRAMS {
        build.args(["-p", program]);
    }
    if folder.ends_with("release") {
        build.arg("--release");
    }
    let status = build.status().expect("cargo runs");
    assert!(status.success(), "cargo build --bins failed; see above");
    folder
}

/// `target/debug` or `target/release`: two folders above this test program.
fn profile_folder() -> PathBuf {
    let here = std::env::current_exe().expect("a program has a path");
    let folder = here.parent().and_then(Path::parent).expect("tests run from target/PROFILE/deps");
    folder.to_owned()
}

/// Root folder of the project.
#[must_use]
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the project").to_owned()
}
