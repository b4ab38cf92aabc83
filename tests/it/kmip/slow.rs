//! A key server that takes connections and says nothing, while hostd starts and VMs run.

use super::server::{KeyServer, skipped};
use super::{host_of, set_up};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tests::host::Host;
use tests::{needs, wait};

/// Somebody who listens in the place of a server, and keeps every connection without a word.
struct Silence {
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Silence {
    fn at(port: u16) -> Self {
        let listener = wait::until("the port is free", wait::STEP, || {
            TcpListener::bind(("127.0.0.1", port)).ok()
        });
        listener.set_nonblocking(true).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut open = Vec::new();
            while !end.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((socket, _)) => open.push(socket),
                    Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
                }
            }
        });
        Self { ends, thread: Some(thread) }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn taken_up(host: &Host, vm: &str) -> bool {
    host.log().contains(&format!("the lease of the home of VM {vm} was taken up"))
}

#[test]
fn a_silent_server_keeps_neither_hostd_nor_vms_from_working() {
    needs!(Root, Fuse);
    if skipped("kmip::slow::a_silent_server_keeps_neither_hostd_nor_vms_from_working") {
        return;
    }
    let (mut host, mut server) = host_of(KeyServer::start);
    set_up(&host, &server, "host1");
    for vm in ["web01", "web02"] {
        host.coffer(&["vm", "create", vm]).ok();
        host.coffer(&["disk", "create", vm, "data", "--size", "1M"]).ok();
        host.coffer(&["disk", "attach", vm, "data"]).ok();
        host.coffer(&["vm", "mount", vm, "--exclusive"]).ok();
    }
    host.kill();
    server.down();
    let silence = Silence::at(server.port);
    // It starts, adopts both, and tells that their leases wait.
    host.up();
    for vm in ["web01", "web02"] {
        assert_eq!(host.state(vm), "running");
        std::fs::write(host.home(vm).join("note"), "served on").unwrap();
        assert!(!taken_up(&host, vm));
    }
    // While the keys are asked for again and again, verbs that end something come through.
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.coffer(&["vm", "umount", "web01"]).ok();
    drop(silence);
    server.up();
    wait::until_true("the lease is taken up", || taken_up(&host, "web02"));
    host.coffer(&["vm", "umount", "web02"]).ok();
}
