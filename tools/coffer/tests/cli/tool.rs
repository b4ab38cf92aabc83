//! Runs the `coffer` program in a folder of its own.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder with a socket path, and the program.
#[derive(Debug)]
pub(crate) struct Tool {
    folder: tempfile::TempDir,
}

/// What the program said.
#[derive(Debug)]
pub(crate) struct Said {
    /// Exit code; absent when a signal ended it.
    pub(crate) exit: Option<i32>,
    /// Text on stdout, with `[DIR]` for the folder.
    pub(crate) stdout: String,
    /// Text on stderr, likewise.
    pub(crate) stderr: String,
}

impl Tool {
    /// A new empty folder.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Where the program looks for hostd.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("hostd.sock")
    }

    /// The program with `arguments`; `[DIR]` in them stands for the folder. Its environment holds `PATH` and
    /// the socket only, it has no terminal.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
        let folder = self.folder().to_str().expect("a plain path");
        command
            .args(arguments.iter().map(|argument| argument.replace("[DIR]", folder)))
            .current_dir(self.folder())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("COFFER_SOCKET", self.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.said(&self.command(arguments).output().expect("the program starts"))
    }

    /// `output` with the folder made neutral.
    pub(crate) fn said(&self, output: &Output) -> Said {
        let text = |bytes: &[u8]| {
            let folder = std::fs::canonicalize(self.folder()).expect("a folder");
            String::from_utf8_lossy(bytes).replace(folder.to_str().expect("a plain path"), "[DIR]")
        };
        Said {
            exit: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

impl Said {
    /// The one document on stdout.
    pub(crate) fn document(&self) -> Value {
        assert!(self.stderr.is_empty(), "stderr: {}", self.stderr);
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not one document: {error}\n{}", self.stdout))
    }

    /// The one error document on stderr.
    pub(crate) fn error(&self) -> Value {
        let error: Value = serde_json::from_str(&self.stderr)
            .unwrap_or_else(|error| panic!("stderr is not one document: {error}\n{}", self.stderr));
        assert_eq!(error["exit_code"].as_i64(), self.exit.map(i64::from), "{error}");
        for part in ["code", "message", "remedy"] {
            assert!(error["error"][part].is_string(), "{part} of {error}");
        }
        error
    }
}
