//! SIGKILL of hostd, of a vmd, of everything, at many moments: what was acknowledged is there afterwards.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tests::host::{Host, pattern};
use tests::nbd::Nbd;
use tests::scratch::mounts_below;
use tests::{needs, process, wait};

/// Bytes of one record; not a multiple of 4096, so that units are shared.
const RECORD: usize = 9 * 512;

/// Records that fit on the test disk.
const RECORDS: usize = 4000;

fn host_with_disk() -> Host {
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "32M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    host
}

fn offset(number: usize) -> u64 {
    u64::try_from(number * RECORD).unwrap()
}

fn record(number: usize) -> Vec<u8> {
    pattern(RECORD, u32::try_from(number).unwrap() + 1)
}

/// Writes and flushes records until the connection breaks or it is told to stop; counts what was acknowledged.
struct Writer {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    durable: Arc<Mutex<usize>>,
}

impl Writer {
    fn start(socket: PathBuf, first: usize) -> Self {
        let (stop, durable) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(first)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&durable));
        let thread = thread::spawn(move || {
            let Ok(mut nbd) = Nbd::open(&socket, "data") else { return };
            for number in first..RECORDS {
                let done = nbd.write(offset(number), &record(number)).and_then(|()| nbd.flush());
                if done.is_err() || told.load(Ordering::Relaxed) {
                    return;
                }
                *count.lock().unwrap() = number + 1;
            }
        });
        Self { thread: Some(thread), stop, durable }
    }

    fn durable(&self) -> usize {
        *self.durable.lock().unwrap()
    }

    fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.durable()
    }
}

/// Checks every acknowledged record.
fn check(host: &Host, durable: usize) {
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    for number in 0..durable {
        assert!(
            nbd.read(offset(number), RECORD).unwrap() == record(number),
            "record {number} of {durable}"
        );
    }
}

/// Attaches the disk unless this hostd already serves it.
fn attach(host: &Host) {
    if host.json(&["disk", "list", "web01"])[0]["state"] != "attached" {
        host.coffer(&["disk", "attach", "web01", "data"]).ok();
    }
}

#[test]
fn a_vmd_serves_on_while_hostd_is_dead_and_is_adopted() {
    needs!(Root, Fuse);
    let mut host = host_with_disk();
    host.coffer(&["vm", "mount", "web01"]).ok();
    let vmds = host.vmds();
    assert_eq!(vmds.len(), 1);
    let writer = Writer::start(host.socket("web01", "data"), 0);
    wait::until_true("the first records", || writer.durable() > 5);
    host.kill();
    let at_death = writer.durable();
    wait::until_true("records while hostd is dead", || writer.durable() > at_death + 5);
    fs::write(host.home("web01").join("alone"), "written without hostd").unwrap();
    host.up();
    let shown = host.json(&["vm", "show", "web01"]);
    assert_eq!(
        (shown["state"].as_str(), shown["vmd_pid"].as_i64()),
        (Some("running"), Some(i64::from(vmds[0])))
    );
    assert_eq!(shown["disks"][0]["state"], "attached");
    assert_eq!(shown["home"].as_str().unwrap(), host.home("web01").to_str().unwrap());
    let after = writer.durable();
    wait::until_true("records after the adoption", || writer.durable() > after + 5);
    let durable = writer.end();
    check(&host, durable);
    assert_eq!(
        fs::read_to_string(host.home("web01").join("alone")).unwrap(),
        "written without hostd"
    );
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.coffer(&["vm", "umount", "web01"]).ok();
    wait::until_true("the vmd ends", || host.vmds().is_empty());
}

#[test]
fn a_clean_stop_of_hostd_leaves_the_vmd_and_the_next_adopts_it() {
    needs!(Root);
    let mut host = host_with_disk();
    let vmds = host.vmds();
    let writer = Writer::start(host.socket("web01", "data"), 0);
    assert_eq!(host.stop(), Some(0));
    let at_stop = writer.durable();
    wait::until_true("records while hostd is stopped", || writer.durable() > at_stop + 5);
    host.up();
    assert_eq!(host.vmds(), vmds);
    let durable = writer.end();
    check(&host, durable);
}

#[test]
fn a_vmd_that_dies_is_started_again_on_the_same_sockets() {
    needs!(Root, Fuse);
    let host = host_with_disk();
    host.coffer(&["vm", "mount", "web01"]).ok();
    fs::write(host.home("web01").join("kept"), "kept").unwrap();
    let mut durable = 0;
    for round in 1..=3 {
        let writer = Writer::start(host.socket("web01", "data"), durable);
        wait::until_true("records", || writer.durable() > durable + 5);
        host.kill_vmds();
        durable = writer.end();
        wait::until_true("the vmd is back", || {
            let shown = host.json(&["vm", "show", "web01"]);
            shown["state"] == "running" && shown["vmd_restarts"] == round && !host.vmds().is_empty()
        });
        check(&host, durable);
    }
    wait::until_true("the home is back", || {
        fs::read_to_string(host.home("web01").join("kept")).is_ok_and(|text| text == "kept")
    });
    assert_eq!(mounts_below(&host.run_dir()).len(), 1);
}

#[test]
fn a_vmd_that_died_with_hostd_is_found_dead() {
    needs!(Root, Fuse);
    let mut host = host_with_disk();
    host.coffer(&["vm", "mount", "web01"]).ok();
    host.kill();
    host.kill_vmds();
    assert!(fs::read_dir(host.home("web01")).is_err(), "a dead mount is left behind");
    assert!(host.socket("web01", "data").exists(), "a stale socket is left behind");
    host.up();
    assert!(mounts_below(&host.run_dir()).is_empty(), "dead mounts are cleared");
    assert!(Nbd::open(&host.socket("web01", "data"), "data").is_err());
    assert_eq!(host.state("web01"), "unlocked");
    attach(&host);
    host.coffer(&["vm", "mount", "web01"]).ok();
    check(&host, 0);
}

#[test]
fn killing_everything_at_any_moment_loses_nothing_acknowledged() {
    needs!(Root, Fuse);
    let mut host = host_with_disk();
    let mut durable = 0;
    let mut files = 0;
    for round in 0..8_u64 {
        if host.json(&["vm", "show", "web01"])["home"].is_null() {
            host.coffer(&["vm", "mount", "web01"]).ok();
        }
        let writer = Writer::start(host.socket("web01", "data"), durable);
        let end = std::time::Instant::now() + Duration::from_millis(40 + 37 * round);
        while std::time::Instant::now() < end {
            let mut file = File::create(host.home("web01").join(format!("f{files}"))).unwrap();
            file.write_all(&pattern(5000, files)).unwrap();
            file.sync_all().unwrap();
            files += 1;
        }
        host.kill();
        host.kill_vmds();
        durable = writer.end();
        host.up();
        attach(&host);
        check(&host, durable);
        host.coffer(&["vm", "mount", "web01"]).ok();
        for number in 0..files {
            let found = fs::read(host.home("web01").join(format!("f{number}"))).unwrap();
            assert!(found == pattern(5000, number), "file {number} of {files} differs");
        }
    }
    assert!(durable > 0 && files > 0);
}

#[test]
fn killing_hostd_in_the_middle_of_a_verb_leaves_whole_things() {
    needs!(Root);
    let mut host = host_with_disk();
    for round in 0..10_u64 {
        let vm = format!("vm{round}");
        thread::scope(|scope| {
            let said = scope.spawn(|| host.coffer(&["vm", "create", &vm]));
            let disk =
                scope.spawn(|| host.coffer(&["disk", "create", "web01", &vm, "--size", "1M"]));
            thread::sleep(Duration::from_millis(3 * round));
            process::kill(host.pid().unwrap());
            let _ = (said.join(), disk.join());
        });
        host.kill();
        host.up();
        // Made as a whole or not at all: either way the name can be used now.
        let shown = host.coffer(&["vm", "show", &vm]);
        match shown.code {
            0 => {}
            4 => {
                host.coffer(&["vm", "create", &vm]).ok();
            }
            _ => panic!("{shown}"),
        }
        host.coffer(&["vm", "unlock", &vm]).ok();
        let disks = host.json(&["disk", "list", "web01"]);
        for disk in disks.as_array().unwrap() {
            assert_ne!(disk["state"], "damaged", "{disk}");
        }
        if !disks.as_array().unwrap().iter().any(|disk| disk["name"] == vm.as_str()) {
            host.coffer(&["disk", "create", "web01", &vm, "--size", "1M"]).ok();
        }
    }
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    // What a dead hostd had half made is cleared by the next.
    let hidden: Vec<String> =
        names(host.store()).into_iter().filter(|name| name.starts_with('.')).collect();
    assert_eq!(hidden, [".coffer-lock"]);
    // Nor does a payload stay that has no descriptor.
    for payload in names(&host.file("web01", "disks")).iter().filter(|name| name.ends_with(".data"))
    {
        let path = host.file("web01", &format!("disks/{payload}"));
        assert!(path.with_extension("disk").exists(), "{payload}");
    }
}

/// Where the memory with the places for polling is, by inode.
fn polling_memory(pid: i32) -> Option<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let line = maps.lines().find(|line| line.contains("memfd:coffer-polling"))?;
    line.split_whitespace().nth(4).map(str::to_owned)
}

#[test]
fn vmds_from_before_and_after_a_restart_share_their_places_for_polling() {
    needs!(Root);
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    host.options.config = "[limits]\npolling_threads = 1\n".into();
    host.write_config();
    host.init();
    host.up();
    for vm in ["old", "new"] {
        host.coffer(&["vm", "create", vm]).ok();
        host.coffer(&["disk", "create", vm, "data", "--size", "1M"]).ok();
    }
    host.coffer(&["disk", "attach", "old", "data"]).ok();
    let old = host.vmds();
    for _ in 0..2 {
        host.kill();
        host.up();
    }
    host.coffer(&["disk", "attach", "new", "data"]).ok();
    let vmds = host.vmds();
    assert!(vmds.len() == 2 && vmds.contains(&old[0]), "{old:?} {vmds:?}");
    let [one, other] = [0, 1].map(|at| polling_memory(vmds[at]));
    assert!(one.is_some());
    assert_eq!(one, other);

    // With another number of places there are two.
    host.kill();
    host.options.config = "[limits]\npolling_threads = 2\n".into();
    host.write_config();
    host.up();
    host.coffer(&["disk", "detach", "new", "data"]).ok();
    host.coffer(&["disk", "attach", "new", "data"]).ok();
    let vmds = host.vmds();
    let [one, other] = [0, 1].map(|at| polling_memory(vmds[at]));
    assert!(one.is_some() && other.is_some() && one != other, "{one:?} {other:?}");
}

/// strace on a running hostd, which ends it by SIGKILL when a thread makes a call for the `time`-th time.
struct KillAt {
    strace: std::process::Child,
    hostd: i32,
}

impl KillAt {
    fn call(pid: i32, call: &str, time: u32) -> Self {
        let mut strace = std::process::Command::new("strace");
        let (trace, kill) =
            (format!("trace={call}"), format!("inject={call}:signal=KILL:when={time}"));
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &kill]);
        let tracer =
            Self { strace: strace.args(["-p", &pid.to_string()]).spawn().unwrap(), hostd: pid };
        wait::until_true("strace is attached", || {
            let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
            tasks.all(|task| {
                let status = fs::read_to_string(task.path().join("status"));
                status.is_ok_and(|text| !text.contains("TracerPid:\t0\n"))
            })
        });
        tracer
    }
}

impl Drop for KillAt {
    fn drop(&mut self) {
        // A strace that is asked to end waits for a hostd that is dead, and that one for strace to see its threads off.
        let state = fs::read_to_string(format!("/proc/{}/stat", self.hostd)).unwrap_or_default();
        if !state.contains(") Z ") {
            process::send(i32::try_from(self.strace.id()).unwrap(), process::Signal::TERM);
            let end = Instant::now() + Duration::from_secs(3);
            while self.strace.try_wait().unwrap().is_none() && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
        }
        let _gone = self.strace.kill();
        let _ended = self.strace.wait();
    }
}

/// Calls that change files: the steps of a verb. What only opened or made a file is seen at the next of them.
const STEPS: [&str; 8] =
    ["ftruncate", "fsync", "rename", "renameat2", "unlink", "unlinkat", "mkdir", "rmdir"];

/// More than any verb makes of one call.
const MAX_CALLS: u32 = 100;

/// Runs `verb` with hostd killed at each of its steps. After each kill it is said once more, and must be done, or have
/// been done: then it is refused with the code `done`. Tells how often hostd was killed.
fn kill_at_every_step(host: &mut Host, verb: &[&str], done: i32, undo: &[&str]) -> u32 {
    let mut kills = 0;
    for call in STEPS {
        for time in 1.. {
            assert!(time < MAX_CALLS, "{verb:?} makes {call} too often");
            let tracer = KillAt::call(host.pid().unwrap(), call, time);
            let is_whole = host.coffer(verb).code == 0;
            drop(tracer);
            if !is_whole {
                kills += 1;
                host.kill();
                host.up();
                let again = host.coffer(verb);
                assert!([0, done].contains(&again.code), "{verb:?}, {call} {time}: {again}");
            }
            let report = host.json(&["vm", "fsck", "web01"]);
            assert!(report["findings"].as_array().unwrap().is_empty(), "{call} {time}: {report}");
            host.coffer(undo).ok();
            if is_whole {
                break;
            }
        }
    }
    kills
}

#[test]
fn verbs_of_several_steps_can_be_said_again_after_a_kill_at_any() {
    needs!(Root, Program("strace"));
    let mut host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    let create = ["disk", "create", "web01", "data", "--size", "1M"];
    let delete = ["disk", "delete", "web01", "data", "--yes"];
    assert!(kill_at_every_step(&mut host, &create, 5, &delete) > 3);
    host.coffer(&create).ok();
    assert!(kill_at_every_step(&mut host, &delete, 4, &create) > 2);
    let shrink = ["disk", "resize", "web01", "data", "--size", "512K", "--shrink", "--yes"];
    let grow = ["disk", "resize", "web01", "data", "--size", "1M"];
    assert!(kill_at_every_step(&mut host, &shrink, 0, &grow) > 3);
    let (create, delete) = (["vm", "create", "web02"], ["vm", "delete", "web02", "--yes"]);
    assert!(kill_at_every_step(&mut host, &create, 5, &delete) > 3);
}
