//! What becomes of the lease of a home that could not be served.

use super::*;
use crate::service::Vmd;
use crate::service::endings::Endings;
use crate::testing::TestHost;
use cryptfs::lease::Record;
use hostd_api::link::LinkError;
use std::fs::File;
use std::process::{Child, Command};

/// A service whose vmd is a process that does nothing.
fn idle(dir: &Path, process: &Child) -> Service {
    let vmd = Vmd::found("web01", &dir.join("vmd.sock"), process.id()).unwrap();
    Service {
        run: dir.join("vm"),
        lock: File::open("/dev/null").unwrap().into(),
        leases: Default::default(),
        disks: Default::default(),
        mark: None,
        home: None,
        tls: None,
        process: Process::Up(vmd),
        ends: Vec::new(),
        endings: Arc::new(Endings::new("web01".parse().unwrap())),
    }
}

#[test]
fn a_vmd_that_did_not_answer_is_ended_before_the_lease_goes() {
    let bench = TestHost::new();
    bench.vm("web01");
    let vm = bench.host.inventory.get("web01").unwrap();
    let leases = || {
        let opened = bench.host.open_safe(&vm, &mut vm.try_enter().unwrap()).unwrap();
        Leases::new(&vm.folder, vm.id, &opened.key, bench.host.keyring.arena()).unwrap()
    };
    let holders = || -> Vec<Record> { leases().holders().unwrap() };
    let silent = Fault::Link { vm: "web01".into(), source: LinkError::Peer("no answer".into()) };
    let refused = Fault::Bug("it refused".into());
    for (fault, ends) in [(silent, true), (refused, false)] {
        let mut process = Command::new("sleep").arg("60").spawn().unwrap();
        let service = idle(bench.dir.path(), &process);
        let lease = bench.host.take_lease(&vm, leases(), HomeMode::Exclusive, false).unwrap();
        // As a mount after a restart has it: not in the file tree yet.
        let mut home = Home::adopted(bench.dir.path().join("home"), HomeMode::Exclusive);
        home.hold(lease);
        assert_eq!(holders().len(), 1);
        give_back_after(&fault, home, &service);
        assert!(holders().is_empty());
        let ended = process.try_wait().unwrap().is_some();
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(ended, ends, "{fault}");
    }
}
