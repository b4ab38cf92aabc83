//! Power cuts under a whole host: hostd's state and its datastore lie on the recorded disk, and the verbs are real.
//!
//! Owns the steps, and what must hold when a new hostd comes up on what was left: every VM and every disk is the old one
//! or the new one and opens, what a verb answered is so, a lock that was set is set, flushed bytes are there, the home
//! mounts without force, and a key rotation that was cut short can be done again.

mod check;
mod steps;

use super::ground::{Ground, ORDERED, Storage, XFS};
use super::past::Past;
use super::{number, report};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use steps::Steps;
use tests::cut::Dice;
use tests::host::Host;
use tests::needs;

/// States of a short run: a hostd comes up in each.
const STATES: usize = 16;

/// States on each storage in a long run.
const LONG: usize = 300;

/// Smallest disk.
const DISK: usize = 64 * 1024;

/// A host whose state and datastore are below `root`.
fn host_below(root: &Path) -> Host {
    Host::prepare(|scratch| {
        symlink(root.join("state"), scratch.join("state")).unwrap();
        root.join("store")
    })
}

/// What a VM is, when it is there.
#[derive(Debug, Clone)]
struct Vm {
    there: Past<bool>,
    locked: Past<bool>,
    disks: BTreeMap<String, Disk>,
    /// What the file `notes` of its home holds.
    notes: Past<Option<Vec<u8>>>,
}

/// What a disk is.
#[derive(Debug, Clone)]
struct Disk {
    /// 0 when there is no such disk.
    size: Past<u64>,
    /// As a guest sees it.
    content: Past<Arc<Vec<u8>>>,
}

impl Vm {
    fn new() -> Self {
        let (there, locked) = (Past::new(false), Past::new(false));
        Self { there, locked, disks: BTreeMap::new(), notes: Past::new(None) }
    }
}

/// What was done, as the checks need it.
struct History {
    vms: BTreeMap<String, Vm>,
}

fn try_states(storage: Storage, states: usize) {
    let ground = Ground::new(storage);
    let mut dice = Dice::new(number("COFFER_CUT_SEED").unwrap_or(1) as u64);
    let live = ground.live();
    for folder in ["state", "store"] {
        fs::create_dir(live.folder().join(folder)).unwrap();
    }
    let mut host = host_below(live.folder());
    let before = live.begin();
    live.recorder.step(1, || host.init());
    live.recorder.step(2, || host.up());
    let told = ["(nothing)", "hostd init", "hostd"].map(str::to_owned).to_vec();
    let mut steps = Steps {
        host: &host,
        recorder: &live.recorder,
        dice: dice.clone(),
        told,
        vms: BTreeMap::new(),
    };
    steps.run();
    let Steps { told, vms, .. } = steps;
    let history = History { vms };
    let log = live.recorder.log();
    drop(host);
    let mut record = live.end(before);
    record.log = log;
    let bench = ground.bench();
    record.cuts(states, &mut dice, |cut, image, _| {
        let opened = bench.with(cut, image, |root| history.check(root, cut));
        report(cut, &record, &told, opened.and_then(|judged| judged));
    });
}

#[test]
fn a_host_comes_up_on_what_a_loss_of_power_leaves() {
    needs!(
        Root,
        Fuse,
        Program("losetup"),
        Program("mkfs.ext4"),
        Program("e2fsck"),
        Program("qemu-img")
    );
    try_states(ORDERED, number("COFFER_CUT_STATES").unwrap_or(STATES));
}

#[test]
fn a_host_comes_up_on_other_storage_too() {
    needs!(Root, Fuse, Long, Program("losetup"), Program("mkfs.xfs"), Program("qemu-img"));
    for storage in [ORDERED, XFS] {
        try_states(storage, number("COFFER_CUT_STATES").unwrap_or(LONG));
    }
}
