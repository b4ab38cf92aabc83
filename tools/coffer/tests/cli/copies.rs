//! Import and export with the real `qemu-img`, a real NBD server (`qemu-nbd`), and played answers of hostd.

use crate::server::{Exchange, Server};
use crate::tool::{Said, Tool};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for a helper to get ready.
const LIMIT: Duration = Duration::from_secs(20);

/// Whether the programs of Debian's qemu-utils are there; says so when not.
fn have_qemu() -> bool {
    let there = |name: &str| Command::new(name).arg("--version").output().is_ok();
    let both = there("qemu-img") && there("qemu-nbd");
    if !both {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!(
                "SKIPPED: qemu-img or qemu-nbd is not installed (Debian package qemu-utils)\n"
            ),
        );
    }
    both
}

fn wait_for(what: &str, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < LIMIT, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A `qemu-nbd` that serves one raw file, as a vmd would.
struct Nbd(Child);

impl Nbd {
    fn serve(tool: &Tool, file: &Path, extra: &[&str]) -> Self {
        let socket = tool.path("root.sock");
        let child = Command::new("qemu-nbd")
            .args(["-f", "raw", "-x", "root", "-t", "--discard=unmap", "-k"])
            .arg(&socket)
            .args(extra)
            .arg(file)
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-nbd starts");
        wait_for("qemu-nbd", || socket.exists());
        Self(child)
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn disk(tool: &Tool, state: &str, size: u64, attached: bool, read_only: bool) -> Value {
    let mut disk = json!({
        "name": "root", "id": "00000000-0000-4000-8000-000000000002", "size": size, "allocated": 0,
        "unit": 4096, "key_ids": ["native/k1"], "state": state,
    });
    if attached {
        let socket = tool.path("root.sock");
        disk["attachment"] = json!({
            "socket": socket, "uri": format!("nbd+unix:///root?socket={}", socket.display()),
            "read_only": read_only, "clients": 0,
        });
    }
    disk
}

fn vm(disks: &[Value]) -> Value {
    json!({
        "name": "web01", "id": "00000000-0000-4000-8000-000000000001", "datastore": "main",
        "path": "/srv/web01", "state": "unlocked", "key_ids": ["native/k1"], "home": null,
        "vmd_pid": null, "vmd_restarts": 0, "disks": disks,
    })
}

fn exchange(request: &str, body: Option<Value>, answer: &Value) -> Exchange {
    let body = body.map(|body| body.to_string());
    Exchange { request: request.into(), body, status: 200, answer: answer.to_string() }
}

fn refusal(request: &str, code: &str) -> Exchange {
    let answer = json!({"code": code, "message": format!("hostd says {code}"), "remedy": "none"});
    Exchange { status: 409, ..exchange(request, None, &answer) }
}

const DISKS: &str = "POST /v1/vms/web01/disks";
const ATTACH: &str = "POST /v1/vms/web01/disks/root/attach";
const DETACH: &str = "POST /v1/vms/web01/disks/root/detach";
const READY: &str = "POST /v1/vms/web01/disks/root/ready";
const DELETE: &str = "DELETE /v1/vms/web01/disks/root";

/// What hostd is asked at the start of an import of `size` bytes.
fn import_start(tool: &Tool, size: u64) -> Vec<Exchange> {
    let create = json!({"name": "root", "size": size, "unit": null, "importing": true});
    let attach = json!({"read_only": false, "importing": true});
    vec![
        exchange(DISKS, Some(create), &disk(tool, "importing", size, false, false)),
        exchange(ATTACH, Some(attach), &disk(tool, "importing", size, true, false)),
    ]
}

/// What hostd is asked when an import is undone.
fn undo(tool: &Tool) -> [Exchange; 2] {
    let forced =
        exchange(DETACH, Some(json!({"force": true})), &disk(tool, "importing", 512, false, false));
    [forced, exchange(DELETE, None, &json!({"ok": true}))]
}

fn content(size: usize) -> Vec<u8> {
    let mut content = vec![0; size];
    for (at, byte) in content.iter_mut().enumerate().skip(70_000).take(200_000) {
        *byte = u8::try_from(at % 251).expect("below 251");
    }
    content
}

/// A payload of zeros, as hostd makes it.
fn empty_payload(tool: &Tool, size: u64) -> std::path::PathBuf {
    let path = tool.path("payload");
    fs::File::create(&path).and_then(|file| file.set_len(size)).expect("made");
    path
}

fn qemu_img(tool: &Tool, arguments: &[&str]) {
    let run = Command::new("qemu-img").args(arguments).current_dir(tool.folder()).output();
    let run = run.expect("qemu-img runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn an_import_arrives_whole_from_every_format() {
    if !have_qemu() {
        return;
    }
    for format in ["raw", "qcow2", "vmdk"] {
        let tool = Tool::new();
        let plain = content(1 << 20);
        fs::write(tool.path("plain"), &plain).expect("written");
        qemu_img(&tool, &["convert", "-f", "raw", "-O", format, "plain", "image"]);
        let payload = empty_payload(&tool, 1 << 20);
        let _nbd = Nbd::serve(&tool, &payload, &[]);
        let mut exchanges = import_start(&tool, 1 << 20);
        let ready = disk(&tool, "detached", 1 << 20, false, false);
        exchanges.push(exchange(DETACH, Some(json!({"force": false})), &ready));
        exchanges.push(exchange(READY, Some(json!({})), &ready));
        let server = Server::start(&tool.socket(), exchanges);
        let said = tool.run(&["disk", "import", "web01", "root", "image"]);
        assert_eq!(said.exit, Some(0), "{said:?}");
        assert_eq!(server.asked(), [DISKS, ATTACH, DETACH, READY]);
        assert_eq!(said.stdout, "disk web01/root imported, 1 MiB (1048576 bytes), unit 4096\n");
        assert!(said.stderr.contains("import web01/root: 100%\n"), "{said:?}");
        assert!(fs::read(&payload).expect("there") == plain, "content differs, from {format}");
    }
}

#[test]
fn a_server_may_be_slow_to_say_goodbye() {
    if !have_qemu() {
        return;
    }
    let tool = Tool::new();
    fs::write(tool.path("image"), [7; 512]).expect("written");
    let payload = empty_payload(&tool, 512);
    let _nbd = Nbd::serve(&tool, &payload, &[]);
    let ready = disk(&tool, "detached", 512, false, false);
    let mut exchanges = import_start(&tool, 512);
    exchanges.extend([refusal(DETACH, "in-use"), refusal(DETACH, "in-use")]);
    exchanges.extend([exchange(DETACH, None, &ready), exchange(READY, None, &ready)]);
    let server = Server::start(&tool.socket(), exchanges);
    let said = tool.run(&["disk", "import", "web01", "root", "image", "--format", "raw"]);
    assert_eq!(said.exit, Some(0), "{said:?}");
    assert_eq!(server.asked(), [DISKS, ATTACH, DETACH, DETACH, DETACH, READY]);
}

#[test]
fn an_odd_raw_file_is_padded_and_json_says_so() {
    if !have_qemu() {
        return;
    }
    let tool = Tool::new();
    fs::write(tool.path("image"), [7; 1000]).expect("written");
    let payload = empty_payload(&tool, 1024);
    let _nbd = Nbd::serve(&tool, &payload, &[]);
    let mut exchanges = import_start(&tool, 1024);
    let ready = disk(&tool, "detached", 1024, false, false);
    exchanges.extend([exchange(DETACH, None, &ready), exchange(READY, None, &ready)]);
    let _server = Server::start(&tool.socket(), exchanges);
    let said = tool.run(&["disk", "import", "web01", "root", "image", "--format", "raw", "--json"]);
    let document = said.document();
    assert_eq!(document["ok"], true);
    assert_eq!(document["format"], "raw");
    assert_eq!(document["disk"]["size"], 1024);
    assert!(document["warnings"][0].as_str().expect("a text").contains("24 zero bytes"));
    let mut expected = vec![7; 1000];
    expected.resize(1024, 0);
    assert_eq!(fs::read(&payload).expect("there"), expected);
}

#[test]
fn a_failed_copy_deletes_the_disk_and_says_so() {
    if !have_qemu() {
        return;
    }
    let tool = Tool::new();
    fs::write(tool.path("image"), content(1 << 20)).expect("written");
    // Nobody listens at the NBD socket.
    let mut exchanges = import_start(&tool, 1 << 20);
    exchanges.extend(undo(&tool));
    let server = Server::start(&tool.socket(), exchanges);
    let said = tool.run(&["disk", "import", "web01", "root", "image"]);
    assert_eq!(said.exit, Some(13), "{said:?}");
    assert_eq!(server.asked(), [DISKS, ATTACH, DETACH, DELETE]);
    assert!(said.stderr.contains("import of web01/root failed: qemu-img failed"), "{said:?}");
    assert!(said.stderr.contains("the unfinished disk was deleted"), "{said:?}");
}

#[test]
fn a_disk_that_cannot_be_deleted_is_not_hidden() {
    if !have_qemu() {
        return;
    }
    let tool = Tool::new();
    fs::write(tool.path("image"), content(1 << 20)).expect("written");
    let mut exchanges = import_start(&tool, 1 << 20);
    exchanges[1] = refusal(ATTACH, "host-limit");
    exchanges.extend([refusal(DETACH, "wrong-state"), refusal(DELETE, "storage")]);
    let _server = Server::start(&tool.socket(), exchanges);
    let said = tool.run(&["disk", "import", "web01", "root", "image", "--json"]);
    assert_eq!(said.exit, Some(11));
    let error = said.error();
    assert_eq!(error["error"]["code"], "host-limit");
    let message = error["error"]["message"].as_str().expect("a text");
    assert!(message.contains("could not be deleted: hostd says storage"), "{message}");
    let remedy = error["error"]["remedy"].as_str().expect("a text");
    assert!(remedy.contains("coffer disk delete web01 root --yes"), "{remedy}");
}

#[test]
fn the_rest_of_a_killed_import_is_explained() {
    if !have_qemu() {
        return;
    }
    let tool = Tool::new();
    fs::write(tool.path("image"), [1; 512]).expect("written");
    let left = vm(&[disk(&tool, "importing", 512, true, false)]);
    let exchanges =
        vec![refusal(DISKS, "already-exists"), exchange("GET /v1/vms/web01", None, &left)];
    let _server = Server::start(&tool.socket(), exchanges);
    let said = tool.run(&["disk", "import", "web01", "root", "image"]);
    assert_eq!(said.exit, Some(5));
    let command = "coffer disk detach web01 root --force; coffer disk delete web01 root --yes";
    assert!(said.stderr.contains(command), "{said:?}");
}

/// An NBD server that takes connections and never says a word.
fn silent_server(tool: &Tool) -> UnixListener {
    UnixListener::bind(tool.path("root.sock")).expect("a free path")
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

#[test]
fn ctrl_c_and_term_undo_an_import() {
    if !have_qemu() {
        return;
    }
    for name in ["INT", "TERM"] {
        let tool = Tool::new();
        fs::write(tool.path("image"), content(1 << 20)).expect("written");
        let silent = silent_server(&tool);
        let mut exchanges = import_start(&tool, 1 << 20);
        exchanges.extend(undo(&tool));
        let server = Server::start(&tool.socket(), exchanges);
        let mut command = tool.command(&["disk", "import", "web01", "root", "image"]);
        let child = command.spawn().expect("starts");
        let (_connection, _) = silent.accept().expect("qemu-img comes");
        signal(&child, name);
        let said: Said = tool.said(&child.wait_with_output().expect("ends"));
        assert_eq!(said.exit, Some(130), "{said:?}");
        assert_eq!(server.asked(), [DISKS, ATTACH, DETACH, DELETE]);
        assert!(said.stderr.contains("interrupted; the unfinished disk was deleted"), "{said:?}");
    }
}

/// What hostd is asked by an export of a disk that is not attached.
fn export_exchanges(tool: &Tool, size: u64) -> Vec<Exchange> {
    let rest = disk(tool, "detached", size, false, false);
    let attach = json!({"read_only": true, "importing": false});
    vec![
        exchange("GET /v1/vms/web01", None, &vm(std::slice::from_ref(&rest))),
        exchange(ATTACH, Some(attach), &disk(tool, "attached", size, true, true)),
        exchange(DETACH, Some(json!({"force": false})), &rest),
    ]
}

#[test]
fn an_export_holds_the_content_and_is_private() {
    if !have_qemu() {
        return;
    }
    for format in ["raw", "qcow2"] {
        let tool = Tool::new();
        let plain = content(1 << 20);
        fs::write(tool.path("payload"), &plain).expect("written");
        let _nbd = Nbd::serve(&tool, &tool.path("payload"), &["-r"]);
        let server = Server::start(&tool.socket(), export_exchanges(&tool, 1 << 20));
        let said =
            tool.run(&["disk", "export", "web01", "root", "out", "--format", format, "--json"]);
        let document = said.document();
        assert_eq!(document["format"], format);
        assert_eq!(document["file"], "[DIR]/out");
        assert_eq!(document["warnings"], json!([]));
        assert_eq!(server.asked().len(), 3);
        let mode = fs::metadata(tool.path("out")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        qemu_img(&tool, &["convert", "-f", format, "-O", "raw", "out", "back"]);
        assert!(fs::read(tool.path("back")).expect("there") == plain, "content differs, {format}");
    }
}

#[test]
fn an_export_of_an_attached_disk_warns_and_leaves_it_attached() {
    if !have_qemu() {
        return;
    }
    let tool = Tool::new();
    fs::write(tool.path("payload"), content(1 << 20)).expect("written");
    let _nbd = Nbd::serve(&tool, &tool.path("payload"), &["-e", "4"]);
    let attached = vm(&[disk(&tool, "attached", 1 << 20, true, false)]);
    let exchanges = vec![exchange("GET /v1/vms/web01", None, &attached)];
    let server = Server::start(&tool.socket(), exchanges);
    let said = tool.run(&["disk", "export", "web01", "root", "out"]);
    assert_eq!(said.exit, Some(0), "{said:?}");
    assert!(said.stderr.starts_with("warning: disk root is attached for writing"), "{said:?}");
    assert_eq!(server.asked(), ["GET /v1/vms/web01"]);
    assert!(fs::read(tool.path("out")).expect("there") == content(1 << 20));
}

#[test]
fn an_export_replaces_nothing_without_force() {
    let tool = Tool::new();
    fs::write(tool.path("out"), "old").expect("written");
    let server = Server::start(&tool.socket(), Vec::new());
    let said = tool.run(&["disk", "export", "web01", "root", "out"]);
    assert_eq!(said.exit, Some(5), "{said:?}");
    assert!(server.asked().is_empty());
    assert_eq!(fs::read(tool.path("out")).expect("there"), b"old");
}

#[test]
fn an_interrupted_export_leaves_no_plain_data() {
    if !have_qemu() {
        return;
    }
    let tool = Tool::new();
    let silent = silent_server(&tool);
    let server = Server::start(&tool.socket(), export_exchanges(&tool, 1 << 20));
    let child = tool.command(&["disk", "export", "web01", "root", "out"]).spawn().expect("starts");
    let (_connection, _) = silent.accept().expect("qemu-img comes");
    signal(&child, "INT");
    let said = tool.said(&child.wait_with_output().expect("ends"));
    assert_eq!(said.exit, Some(130), "{said:?}");
    assert_eq!(server.asked().len(), 3, "it was detached");
    let left: Vec<_> = fs::read_dir(tool.folder())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name.to_string_lossy().contains("out"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
