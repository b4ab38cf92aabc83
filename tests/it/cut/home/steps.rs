//! Random steps on a mounted home, each noted in the history.
//!
//! Owns what is done and with which odds, and the steps on content (those on names are in `names`); must not know what a crash may show. A step that a real file system would
//! refuse is not tried: whatever fails here fails the test.

use super::history::{Attributes, History, Kind, Names, Node};
use rustix::fs::{Advice, FallocateFlags, OFlags, XattrFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tests::cut::{Dice, Recorder};

/// Largest file.
const MOST: usize = 60_000;

/// Most names of files and folders at a time.
const NAMES: usize = 24;

/// A run of steps on a home.
pub(super) struct Steps<'a> {
    pub(super) history: History,
    recorder: &'a Recorder,
    /// The mounted home.
    home: &'a Path,
    /// The folder with the ciphertext.
    store: &'a Path,
    pub(super) dice: Dice,
    /// Files that stay open from step to step.
    open: BTreeMap<Node, File>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(
        recorder: &'a Recorder,
        home: &'a Path,
        store: &'a Path,
        dice: Dice,
        history: History,
    ) -> Self {
        Self { history, recorder, home, store, dice, open: BTreeMap::new() }
    }

    /// Closes what is open, and gives the record.
    pub(super) fn end(self) -> History {
        self.history
    }

    /// Does one step.
    pub(super) fn go(&mut self) {
        match self.dice.below(42) {
            0..=3 => self.create(),
            4..=10 => self.write(OFlags::empty()),
            11 | 12 => self.write(OFlags::DSYNC),
            40 => self.write(OFlags::DIRECT),
            41 => self.copy(),
            13 | 14 => self.truncate(),
            15 => self.allocate(),
            16 | 17 => self.zero(),
            18..=20 => self.sync(false),
            21 => self.sync(true),
            22 | 23 => self.sync_folder(),
            24 | 25 => self.rename(),
            26 => self.exchange(),
            27 => self.link(),
            28 | 29 => self.unlink(),
            30 => self.make_folder(),
            31 => self.remove_folder(),
            32 => self.make_link(),
            33 | 34 => self.set_attribute(),
            35 => self.write_back(),
            36 => self.evict(),
            _ => self.close(),
        }
    }

    /// Does the work of a step between its marks, and notes it.
    pub(super) fn step(&mut self, told: String, names: Option<Names>, work: impl FnOnce()) {
        self.recorder.step(self.history.next(), work);
        self.history.end(told, names);
    }

    pub(super) fn of_kind(&self, wanted: impl Fn(&Kind) -> bool) -> Vec<(String, Node)> {
        let names = self.history.names().iter();
        let all = names.filter(|(_, node)| wanted(self.history.kind(**node)));
        all.map(|(name, node)| (name.clone(), *node)).collect()
    }

    pub(super) fn a_file(&mut self) -> Option<(String, Node)> {
        let files = self.of_kind(|kind| *kind == Kind::File);
        self.dice.pick(&files).cloned()
    }

    /// The path of a folder with a slash behind it, or nothing for the home itself.
    pub(super) fn a_folder(&mut self) -> String {
        let folders = self.of_kind(|kind| *kind == Kind::Folder);
        match self.dice.below(folders.len() + 1) {
            0 => String::new(),
            number => format!("{}/", folders[number - 1].0),
        }
    }

    pub(super) fn a_new_name(&mut self) -> Option<String> {
        let mut name = format!("{}n{}", self.a_folder(), self.history.next());
        while self.history.names().contains_key(&name) {
            // From before a loss of power.
            name.push('x');
        }
        (self.history.names().len() < NAMES).then_some(name)
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The open file, opened now unless it is.
    fn open(&mut self, name: &str, node: Node) -> File {
        let path = self.at(name);
        let open = || File::options().read(true).write(true).open(path).unwrap();
        self.open.entry(node).or_insert_with(open).try_clone().unwrap()
    }

    /// A place near the borders of units, sectors and the file.
    fn place(&mut self, size: usize) -> usize {
        let base = match self.dice.below(6) {
            0 | 1 => size,
            2 => self.dice.below(8) * 4096,
            3 => self.dice.below(64) * 512,
            4 => 0,
            _ => self.dice.below(size + 5000),
        };
        (base + self.dice.below(5)).saturating_sub(2).min(MOST)
    }

    fn length(&mut self) -> usize {
        match self.dice.below(5) {
            0 => 512 * (1 + self.dice.below(16)),
            1 => 4096 * (1 + self.dice.below(4)),
            2 => 1 + self.dice.below(20_000),
            _ => 1 + self.dice.below(900),
        }
    }

    /// Writes by the open file, or by one opened for it with these flags.
    fn write(&mut self, flags: OFlags) {
        let Some((name, node)) = self.a_file() else { return self.create() };
        let mut content = self.history.content(node).to_vec();
        let (at, len) = (self.place(content.len()), self.length());
        let bytes: Vec<u8> = (0..len).map(|_| self.dice.byte()).collect();
        let end = at + len;
        content.resize(content.len().max(end), 0);
        content[at..end].copy_from_slice(&bytes);
        let file = match flags.is_empty() {
            true => self.open(&name, node),
            false => {
                let bits = i32::try_from(flags.bits()).unwrap();
                File::options().write(true).custom_flags(bits).open(self.at(&name)).unwrap()
            }
        };
        self.history.set_content(node, content);
        if flags == OFlags::DSYNC {
            self.history.sync_data(node);
        }
        let told = format!("write {name}#{node} {at}+{len} {flags:?}");
        self.step(told, None, || file.write_all_at(&bytes, at as u64).unwrap());
    }

    /// Copies from file to file, without the bytes passing through here.
    fn copy(&mut self) {
        let (Some((from, source)), Some((to, node))) = (self.a_file(), self.a_file()) else {
            return;
        };
        let (bytes, mut content) =
            (self.history.content(source), self.history.content(node).to_vec());
        if source == node || bytes.is_empty() {
            return;
        }
        let start = self.dice.below(bytes.len());
        let (at, len) = (self.place(content.len()), self.length().min(bytes.len() - start));
        content.resize(content.len().max(at + len), 0);
        content[at..at + len].copy_from_slice(&bytes[start..start + len]);
        let (read, write) = (self.open(&from, source), self.open(&to, node));
        self.history.set_content(node, content);
        let told = format!("copy {from}#{source} {start}+{len} to {to}#{node} {at}");
        self.step(told, None, || {
            let (mut start, mut at, mut left) = (start as u64, at as u64, len);
            while left > 0 {
                let done = rustix::fs::copy_file_range(
                    &read,
                    Some(&mut start),
                    &write,
                    Some(&mut at),
                    left,
                );
                left -= done.unwrap();
            }
        });
    }

    fn truncate(&mut self) {
        let Some((name, node)) = self.a_file() else { return };
        let mut content = self.history.content(node).to_vec();
        let (old, size) = (content.len(), self.place(content.len()));
        content.resize(size, 0);
        let file = self.open(&name, node);
        self.history.set_content(node, content);
        let told = format!("truncate {name}#{node} {old} to {size}");
        self.step(told, None, || file.set_len(size as u64).unwrap());
    }

    fn allocate(&mut self) {
        let Some((name, node)) = self.a_file() else { return };
        let mut content = self.history.content(node).to_vec();
        let (at, len) = (self.place(content.len()), self.length());
        let keep = self.dice.chance(1, 2);
        let flags = if keep { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        if !keep {
            content.resize(content.len().max(at + len), 0);
        }
        let file = self.open(&name, node);
        self.history.set_content(node, content);
        let told = format!("fallocate {name}#{node} {at}+{len} keep={keep}");
        self.step(told, None, || {
            rustix::fs::fallocate(&file, flags, at as u64, len as u64).unwrap();
        });
    }

    fn zero(&mut self) {
        let Some((name, node)) = self.a_file() else { return };
        let mut content = self.history.content(node).to_vec();
        let (at, len) = (self.place(content.len()), self.length());
        let how = match self.dice.chance(1, 2) {
            true => FallocateFlags::PUNCH_HOLE,
            false => FallocateFlags::ZERO_RANGE,
        };
        let end = (at + len).min(content.len());
        if at < end {
            content[at..end].fill(0);
        }
        let file = self.open(&name, node);
        self.history.set_content(node, content);
        let told = format!("zero {name}#{node} {at}+{len} {how:?}");
        self.step(told, None, || {
            let flags = how | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, flags, at as u64, len as u64).unwrap();
        });
    }

    fn sync(&mut self, data_only: bool) {
        let Some((name, node)) = self.a_file() else { return };
        let file = self.open(&name, node);
        match data_only {
            true => self.history.sync_data(node),
            false => self.history.sync_all(node),
        }
        let told = format!("sync {name}#{node} data_only={data_only}");
        self.step(told, None, || match data_only {
            true => file.sync_data().unwrap(),
            false => file.sync_all().unwrap(),
        });
    }

    fn set_attribute(&mut self) {
        let Some((name, node)) = self.a_file() else { return };
        let mut attributes: Attributes = (*self.history.attributes(node)).clone();
        let key = ["user.a", "user.b"][self.dice.below(2)];
        let path = self.at(&name);
        let told = format!("attribute {key} of {name}#{node}");
        if attributes.contains_key(key) && self.dice.chance(1, 3) {
            attributes.remove(key);
            self.history.set_attributes(node, attributes);
            return self.step(told, None, || rustix::fs::removexattr(&path, key).unwrap());
        }
        let value = vec![self.dice.byte(); self.dice.below(60)];
        attributes.insert(key.to_owned(), value.clone());
        self.history.set_attributes(node, attributes);
        self.step(told, None, || {
            rustix::fs::setxattr(&path, key, &value, XattrFlags::empty()).unwrap();
        });
    }

    /// The storage writes what it has, at a time of its own, and promises nothing to anybody.
    fn write_back(&mut self) {
        let store = File::open(self.store).unwrap();
        self.step("(write-back of everything)".into(), None, || {
            rustix::fs::syncfs(&store).unwrap();
        });
    }

    /// The storage writes the data of one file, but no size and no name.
    fn evict(&mut self) {
        let Some((name, node)) = self.a_file() else { return };
        let stored = File::open(self.store.join(&name)).unwrap();
        self.step(format!("(write-back of data of {name}#{node})"), None, || {
            rustix::fs::fadvise(&stored, 0, None, Advice::DontNeed).unwrap();
        });
    }

    fn close(&mut self) {
        let open: Vec<Node> = self.open.keys().copied().collect();
        let Some(node) = self.dice.pick(&open).copied() else { return };
        let file = self.open.remove(&node);
        self.step(format!("close #{node}"), None, || drop(file));
    }
}
