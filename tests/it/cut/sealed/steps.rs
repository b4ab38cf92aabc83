//! The steps on sealed files, leases and payloads.

use super::{DISK, DISKS, Keys, Steps};
use crate::cut::past::Past;
use cryptfs::descriptor::Descriptor;
use cryptfs::lease::{Renewal, Use};
use cryptfs::name::Name;
use cryptfs::safe::{Policy, Safe};
use cryptfs::seal::{self, Body, Wrap};
use cryptfs::volume::Volume;
use crypto::{Dek, HomeKey};
use rustix::fs::Advice;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use tests::cut::Dice;
use uuid::Uuid;

impl Steps<'_> {
    /// Does the work of a step between its marks; gives its number.
    fn step(&mut self, told: String, work: impl FnOnce()) -> usize {
        let step = self.history.told.len();
        self.recorder.step(step, work);
        self.history.told.push(told);
        step
    }

    pub(super) fn go(&mut self) {
        match self.dice.below(20) {
            0 => self.make_disk(),
            1 | 2 => self.rewrap_safe(),
            3..=5 => self.rewrap_disk(),
            6 => self.lease(),
            7 => self.lease_renew(),
            8..=13 => self.write(),
            14 => self.zero(),
            15 | 16 => self.flush(),
            17 => self.write_back(),
            18 => self.evict(),
            _ => self.open_again(),
        }
    }

    /// As hostd makes a VM, without its last rename.
    pub(super) fn make_safe(&mut self) {
        let (keys, folder) = (self.keys, self.folder.clone());
        let step = self.step("make the safe".into(), || {
            fs::create_dir(folder.home()).unwrap();
            fs::create_dir(folder.disks()).unwrap();
            let key = HomeKey::generate(&keys.arena).unwrap();
            let (kek, id) = &keys.keks[0];
            let wrap = Wrap::make(kek, id, &key).unwrap();
            let name = "vm".parse().unwrap();
            let mut safe = Safe::new(keys.vm, name, Policy::default(), vec![wrap]);
            seal::create(&folder.safe(), &mut safe, &key, &keys.arena).unwrap();
        });
        self.history.safe.set(step, 1);
    }

    /// As hostd makes a disk.
    pub(super) fn make_disk(&mut self) {
        if self.volumes.len() >= DISKS {
            return self.write();
        }
        let name = format!("d{}", self.volumes.len());
        let disk: Name = name.parse().unwrap();
        let (keys, folder) = (self.keys, self.folder.clone());
        let step = self.step(format!("make disk {name}"), || {
            let payload = File::create_new(folder.payload(&disk)).unwrap();
            payload.set_len(DISK as u64).and_then(|()| payload.sync_all()).unwrap();
            let key = Dek::generate(&keys.arena).unwrap();
            let (kek, id) = &keys.keks[0];
            let wrap = Wrap::make(kek, id, &key).unwrap();
            let (id, size) = (Uuid::new_v4(), DISK as u64);
            let body = Descriptor::new(id, disk.clone(), keys.vm, size, None, vec![wrap]);
            let path = folder.descriptor(&disk);
            seal::create(&path, &mut body.unwrap(), &key, &keys.arena).unwrap();
        });
        let volume = keys.volume(&self.folder, &disk, self.dice.chance(1, 3)).unwrap();
        self.volumes.insert(name.clone(), volume);
        let mut descriptor = Past::new(0);
        descriptor.set(step, 1);
        self.history.descriptors.insert(name.clone(), descriptor);
        self.history.disks.insert(name, Past::new(Arc::new(vec![0; DISK])));
    }

    /// Another key, beside the one that is there or alone: half of a rotation.
    fn rewrap<B: Body>(keys: &Keys, path: &Path, alone: bool, which: usize) {
        let (mut body, key) = keys.open::<B>(path).unwrap();
        let (kek, id) = &keys.keks[which];
        let new = Wrap::make(kek, id, &key).unwrap();
        let old = body.wraps().iter().filter(|wrap| !alone && wrap.key != *id).cloned();
        let wraps = old.chain([new]).collect();
        body.set_wraps(wraps);
        seal::replace(path, &mut body, &key, &keys.arena).unwrap();
    }

    fn rewrap_safe(&mut self) {
        let (alone, which) = (self.dice.chance(1, 2), self.dice.below(2));
        let (keys, path) = (self.keys, self.folder.safe());
        let told = format!("replace the safe, key {which}, alone {alone}");
        let step = self.step(told, || Self::rewrap::<Safe>(keys, &path, alone, which));
        let next = self.history.safe.now() + 1;
        self.history.safe.set(step, next);
    }

    fn a_disk(&mut self) -> Option<String> {
        let names: Vec<String> = self.volumes.keys().cloned().collect();
        self.dice.pick(&names).cloned()
    }

    fn rewrap_disk(&mut self) {
        let Some(name) = self.a_disk() else { return };
        let (alone, which) = (self.dice.chance(1, 2), self.dice.below(2));
        let (keys, path) = (self.keys, self.folder.descriptor(&name.parse().unwrap()));
        let told = format!("replace the descriptor of {name}, key {which}, alone {alone}");
        let step = self.step(told, || Self::rewrap::<Descriptor>(keys, &path, alone, which));
        if let Some(past) = self.history.descriptors.get_mut(&name) {
            past.set(step, past.now() + 1);
        }
    }

    /// Takes a lease, or gives it back.
    fn lease(&mut self) {
        let leases = self.keys.leases(&self.folder);
        let (epoch, how) = self.history.lease.now();
        let Some(claim) = self.claim.take() else {
            let how = if self.dice.chance(1, 3) { Use::Shared } else { Use::Exclusive };
            let (mut claim, host) = (None, &self.keys.host);
            let step = self.step(format!("take the lease, {how:?}"), || {
                let taken = leases.take(host, how, false, 1).unwrap();
                leases.clear(&taken).unwrap();
                claim = Some(taken.claim);
            });
            let epoch = epoch + u64::from(how == Use::Exclusive);
            self.history.lease.set(step, (epoch, Some(how)));
            self.claim = claim;
            return;
        };
        let step = self
            .step(format!("give the lease back, {how:?}"), || leases.release(&claim, 3).unwrap());
        self.history.lease.change(step, (epoch, None));
        if how == Some(Use::Exclusive) {
            // A record of a shared use is removed, and may come back: it is this host's own.
            self.history.lease.promise(step);
        }
    }

    fn lease_renew(&mut self) {
        let Some(mut claim) = self.claim.take() else { return self.lease() };
        let leases = self.keys.leases(&self.folder);
        self.step("renew the lease".into(), || {
            assert_eq!(leases.renew(&mut claim, 2).unwrap(), Renewal::Stands);
        });
        self.claim = Some(claim);
    }

    /// Takes a disk out for a step.
    fn change(&mut self, told: &str, work: impl FnOnce(&mut Dice, &Volume, &mut Vec<u8>)) {
        let Some(name) = self.a_disk() else { return };
        let Some(volume) = self.volumes.remove(&name) else { return };
        let mut dice = self.dice.clone();
        let mut content = self.history.disks[&name].now().to_vec();
        let step = self.step(format!("{told} {name}"), || work(&mut dice, &volume, &mut content));
        self.dice = dice;
        self.volumes.insert(name.clone(), volume);
        if let Some(past) = self.history.disks.get_mut(&name) {
            past.change(step, Arc::new(content));
        }
    }

    fn range(dice: &mut Dice) -> (usize, usize) {
        let at = match dice.chance(1, 2) {
            true => dice.below(DISK / 512) * 512,
            false => dice.below(DISK),
        };
        let len = match dice.below(3) {
            0 => 512 * (1 + dice.below(32)),
            1 => 4096,
            _ => 1 + dice.below(3000),
        };
        (at, len.min(DISK - at))
    }

    fn write(&mut self) {
        self.change("write to", |dice, volume, content| {
            let (at, len) = Self::range(dice);
            let mut bytes: Vec<u8> = (0..len).map(|_| dice.byte()).collect();
            content[at..at + len].copy_from_slice(&bytes);
            volume.write(at as u64, &mut bytes).unwrap();
        });
    }

    fn zero(&mut self) {
        self.change("zero in", |dice, volume, content| {
            let ((at, len), punch) = (Self::range(dice), dice.chance(1, 2));
            content[at..at + len].fill(0);
            volume.write_zeroes(at as u64, len as u64, punch).unwrap();
        });
    }

    /// As an NBD flush does.
    fn flush(&mut self) {
        let Some(name) = self.a_disk() else { return };
        let Some(volume) = self.volumes.remove(&name) else { return };
        let step = self.step(format!("flush {name}"), || volume.flush().unwrap());
        self.volumes.insert(name.clone(), volume);
        if let Some(past) = self.history.disks.get_mut(&name) {
            past.promise(step);
        }
    }

    fn write_back(&mut self) {
        let folder = File::open(self.folder.path()).unwrap();
        self.step("(write-back of everything)".into(), || rustix::fs::syncfs(&folder).unwrap());
    }

    fn evict(&mut self) {
        let Some(name) = self.a_disk() else { return };
        let file = File::open(self.folder.payload(&name.parse().unwrap())).unwrap();
        self.step(format!("(write-back of data of {name})"), || {
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        });
    }

    /// A detach and an attach, past the page cache or not.
    fn open_again(&mut self) {
        let Some(name) = self.a_disk() else { return };
        let direct = self.dice.chance(1, 3);
        let volume = self.keys.volume(&self.folder, &name.parse().unwrap(), direct).unwrap();
        self.volumes.insert(name, volume);
    }
}
