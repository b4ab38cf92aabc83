//! The verbs, and what is done with what they serve.

use super::{DISK, Disk, Vm};
use crate::cut::past::Past;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::sync::Arc;
use tests::cut::{Dice, Recorder};
use tests::host::Host;
use tests::nbd::Nbd;

pub(super) struct Steps<'a> {
    pub(super) host: &'a Host,
    pub(super) recorder: &'a Recorder,
    pub(super) dice: Dice,
    pub(super) told: Vec<String>,
    pub(super) vms: BTreeMap<String, Vm>,
}

impl Steps<'_> {
    fn step(&mut self, told: &str, work: impl FnOnce()) -> usize {
        let step = self.told.len();
        self.recorder.step(step, work);
        self.told.push(told.to_owned());
        step
    }

    /// A verb of `coffer`, which must be done well.
    fn verb(&mut self, words: &[&str]) -> usize {
        let host = self.host;
        self.step(&words.join(" "), || drop(host.coffer(words).ok()))
    }

    fn vm(&mut self, name: &str) -> &mut Vm {
        self.vms.entry(name.to_owned()).or_insert_with(Vm::new)
    }

    fn create(&mut self, name: &str) {
        let step = self.verb(&["vm", "create", name]);
        self.vm(name).there.set(step, true);
    }

    fn delete(&mut self, name: &str) {
        let step = self.verb(&["vm", "delete", name, "--yes"]);
        self.vm(name).there.set(step, false);
    }

    fn lock(&mut self, name: &str, locked: bool) {
        let step = self.verb(&["vm", if locked { "lock" } else { "unlock" }, name]);
        self.vm(name).locked.set(step, locked);
    }

    fn a_disk(&mut self, vm: &str, disk: &str) -> &mut Disk {
        let none = || Disk { size: Past::new(0), content: Past::new(Arc::default()) };
        self.vm(vm).disks.entry(disk.to_owned()).or_insert_with(none)
    }

    /// The disk `data` of `web01`, which is written to.
    fn data(&mut self) -> &mut Disk {
        self.a_disk("web01", "data")
    }

    /// A verb that leaves a disk with this content, or none.
    fn disk(&mut self, words: &[&str], content: Vec<u8>) {
        let step = self.verb(words);
        let disk = self.a_disk(words[2], words[3]);
        disk.size.set(step, content.len() as u64);
        disk.content.set(step, Arc::new(content));
    }

    fn import(&mut self) {
        let image = self.host.scratch().join("image.raw");
        let content: Vec<u8> = (0..DISK).map(|_| self.dice.byte()).collect();
        fs::write(&image, &content).unwrap();
        let image = image.to_str().unwrap().to_owned();
        self.disk(&["disk", "import", "web01", "brought", &image], content);
    }

    fn resize(&mut self, size: usize, more: &[&str]) {
        let bytes = size.to_string();
        let mut words = vec!["disk", "resize", "web01", "data", "--size", &bytes];
        words.extend(more);
        let step = self.verb(&words);
        let mut content = self.data().content.now().to_vec();
        let grows = size > content.len();
        content.resize(size, 0);
        let data = self.data();
        data.size.set(step, size as u64);
        data.content.change(step, Arc::new(content));
        if grows {
            // What lay behind the end must not come back with the new size.
            data.content.promise(step);
        }
    }

    /// Attaches the disk, writes to it, and detaches it.
    fn use_disk(&mut self, count: usize, cache: &str) {
        self.verb(&["disk", "attach", "web01", "data", "--cache", cache]);
        let mut nbd = Nbd::open(&self.host.socket("web01", "data"), "data").unwrap();
        self.write(&mut nbd, count);
        drop(nbd);
        self.verb(&["disk", "detach", "web01", "data"]);
    }

    /// Writes over NBD, some of them durable on their own, and a flush now and then.
    fn write(&mut self, nbd: &mut Nbd, count: usize) {
        for _ in 0..count {
            let mut content = self.data().content.now().to_vec();
            let at = self.dice.below(content.len() - 5000);
            let (len, durable) = (1 + self.dice.below(5000), self.dice.chance(1, 4));
            let written: Vec<u8> = (0..len).map(|_| self.dice.byte()).collect();
            content[at..at + len].copy_from_slice(&written);
            let step =
                self.step(&format!("write {at}+{len} durable {durable}"), || match durable {
                    true => nbd.write_durable(at as u64, &written).unwrap(),
                    false => nbd.write(at as u64, &written).unwrap(),
                });
            self.data().content.change(step, Arc::new(content));
            if self.dice.chance(1, 3) {
                let step = self.step("flush", || nbd.flush().unwrap());
                self.data().content.promise(step);
            } else if durable {
                // FUA covers this write; ours are flushed as one, so earlier ones are, too.
                self.data().content.promise(step);
            }
        }
    }

    /// Replaces a file of the mounted home, as careful programs do.
    fn note(&mut self, name: &str, len: usize) {
        let home = self.host.home(name);
        let text = vec![self.dice.byte(); len];
        let step = self.step(&format!("replace notes of {name}"), || {
            let mut file = File::create(home.join("notes.new")).unwrap();
            file.write_all(&text).and_then(|()| file.sync_all()).unwrap();
            fs::rename(home.join("notes.new"), home.join("notes")).unwrap();
            File::open(&home).and_then(|folder| folder.sync_all()).unwrap();
        });
        self.vm(name).notes.set(step, Some(text));
    }

    pub(super) fn run(&mut self) {
        self.create("web01");
        self.disk(&["disk", "create", "web01", "data", "--size", "64K"], vec![0; DISK]);
        self.verb(&["disk", "attach", "web01", "data"]);
        let mut nbd = Nbd::open(&self.host.socket("web01", "data"), "data").unwrap();
        self.write(&mut nbd, 8);
        self.verb(&["vm", "mount", "web01"]);
        self.note("web01", 5000);
        self.create("web02");
        self.disk(&["disk", "create", "web02", "root", "--size", "4K"], vec![0; 4096]);
        self.note("web01", 7000);
        self.verb(&["key", "rotate"]);
        self.write(&mut nbd, 4);
        self.lock("web02", true);
        drop(nbd);
        self.verb(&["disk", "detach", "web01", "data"]);
        self.verb(&["vm", "umount", "web01"]);
        self.resize(3 * DISK, &[]);
        self.use_disk(5, "none");
        self.resize(2 * DISK, &["--shrink", "--yes"]);
        self.resize(4 * DISK, &[]);
        self.import();
        self.lock("web02", false);
        self.verb(&["key", "rotate", "--vm", "web01"]);
        self.verb(&["vm", "mount", "web01", "--shared"]);
        self.note("web01", 100);
        self.disk(&["disk", "delete", "web02", "root", "--yes"], Vec::new());
        self.delete("web02");
        self.use_disk(6, "writeback");
    }
}
