//! Datastores on a file system whose server hangs: here the home of another host's VM, whose vmd is stopped.

use std::fs::{self, File};
use std::thread;
use tests::host::Host;
use tests::needs;
use tests::process::{Signal, send};
use tests::wait::until_true;

/// A server that hangs until this is dropped, be it by a failed test: nothing that waits for it could be ended before.
struct Hung(i32);

impl Hung {
    /// Stops a server, and waits until it has stopped: until then its threads take requests, and whoever made one of
    /// these cannot be ended.
    fn server(pid: i32) -> Self {
        let hung = Self(pid);
        send(pid, Signal::STOP);
        until_true("the server has stopped", || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            // proc_pid_stat(5): the state follows the name, which is in parentheses.
            tasks.flatten().all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
            })
        });
        hung
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        send(self.0, Signal::CONT);
    }
}

/// Two datastores, of which one is on a file system whose server hangs when it is told to.
fn host_with_two_stores(below: &Host) -> Host {
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    let hung = below.home("store").join("datastore");
    fs::create_dir(&hung).unwrap();
    host.options.config = format!("[[datastore]]\nname = \"hung\"\npath = {hung:?}\n");
    host.write_config();
    host.init();
    host.up();
    for (vm, store) in [("web01", "hung"), ("web02", "local")] {
        host.coffer(&["vm", "create", vm, "--datastore", store]).ok();
        host.coffer(&["disk", "create", vm, "data", "--size", "1M"]).ok();
    }
    host
}

#[test]
fn hostd_starts_although_a_datastore_hangs_and_takes_it_up_later() {
    needs!(Root, Fuse);
    let below = Host::start();
    below.coffer(&["vm", "create", "store"]).ok();
    below.coffer(&["vm", "mount", "store"]).ok();
    let mut host = host_with_two_stores(&below);
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let vmds = host.vmds();
    host.stop();
    let hung = Hung::server(below.vmds()[0]);
    host.up();
    let status = host.json(&["host", "status"]);
    let store = status["datastores"].as_array().unwrap().iter().find(|s| s["name"] == "hung");
    assert!(store.unwrap()["state"].to_string().contains("does not answer"), "{status}");
    host.coffer(&["disk", "attach", "web02", "data"]).ok();
    host.coffer(&["vm", "show", "web01"]).refused(4, &["web01"]);
    host.coffer(&["vm", "create", "web03", "--datastore", "hung"])
        .refused(10, &["hung", "does not answer"]);
    drop(hung);
    // Nobody asks for it; what ran is adopted.
    until_true("the datastore is taken up", || host.coffer(&["vm", "show", "web01"]).code == 0);
    until_true("its VM is adopted", || host.state("web01") == "running");
    assert!(host.vmds().contains(&vmds[0]));
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.stop();
}

#[test]
fn verbs_on_a_datastore_that_hangs_are_refused_and_hold_up_no_others() {
    needs!(Root, Fuse);
    let below = Host::start();
    below.coffer(&["vm", "create", "store"]).ok();
    below.coffer(&["vm", "mount", "store"]).ok();
    let mut host = host_with_two_stores(&below);
    let hung = Hung::server(below.vmds()[0]);
    // More than there are threads for requests.
    thread::scope(|scope| {
        let ask = || {
            let said = host.coffer(&["disk", "create", "web01", "more", "--size", "1M"]);
            said.refused(10, &["hung", "does not answer"]);
        };
        let asked: Vec<_> = (0..80).map(|_| scope.spawn(ask)).collect();
        // A process is started, though hostd has files open on the one that hangs.
        host.coffer(&["disk", "attach", "web02", "data"]).ok();
        asked.into_iter().for_each(|asked| asked.join().unwrap());
    });
    host.coffer(&["host", "status"]).ok();
    drop(hung);
    until_true("the datastore is back", || {
        host.coffer(&["disk", "create", "web01", "more", "--size", "1M"]).code == 0
    });
    host.stop();
}

#[test]
fn lists_and_status_do_not_wait_for_a_datastore_that_hangs() {
    needs!(Root, Fuse);
    let below = Host::start();
    below.coffer(&["vm", "create", "store"]).ok();
    below.coffer(&["vm", "mount", "store"]).ok();
    let mut host = Host::prepare(|_| below.home("store").join("datastore"));
    host.init();
    host.up();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["vm", "list"]).ok();
    let hung = Hung::server(below.vmds()[0]);
    // The first has to find out, the others must not even do that.
    for _ in 0..5 {
        let status = host.json(&["host", "status"]);
        assert!(
            status["datastores"][0]["state"].to_string().contains("does not answer"),
            "{status}"
        );
        assert_eq!(host.json(&["vm", "list"])[0]["name"], "web01");
        assert_eq!(host.json(&["vm", "show", "web01"])["disks"][0]["name"], "data");
    }
    drop(hung);
    until_true("the datastore is back", || {
        !host.coffer(&["host", "status"]).ok().contains("does not answer")
    });
    host.coffer(&["disk", "create", "web01", "more", "--size", "1M"]).ok();
    host.stop();
}

/// Nothing is waited for but what this host has itself; the leases follow when the storage is back.
#[test]
fn what_is_forced_does_not_wait_for_a_datastore_that_hangs() {
    needs!(Root, Fuse);
    let below = Host::start();
    below.coffer(&["vm", "create", "store"]).ok();
    below.coffer(&["vm", "mount", "store"]).ok();
    let mut host = host_with_two_stores(&below);
    host.coffer(&["vm", "create", "web03", "--datastore", "hung"]).ok();
    for vm in ["web01", "web03"] {
        host.coffer(&["vm", "mount", vm, "--exclusive"]).ok();
        fs::write(host.home(vm).join("notes"), "kept").unwrap();
        File::open(host.home(vm).join("notes")).unwrap().sync_all().unwrap();
    }
    let hung = Hung::server(below.vmds()[0]);
    host.coffer(&["vm", "umount", "web01", "--force"]).ok();
    let shown = host.json(&["vm", "show", "web01"]);
    assert!(shown["home_mount"].is_null() && shown["state"] == "unlocked", "{shown}");
    // A process that waits for a call that cannot be broken off keeps what it has until that is over.
    let mut ended = Vec::from_iter((host.vmds().len() == 1).then_some("web01"));
    let said = host.coffer(&["vm", "lock", "web03", "--force"]);
    if said.code == 0 {
        ended.push("web03");
    } else {
        said.refused(1, &["stuck in the kernel"]);
    }
    assert_eq!(host.state("web03"), "locked");
    // There is nothing left to end, and still the lock counts.
    host.coffer(&["vm", "lock", "web01", "--force"]).ok();
    host.coffer(&["disk", "attach", "web02", "data"]).ok();
    drop(hung);
    let lease = |vm: &str| {
        let lease = format!("datastore/{vm}/leases/exclusive.0000000000000001");
        fs::read_to_string(below.home("store").join(lease)).unwrap()
    };
    for vm in ["web01", "web03"] {
        if ended.contains(&vm) {
            until_true("the lease is given back", || lease(vm).contains("\"released\""));
        }
        let unlock = ["vm", "unlock", vm];
        until_true("the datastore is back", || host.coffer(&unlock).code == 0);
        let mount = ["vm", "mount", vm, "--exclusive"];
        until_true("it is mounted again", || host.coffer(&mount).code == 0);
        assert_eq!(fs::read_to_string(host.home(vm).join("notes")).unwrap(), "kept");
        host.coffer(&["vm", "umount", vm]).ok();
    }
    host.stop();
}
