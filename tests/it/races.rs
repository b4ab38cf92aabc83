//! Many hands at once, and commands that are cut off: one wins, the others are told, and nothing is left half done.

use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use tests::binaries::program;
use tests::host::{Host, write_pattern};
use tests::scratch::mounts_below;
use tests::{needs, process, wait};

/// Runs the same command from many threads, and counts the exit codes.
fn race(host: &Host, count: usize, args: &[&str]) -> Vec<i32> {
    thread::scope(|scope| {
        let all: Vec<_> = (0..count).map(|_| scope.spawn(|| host.coffer(args).code)).collect();
        let mut codes: Vec<i32> = all.into_iter().map(|one| one.join().unwrap()).collect();
        codes.sort_unstable();
        codes
    })
}

#[test]
fn of_many_that_want_the_same_one_wins() {
    needs!(Root, Fuse);
    let host = Host::start();
    assert_eq!(race(&host, 6, &["vm", "create", "web01"]), [0, 5, 5, 5, 5, 5]);
    let create = ["disk", "create", "web01", "data", "--size", "1M"];
    assert_eq!(race(&host, 6, &create), [0, 5, 5, 5, 5, 5]);
    assert_eq!(race(&host, 6, &["disk", "attach", "web01", "data"]), [0, 6, 6, 6, 6, 6]);
    assert_eq!(race(&host, 6, &["vm", "mount", "web01"]), [0, 6, 6, 6, 6, 6]);
    assert_eq!(host.vmds().len(), 1);
    assert_eq!(mounts_below(&host.run_dir()).len(), 1);
    assert_eq!(race(&host, 6, &["disk", "detach", "web01", "data"]), [0, 6, 6, 6, 6, 6]);
    assert_eq!(race(&host, 6, &["vm", "umount", "web01"]), [0, 6, 6, 6, 6, 6]);
    assert_eq!(race(&host, 6, &["vm", "delete", "web01", "--yes"]), [0, 4, 4, 4, 4, 4]);
}

#[test]
fn many_vms_are_made_and_served_at_the_same_time() {
    needs!(Root);
    let host = Host::start();
    let names: Vec<String> = (0..12).map(|number| format!("vm{number}")).collect();
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| {
                host.coffer(&["vm", "create", name]).ok();
                host.coffer(&["disk", "create", name, "data", "--size", "1M"]).ok();
                host.coffer(&["disk", "attach", name, "data"]).ok();
            });
        }
    });
    assert_eq!(host.vmds().len(), names.len());
    let vms = host.json(&["vm", "list"]);
    assert!(vms.as_array().unwrap().iter().all(|vm| vm["state"] == "running"), "{vms}");
    let keys = host.json(&["key", "status"]);
    assert_eq!(
        keys["keys"].as_array().unwrap().len(),
        names.len(),
        "a key of its own for every VM"
    );
}

/// An import under way: the image is large enough for a moment between the first and the last byte.
fn importing(host: &Host) -> Child {
    host.coffer(&["vm", "create", "web01"]).ok();
    let image = host.scratch().join("big.raw");
    write_pattern(&image, 192 << 20, 4);
    let mut import = Command::new(program("coffer"));
    import.env("COFFER_SOCKET", host.run_dir().join("hostd.sock"));
    import.args(["disk", "import", "web01", "root", image.to_str().unwrap()]);
    let child =
        import.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait::until_true("the import runs", || {
        let disks = host.json(&["disk", "list", "web01"]);
        disks[0]["allocated"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    child
}

#[test]
fn an_import_that_is_interrupted_cleans_up() {
    needs!(Root, Program("qemu-img"));
    let host = Host::start();
    let mut import = importing(&host);
    process::send(i32::try_from(import.id()).unwrap(), Signal::INT);
    let status = wait::until("the import ends", wait::STEP, || import.try_wait().unwrap());
    if status.code() == Some(0) {
        // It was done before the signal came: then the disk is whole.
        assert_eq!(host.json(&["disk", "list", "web01"])[0]["state"], "detached");
        return;
    }
    assert_eq!(status.code(), Some(130));
    assert_eq!(host.json(&["disk", "list", "web01"]).as_array().unwrap().len(), 0);
    assert!(!host.file("web01", "disks/root.data").exists());
}

#[test]
fn an_import_that_is_killed_leaves_a_disk_that_is_never_taken_for_whole() {
    needs!(Root, Program("qemu-img"));
    let mut host = Host::start();
    let mut import = importing(&host);
    import.kill().unwrap();
    import.wait().unwrap();
    host.kill();
    host.kill_vmds();
    host.up();
    let disk = host.json(&["disk", "list", "web01"])[0].clone();
    assert_eq!(disk["state"], "importing", "{disk}");
    host.coffer(&["disk", "attach", "web01", "root"]).refused(6, &["root", "import"]);
    let out = host.scratch().join("out.raw");
    host.coffer(&["disk", "export", "web01", "root", out.to_str().unwrap()]).refused(6, &["root"]);
    assert!(!out.exists());
    host.coffer(&["disk", "delete", "web01", "root", "--yes"]).ok();
    let image = host.scratch().join("big.raw");
    host.coffer(&["disk", "import", "web01", "root", image.to_str().unwrap()]).ok();
    assert_eq!(host.json(&["disk", "list", "web01"])[0]["state"], "detached");
}

#[test]
fn a_host_that_drains_leaves_nothing_behind() {
    needs!(Root, Fuse);
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    host.options.config = "on_stop = \"drain\"".into();
    host.write_config();
    host.init();
    host.up();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    host.coffer(&["vm", "mount", "web01"]).ok();
    assert_eq!(host.stop(), Some(0));
    assert!(host.vmds().is_empty());
    assert!(mounts_below(&host.run_dir()).is_empty());
    assert!(!host.socket("web01", "data").exists());
    assert!(!host.run_dir().join("hostd.sock").exists());
}

#[test]
fn a_vmd_that_dies_again_and_again_is_given_up_until_asked() {
    needs!(Root);
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    wait::until("the VM is given up", wait::STEP * 2, || {
        host.kill_vmds();
        (host.state("web01") == "failed").then_some(())
    });
    host.coffer(&["disk", "detach", "web01", "data", "--force"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    assert_eq!(host.state("web01"), "running");
}

/// Sends bytes to the control socket and gives back the answer.
fn talk(host: &Host, request: &str) -> String {
    let mut stream = UnixStream::connect(host.run_dir().join("hostd.sock")).unwrap();
    stream.set_read_timeout(Some(wait::STEP)).unwrap();
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn the_control_api_survives_rubbish_and_says_what_is_wrong() {
    needs!(Root);
    let host = Host::start();
    let mode = fs::metadata(host.run_dir().join("hostd.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "others cannot reach the socket");
    for body in ["{", "{}", "{\"name\":\"a\",\"nmae\":1}", "{\"name\":\"../a\"}", "\u{0}"] {
        let answer = talk(&host, &post("/v1/vms", body));
        assert!(
            answer.starts_with("HTTP/1.1 4") && answer.contains("\"code\""),
            "{body}: {answer}"
        );
    }
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(8 << 20));
    let answer = talk(&host, &post("/v1/vms", &long));
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    for path in ["/v1/vms/..%2f..%2fetc/mount", "/v1/vms/%00/mount", "/v1/nothing"] {
        let answer = talk(&host, &post(path, "{}"));
        assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
    }
    talk(&host, "\0\u{1}rubbish\r\n\r\n");
    let answer = talk(&host, &post("/v1/vms", "{\"name\":\"web01\"}"));
    assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
}
