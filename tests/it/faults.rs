//! Data planes that do not answer, and processes that pretend to be one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::client::Client;
use tests::host::Host;
use tests::needs;
use tests::process::{Signal, send};
use tests::wait::until_true;

fn host_with_disk_attached() -> Host {
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    host
}

#[test]
fn a_hung_data_plane_hangs_nobody_and_is_ended_by_force() {
    needs!(Root, Program("qemu-io"));
    let mut host = host_with_disk_attached();
    host.coffer(&["vm", "mount", "web01"]).ok();
    let client = Client::connect(&host, "web01", "data");
    let vmd = host.vmds()[0];
    send(vmd, Signal::STOP);

    // More than its socket has room for: each is given up, none waits for ever.
    for _ in 0..7 {
        host.coffer(&["vm", "show", "web01"]).ok();
    }
    // Nobody knows of the client now, so nothing may cut it off.
    host.coffer(&["disk", "detach", "web01", "data"]).refused(6, &["web01", "--force"]);
    host.coffer(&["vm", "lock", "web01"]).refused(6, &["web01", "--force"]);
    assert_eq!(host.vmds(), [vmd]);

    let start = Instant::now();
    host.coffer(&["vm", "lock", "web01", "--force"]).ok();
    assert!(
        start.elapsed() < Duration::from_secs(50),
        "it waited for answers: {:?}",
        start.elapsed()
    );
    assert_eq!(host.state("web01"), "locked");
    until_true("the end of the hung vmd", || host.vmds().is_empty());
    drop(client);
    host.coffer(&["vm", "unlock", "web01"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    host.stop();
}

#[test]
fn a_data_plane_that_was_left_alone_is_not_locked_around_and_is_found_again() {
    needs!(Root);
    let mut host = host_with_disk_attached();
    let vmd = host.vmds()[0];
    host.kill();
    // After hostd: the kernel lets a stopped process group go on when it becomes an orphan.
    send(vmd, Signal::STOP);
    host.up();
    // It serves on once it goes on, so a lock that said "locked" now would not be true.
    host.coffer(&["vm", "lock", "web01", "--force"]).refused(6, &["web01"]);
    send(vmd, Signal::CONT);
    until_true("the adoption", || host.state("web01") == "running");
    assert_eq!(host.vmds(), [vmd]);
    host.coffer(&["vm", "lock", "web01"]).ok();
    until_true("its end", || host.vmds().is_empty());
}

/// A process in the place of a vmd: it says what it is told to, and gives away no descriptors.
const PRETENDER: &str = r#"
import json, os, socket, sys
path, answer = sys.argv[1], json.loads(sys.argv[2])
if os.path.exists(path):
    os.unlink(path)
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.bind(path)
server.listen(4)
answer["pid"] = 1
print("ready", flush=True)
while True:
    link, _ = server.accept()
    while True:
        asked = link.recv(65536)
        if not asked:
            break
        link.send(json.dumps(answer).encode())
"#;

#[test]
fn a_pretender_is_not_adopted() {
    needs!(Root, Program("python3"));
    let mut host = Host::start();
    for vm in ["a", "b"] {
        host.coffer(&["vm", "create", vm]).ok();
    }
    let other = host.json(&["vm", "show", "b"])["id"].as_str().unwrap().to_owned();
    host.kill();
    let precious = host.scratch().join("precious");
    fs::write(&precious, "stays").unwrap();
    let run = host.run_dir().join("vm/a");
    fs::create_dir_all(&run).unwrap();
    let answer = serde_json::json!({
        "is": "report", "link_version": hostd_api::link::LINK_VERSION, "pid": 1, "id": other, "vm": "b",
        "confinement": [], "engine": "aws-lc", "home": host.scratch().path(),
        "disks": [{"disk": "zzz", "id": other, "read_only": false, "socket": precious, "clients": 0,
                   "bytes_read": 0, "bytes_written": 0}],
    });
    let mut pretender = Command::new("python3")
        .args(["-c", PRETENDER])
        .arg(run.join("vmd.sock"))
        .arg(answer.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(pretender.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");

    host.up();
    assert_eq!(host.state("b"), "unlocked", "b does not run");
    assert_eq!(host.state("a"), "unlocked", "a does not run");
    let status = host.coffer(&["host", "status"]).ok();
    assert!(status.contains("left alone"), "{status}");
    host.coffer(&["disk", "detach", "b", "zzz", "--force"]).refused(6, &["not attached"]);
    assert!(precious.exists());
    pretender.kill().unwrap();
    pretender.wait().unwrap();
}
