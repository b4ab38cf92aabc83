//! The storage under a test of power cuts: made, recorded, and brought back state by state.
//!
//! Owns file systems, devices and their order; must not know what is stored.

use std::fs::File;
use std::path::{Path, PathBuf};
use tests::command;
use tests::cut::{Dice, Event, Image, Kept, Loop, Loss, Mounted, Recorder, Replay};
use tests::scratch::Scratch;
use tests::wait;

/// Room for the images.
const RAM: u64 = 1 << 30;

/// How often a state is looked at by the checker of its file system, too.
const LOOKS: usize = 16;

/// A kind of storage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage {
    pub(super) kind: &'static str,
    pub(super) make: &'static [&'static str],
    pub(super) options: &'static str,
    /// Bytes of the disk.
    pub(super) size: u64,
}

/// The usual one: data goes to the disk before the names and sizes that lead to it. Without the rule of thumb that
/// writes out a file before it is renamed over another, which would hide a missing sync.
pub(super) const ORDERED: Storage = Storage {
    kind: "ext4",
    make: &["mkfs.ext4", "-q", "-F", "-b", "4096"],
    options: "data=ordered,noauto_da_alloc",
    size: 64 << 20,
};

/// Others that datastores lie on.
pub(super) const OTHERS: [Storage; 5] = [
    Storage { make: &["mkfs.ext4", "-q", "-F", "-b", "1024"], ..ORDERED },
    Storage { options: "data=journal", ..ORDERED },
    Storage { options: "data=writeback,noauto_da_alloc", ..ORDERED },
    Storage { options: "data=ordered,nodelalloc", ..ORDERED },
    XFS,
];

/// The other one that is recommended.
pub(super) const XFS: Storage =
    Storage { kind: "xfs", make: &["mkfs.xfs", "-q", "-f"], options: "nouuid", size: 320 << 20 };

/// A folder for one test, with a disk in memory.
pub(super) struct Ground {
    pub(super) storage: Storage,
    pub(super) scratch: Scratch,
    ram: PathBuf,
}

/// A file system whose disk records. Fields go in this order.
pub(super) struct Live {
    mounted: Mounted,
    device: Loop,
    pub(super) recorder: Recorder,
}

/// What was recorded.
pub(super) struct Record {
    before: Image,
    pub(super) log: Vec<Event>,
}

/// The device on which states are brought back. Fields go in this order.
pub(super) struct Bench<'a> {
    device: Loop,
    path: PathBuf,
    file: File,
    ground: &'a Ground,
}

/// One loss of power.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Number of the state.
    pub(super) number: usize,
    /// Events before it.
    pub(super) position: usize,
    pub(super) loss: Loss,
    /// Steps begun.
    pub(super) begun: usize,
    /// Steps answered.
    pub(super) done: usize,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, position, loss, begun, done } = self;
        write!(f, "state {number}: power lost after event {position} and {loss:?} besides, ")?;
        write!(f, "with step {begun} begun and step {done} done")
    }
}

impl Ground {
    pub(super) fn new(storage: Storage) -> Self {
        let scratch = Scratch::new();
        let ram = scratch.tmpfs("ram", RAM);
        Self { storage, scratch, ram }
    }

    /// A new file system, mounted, whose disk will record.
    pub(super) fn live(&self) -> Live {
        self.live_on(self.make())
    }

    /// What a loss of power left, likewise.
    pub(super) fn live_on(&self, image: Image) -> Live {
        let recorder = Recorder::start(&self.scratch.join("disk"), image);
        let device = Loop::attach(recorder.path(), true);
        assert!(device.is_direct(), "the loop device would merge writes");
        let mounted = self.mount(&device, "live").unwrap();
        Live { mounted, device, recorder }
    }

    fn make(&self) -> Image {
        let base = self.ram.join("base");
        File::create(&base).unwrap().set_len(self.storage.size).unwrap();
        let (program, options) = self.storage.make.split_first().unwrap();
        let mut words = options.to_vec();
        words.push(base.to_str().unwrap());
        command::ok(program, &words);
        let image = Image::load(&base);
        std::fs::remove_file(&base).unwrap();
        image
    }

    fn mount(&self, device: &Loop, name: &str) -> Result<Mounted, rustix::io::Errno> {
        device.mount(&self.scratch.join(name), self.storage.kind, self.storage.options)
    }

    pub(super) fn bench(&self) -> Bench<'_> {
        let path = self.ram.join("state");
        let file = File::create(&path).unwrap();
        file.set_len(self.storage.size).unwrap();
        Bench { device: Loop::attach(&path, false), path, file, ground: self }
    }
}

impl Live {
    pub(super) fn folder(&self) -> &Path {
        self.mounted.point()
    }

    /// Makes durable what is there, and records from here on.
    pub(super) fn begin(&self) -> Image {
        rustix::fs::syncfs(File::open(self.folder()).unwrap()).unwrap();
        self.recorder.begin()
    }

    /// Takes what was recorded since `before`, and ends the recording.
    pub(super) fn end(self, before: Image) -> Record {
        let log = self.recorder.log();
        let Self { mounted, device, recorder } = self;
        mounted.unmount();
        drop(device);
        drop(recorder);
        Record { before, log }
    }
}

impl Record {
    /// Goes through about `states` losses of power, evenly over the log, with every kind of loss in turn, and hands the
    /// disk of each to `check`.
    pub(super) fn cuts(
        &self,
        states: usize,
        dice: &mut Dice,
        mut check: impl FnMut(Cut, &Image, &mut Dice),
    ) {
        let kinds = [Loss::Nothing, Loss::Pages, Loss::Torn, Loss::Sectors];
        let mut replay = Replay::new(self.before.clone(), &self.log);
        for number in 0..states {
            let position = (number + 1) * self.log.len() / states;
            replay.at(position);
            let loss = kinds[number % kinds.len()];
            let (begun, done) = replay.steps();
            let image = replay.state(loss, dice);
            let kept = Kept::new(&image, &self.log[..position]);
            check(Cut { number, position, loss, begun, done }, &image, dice);
            drop(kept);
        }
    }
}

impl Bench<'_> {
    /// Brings a state back, has `check` look at the mounted file system, and sometimes the checker of its kind.
    pub(super) fn with<R>(
        &self,
        cut: Cut,
        image: &Image,
        check: impl FnOnce(&Path) -> R,
    ) -> Result<R, String> {
        self.device.free();
        image.save(&self.file).unwrap();
        let mounted = self.ground.mount(&self.device, "state");
        let mounted = mounted.map_err(|error| format!("the kernel cannot mount it: {error}"))?;
        let result = check(mounted.point());
        mounted.unmount();
        self.device.free();
        if cut.number.is_multiple_of(LOOKS) {
            let path = self.path.to_str().unwrap();
            let said = match self.ground.storage.kind {
                "xfs" => command::run("xfs_repair", &["-n", "-f", path], wait::STEP),
                _ => command::run("e2fsck", &["-f", "-n", path], wait::STEP),
            };
            if said.code != 0 {
                return Err(format!("the file system is not clean: {said}"));
            }
        }
        Ok(result)
    }
}
