//! Power cuts under safes, descriptors, leases and payloads, by the code that hostd and vmd call for them.
//!
//! Owns the steps and what must hold: each file is the old one or the new one, whole, and opens; a lease that was
//! taken is there, and epochs never go back; a disk holds every byte that was flushed. The verbs themselves are in
//! `host`.

mod check;
mod steps;

use super::ground::{Ground, ORDERED, OTHERS, Record, Storage};
use super::past::Past;
use super::{STATES, number, report};
use cryptfs::backing::{Backing, DirectBacking, FileBacking};
use cryptfs::descriptor::Descriptor;
use cryptfs::folder::VmFolder;
use cryptfs::lease::{Claim, Holder, Leases, Use};
use cryptfs::name::Name;
use cryptfs::safe::Safe;
use cryptfs::seal::{Body, SealError, Sealed};
use cryptfs::volume::Volume;
use crypto::{Arena, Kek, KeyId};
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use tests::cut::{Dice, Recorder};
use tests::needs;
use uuid::Uuid;

/// Bytes of each disk.
const DISK: usize = 96 * 1024;

/// Disks at the end.
const DISKS: usize = 3;

/// Steps of a recording.
const STEPS: usize = 120;

/// The keys of a VM, and who it is.
struct Keys {
    arena: Arena,
    keks: [(Kek, KeyId); 2],
    vm: Uuid,
    host: Holder,
}

/// What a lease is: the highest epoch, and how the home is held, if it is.
type Lease = (u64, Option<Use>);

/// The record of a run. The sequence of a file that is not there is 0.
struct History {
    told: Vec<String>,
    safe: Past<u64>,
    descriptors: BTreeMap<String, Past<u64>>,
    disks: BTreeMap<String, Past<Arc<Vec<u8>>>>,
    lease: Past<Lease>,
}

struct Steps<'a> {
    keys: &'a Keys,
    folder: VmFolder,
    recorder: &'a Recorder,
    dice: Dice,
    volumes: BTreeMap<String, Volume>,
    claim: Option<Claim>,
    history: History,
}

impl Keys {
    fn new() -> Self {
        let arena = Arena::new(1 << 20).unwrap();
        let kek = |id: &str| (Kek::generate(&arena).unwrap(), id.parse().unwrap());
        let keks = [kek("native/old"), kek("native/new")];
        let host = Holder { id: Uuid::from_u128(1), name: "host".into() };
        Self { keks, vm: Uuid::from_u128(7), host, arena }
    }

    /// Opens a sealed file with whichever key it names.
    fn open<B: Body>(&self, path: &Path) -> Result<(B, B::Key), SealError> {
        let sealed = Sealed::<B>::read(path)?;
        let named = |(_, id): &&(Kek, KeyId)| sealed.key_ids().any(|named| named == id);
        let (kek, id) = self.keks.iter().find(named).unwrap();
        sealed.open(kek, id, &self.arena)
    }

    fn leases(&self, folder: &VmFolder) -> Leases {
        let (_, key) = self.open::<Safe>(&folder.safe()).unwrap();
        Leases::new(folder, self.vm, &key, &self.arena).unwrap()
    }

    fn volume(&self, folder: &VmFolder, disk: &Name, direct: bool) -> Result<Volume, String> {
        let text = |error: &dyn std::fmt::Display| format!("disk {disk}: {error}");
        let (body, key) =
            self.open::<Descriptor>(&folder.descriptor(disk)).map_err(|error| text(&error))?;
        body.check_place(&folder.descriptor(disk), disk, self.vm).map_err(|error| text(&error))?;
        let open = |flags: OFlags| {
            let flags = i32::try_from(flags.bits()).unwrap_or(0);
            let path = folder.payload(disk);
            let opened = File::options().read(true).write(true).custom_flags(flags).open(path);
            opened.map_err(|error| text(&error))
        };
        let mut backing: Box<dyn Backing> = Box::new(FileBacking::new(open(OFlags::empty())?));
        if direct {
            match DirectBacking::new(open(OFlags::empty())?, open(OFlags::DIRECT)?) {
                Ok(direct) => backing = Box::new(direct),
                // As with `data=journal`.
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                Err(error) => return Err(text(&error)),
            }
        }
        Volume::open(backing, key, body.geometry(false).unwrap()).map_err(|error| text(&error))
    }
}

fn record(ground: &Ground, keys: &Keys, dice: &Dice) -> (History, Record) {
    let live = ground.live();
    let root = live.folder().join("vm");
    fs::create_dir(&root).unwrap();
    let before = live.begin();
    let history = History {
        told: vec!["(nothing)".into()],
        safe: Past::new(0),
        descriptors: BTreeMap::new(),
        disks: BTreeMap::new(),
        lease: Past::new((0, None)),
    };
    let mut steps = Steps {
        keys,
        folder: VmFolder::new(root),
        recorder: &live.recorder,
        dice: dice.clone(),
        volumes: BTreeMap::new(),
        claim: None,
        history,
    };
    steps.make_safe();
    steps.make_disk();
    while steps.history.told.len() <= STEPS {
        steps.go();
    }
    let Steps { history, volumes, .. } = steps;
    drop(volumes);
    (history, live.end(before))
}

/// Records and replays; says how many states were judged. Without a number it is every event with every kind of loss.
fn try_states(storage: Storage, states: Option<usize>) -> usize {
    let (ground, keys) = (Ground::new(storage), Keys::new());
    let mut dice = Dice::new(number("COFFER_CUT_SEED").unwrap_or(1) as u64);
    let (history, record) = record(&ground, &keys, &dice);
    let states = states.unwrap_or(4 * record.log.len());
    let bench = ground.bench();
    record.cuts(states, &mut dice, |cut, image, _| {
        let opened = bench
            .with(cut, image, |root| history.check(&keys, &VmFolder::new(root.join("vm")), cut));
        report(cut, &record, &history.told, opened.and_then(|judged| judged));
    });
    states
}

#[test]
fn sealed_files_leases_and_disks_keep_what_was_promised() {
    needs!(Root, Fuse, Program("losetup"), Program("mkfs.ext4"), Program("e2fsck"));
    let states = number("COFFER_CUT_STATES").unwrap_or(STATES);
    assert_eq!(try_states(ORDERED, Some(states)), states);
}

#[test]
fn sealed_files_leases_and_disks_keep_it_whichever_write_is_the_last() {
    needs!(Root, Fuse, Long, Program("losetup"), Program("mkfs.ext4"), Program("mkfs.xfs"));
    for storage in [ORDERED].into_iter().chain(OTHERS) {
        let start = std::time::Instant::now();
        let states = try_states(storage, number("COFFER_CUT_STATES"));
        println!("{states} states, {storage:?}: {:?}", start.elapsed());
        assert!(states > 0);
    }
}
