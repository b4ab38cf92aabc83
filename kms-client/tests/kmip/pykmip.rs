//! PyKMIP, a KMIP server by others, started on loopback.
//!
//! Owns its processes. Flow: [`PyKmip::start`] runs it by `pykmip_server.py` in a process group of its own and waits for its port;
//! dropping kills the group.

use crate::pki::Authority;
use kms_client::kmip::node::Node;
use kms_client::kmip::tls::Identity;
use kms_client::kmip::values::Version;
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Longest wait for the start of a server, which takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server.
pub(crate) struct PyKmip {
    child: Child,
    pub(crate) port: u16,
}

/// Which TLS it speaks.
#[derive(Clone, Copy)]
pub(crate) enum Suite {
    /// As it comes.
    Stock,
    /// With TLS 1.3.
    Modern,
}

impl PyKmip {
    /// A server with the certificate of `who`, and its keys in `database`. `None`, with a line that says so, where Python has no
    /// such package.
    pub(crate) fn start(
        authority: &Authority,
        who: &str,
        database: &Path,
        suite: Suite,
    ) -> Option<Self> {
        Self::start_for(authority, who, database, suite, None)
    }

    /// The same; `account` is the user and the password that it wants.
    pub(crate) fn start_for(
        authority: &Authority,
        who: &str,
        database: &Path,
        suite: Suite,
        account: Option<[&str; 2]>,
    ) -> Option<Self> {
        if !installed() {
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pykmip_server.py");
        let log = database.with_extension("stderr");
        let mut child = Command::new(python())
            .arg(script)
            .arg(authority.path(&format!("{who}.pem")))
            .arg(authority.path(&format!("{who}.key")))
            .arg(authority.path("ca.pem"))
            .arg(database.parent().unwrap())
            .arg(database)
            .arg(match suite {
                Suite::Stock => "stock",
                Suite::Modern => "modern",
            })
            .arg("0")
            .args(account.into_iter().flatten())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut server = Self { child, port: 0 };
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = receiver.recv_timeout(PATIENCE).unwrap_or_default();
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let port = line.trim().parse();
        server.port = port.unwrap_or_else(|_| panic!("PyKMIP did not start: {}", said()));
        Some(server)
    }

    /// The server as a node.
    pub(crate) fn node(
        &self,
        identity: Arc<Identity>,
        version: Version,
        budgets: kms_client::kmip::Budgets,
    ) -> Node {
        Node::new("127.0.0.1", self.port, None, identity, version, budgets).unwrap()
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(pid) = Pid::from_raw(i32::try_from(self.child.id()).unwrap()) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for PyKmip {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Python of target/venv, which tools/test makes, or the one on PATH.
pub(crate) fn python() -> PathBuf {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python3");
    if venv.is_file() { venv } else { PathBuf::from("python3") }
}

fn installed() -> bool {
    let found = Command::new(python()).args(["-W", "ignore", "-c", "import kmip"]).output();
    let there = found.is_ok_and(|output| output.status.success());
    if !there {
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        let text =
            format!("SKIPPED {name}: needs Python's pykmip (tools/test makes target/venv)\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    }
    there
}
