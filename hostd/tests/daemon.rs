//! Tests of the program itself: hardening, limits, exit codes, and who may run beside whom.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use hostd_api::client::Client;
use hostd_api::types::{HostStatus, VmInfo};
use rustix::process::{Pid, Signal};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Folders and configuration of a daemon; `vmd` is a program that is there, but never started here.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("ds")).unwrap();
        let place = Self { dir };
        let passphrase = place.path("passphrase");
        std::fs::write(&passphrase, "correct horse\n").unwrap();
        std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(0o600)).unwrap();
        place.configure("run", "ds", "");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("hostd.toml")
    }

    fn configure(&self, run: &str, store: &str, more: &str) {
        let text = format!(
            "run_dir = {:?}\nstate_dir = {:?}\nvmd = \"/bin/true\"\n{more}\n\
             [[datastore]]\nname = \"local\"\npath = {:?}\n\
             [provider.native]\npassphrase_file = {:?}\n",
            self.path(run),
            self.path("state"),
            self.path(store),
            self.path("passphrase")
        );
        std::fs::write(self.config(), text).unwrap();
    }

    fn hostd(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostd"));
        command.args(arguments).arg("--config").arg(self.config());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn init(&self) {
        let made = self.hostd(&["init"]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }

    fn start(&self) -> Daemon {
        self.start_with(|_| ())
    }

    fn start_with(&self, set_up: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = self.hostd(&["--demo"]);
        command.stderr(std::fs::File::create(self.path("log")).unwrap());
        set_up(&mut command);
        let mut child = command.spawn().unwrap();
        let client = Client::new(&self.path("run/hostd.sock"));
        let end = Instant::now() + Duration::from_secs(30);
        while client.get::<HostStatus>("/v1/host").is_err() {
            assert!(Instant::now() < end, "hostd does not answer");
            assert_eq!(child.try_wait().unwrap(), None, "hostd has ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        Daemon { child, client }
    }
}

struct Daemon {
    child: Child,
    client: Client,
}

impl Daemon {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn stop(mut self) {
        rustix::process::kill_process(self.pid(), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_stops_no_verb() {
    let place = Place::new();
    place.init();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let daemon = place.start_with(|command| {
        command.stderr(writer).env("COFFER_LOG", "debug");
    });
    let made = daemon.client.post::<_, VmInfo>("/v1/vms", &json!({"name": "web01"}));
    assert_eq!(made.unwrap().name, "web01");
    daemon.stop();
}

fn ended(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_running_daemon_is_hardened() {
    let place = Place::new();
    place.init();
    let daemon = place.start();
    let pid = daemon.child.id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Umask:\t0077"), "{status}");
    let locked = status.lines().find_map(|l| l.strip_prefix("VmLck:")).unwrap().trim();
    assert_ne!(locked, "0 kB", "nothing is locked");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // An undumpable process belongs to root in /proc, whoever runs it, and denies ptrace to its own user.
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let info = daemon.client.get::<HostStatus>("/v1/host").unwrap();
    if info.key_memory == "secret-memory" {
        assert!(smaps.contains("secretmem"), "the arena is not in secret memory");
    }
    let mode =
        |name: &str| std::fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("run/hostd.sock"), 0o660);
    assert_eq!(mode("state"), 0o700);
    assert_eq!(mode("state/native.keys"), 0o600);
    daemon.stop();
    assert!(!place.path("run/hostd.sock").exists());
}

#[test]
fn too_little_lockable_memory_is_named_with_its_remedy() {
    let place = Place::new();
    place.init();
    // As root the limit does not count; without this capability it does, after the exec.
    let output = Command::new("setpriv")
        .args(["--bounding-set=-ipc_lock,-sys_resource", "prlimit", "--memlock=65536:65536"])
        .arg(env!("CARGO_BIN_EXE_hostd"))
        .arg("--config")
        .arg(place.config())
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(127) => output,
        _ => {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: setpriv (util-linux) cannot be used here\n"),
            );
            return;
        }
    };
    let (code, text) = ended(&output);
    assert_eq!(code, 11, "{text}");
    for word in ["RLIMIT_MEMLOCK", "65536", "LimitMEMLOCK", "ulimit -l"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
}

#[test]
fn two_daemons_do_not_share() {
    let place = Place::new();
    place.init();
    let first = place.start();
    let (code, text) = ended(&place.hostd(&[]).output().unwrap());
    assert_eq!(code, 6, "{text}");
    assert!(
        text.contains("another hostd") && text.contains(&first.child.id().to_string()),
        "{text}"
    );

    // Another runtime folder and key file, the same datastore.
    let other = Place::new();
    other.init();
    let text = std::fs::read_to_string(other.config()).unwrap();
    let shared =
        text.replace(&format!("{:?}", other.path("ds")), &format!("{:?}", place.path("ds")));
    std::fs::write(other.config(), shared).unwrap();
    let (code, text) = ended(&other.hostd(&[]).output().unwrap());
    assert_eq!(code, 10, "{text}");
    assert!(text.contains("no datastore can be used"), "{text}");
    assert!(text.contains(&first.child.id().to_string()), "{text}");
    first.stop();
}

#[test]
fn state_outlives_a_kill() {
    let place = Place::new();
    place.init();
    let mut first = place.start();
    first.client.post::<_, VmInfo>("/v1/vms", &json!({"name": "web01"})).unwrap();
    first.client.post::<_, VmInfo>("/v1/vms/web01/lock", &json!({})).unwrap();
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let second = place.start();
    let vm = second.client.get::<VmInfo>("/v1/vms/web01").unwrap();
    assert_eq!(vm.state, hostd_api::types::VmState::Locked);
    second.stop();
}

#[test]
fn stale_runtime_folders_are_cleared_at_start() {
    let place = Place::new();
    place.init();
    let run = place.path("run/vm/gone");
    std::fs::create_dir_all(run.join("home")).unwrap();
    for socket in ["vmd.sock", "root.sock"] {
        drop(std::os::unix::net::UnixListener::bind(run.join(socket)).unwrap());
    }
    let daemon = place.start();
    assert!(!run.exists());
    daemon.stop();
}

#[test]
fn faults_of_the_set_up_have_their_exit_codes() {
    let place = Place::new();
    let run = |arguments: &[&str]| ended(&place.hostd(arguments).output().unwrap());
    let (code, text) = run(&[]);
    assert_eq!(code, 8, "{text}");
    assert!(text.contains("hostd init"), "{text}");
    place.init();
    let (code, text) = run(&["init"]);
    assert_eq!(code, 5, "{text}");

    std::fs::write(place.path("passphrase"), "wrong\n").unwrap();
    let (code, text) = run(&[]);
    assert_eq!(code, 8, "{text}");
    std::fs::write(place.path("passphrase"), "correct horse\n").unwrap();

    std::fs::write(place.path("state/locked.json"), "{").unwrap();
    let (code, text) = run(&[]);
    assert_eq!(code, 9, "{text}");
    assert!(text.contains("locked.json"), "{text}");
    std::fs::remove_file(place.path("state/locked.json")).unwrap();

    place.configure("run", "no-such-store", "");
    let (code, text) = run(&[]);
    assert_eq!(code, 10, "{text}");
    assert!(text.contains("no-such-store"), "{text}");

    place.configure("run", "ds", "on_stop = \"maybe\"");
    for arguments in [&[][..], &["check-config"]] {
        let (code, text) = run(arguments);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("on_stop") && text.contains("hostd.toml"), "{text}");
    }
    let exposed = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(place.path("passphrase"), exposed).unwrap();
    place.configure("run", "ds", "");
    let (code, text) = run(&[]);
    assert_eq!(code, 8, "{text}");
    assert!(text.contains("chmod 600"), "{text}");
}

#[test]
fn the_printing_verbs_print() {
    let place = Place::new();
    let print = |verb: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_hostd")).arg(verb).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    std::fs::write(place.config(), print("sample-config")).unwrap();
    assert!(place.hostd(&["check-config"]).output().unwrap().status.success());
    let document: serde_json::Value = serde_json::from_str(&print("openapi")).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(Path::new(&place.config()).exists());
}

#[test]
fn systemd_is_told_of_start_and_stop() {
    let place = Place::new();
    place.init();
    let socket = place.path("notify");
    let notified = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    notified.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let next = || {
        let mut text = [0; 64];
        let length = notified.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let daemon = place.start_with(|command| {
        command.env("NOTIFY_SOCKET", &socket);
    });
    assert_eq!(next(), "READY=1");
    daemon.stop();
    assert_eq!(next(), "STOPPING=1");
}

#[test]
fn the_passphrase_can_be_a_credential() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.config()).unwrap();
    let file = format!("passphrase_file = {:?}", place.path("passphrase"));
    std::fs::write(place.config(), text.replace(&file, "credential = \"passphrase\"")).unwrap();
    let (code, text) = ended(&place.hostd(&["init"]).output().unwrap());
    assert_eq!(code, 8, "{text}");
    assert!(text.contains("LoadCredential=passphrase"), "{text}");
    let made =
        place.hostd(&["init"]).env("CREDENTIALS_DIRECTORY", place.dir.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let daemon = place.start_with(|command| {
        command.env("CREDENTIALS_DIRECTORY", place.dir.path());
    });
    daemon.client.post::<_, VmInfo>("/v1/vms", &json!({"name": "web01"})).unwrap();
    daemon.stop();
}

#[test]
fn every_change_leaves_an_audit_line() {
    let place = Place::new();
    place.init();
    let daemon = place.start();
    daemon.client.post::<_, VmInfo>("/v1/vms", &json!({"name": "web01"})).unwrap();
    daemon.client.post::<_, VmInfo>("/v1/vms/web01/umount", &json!({})).unwrap_err();
    daemon.client.get::<VmInfo>("/v1/vms/web01").unwrap();
    daemon.stop();
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    let lines: Vec<_> = log.lines().filter(|l| l.contains("hostd::audit")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    let uid = format!("uid={}", rustix::process::getuid().as_raw());
    for word in [uid.as_str(), "verb=\"vm-create\"", "on=\"web01\"", "outcome=\"done\""] {
        assert!(lines[0].contains(word), "{word} is missing in {}", lines[0]);
    }
    for word in ["verb=\"vm-umount\"", "outcome=\"refused\"", "is not mounted"] {
        assert!(lines[1].contains(word), "{word} is missing in {}", lines[1]);
    }
}
