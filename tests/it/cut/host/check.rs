//! What must hold when a host comes up after a loss of power.

use super::{DISK, History, Vm, host_below};
use crate::cut::among;
use crate::cut::ground::Cut;
use crate::cut::home::judge::bytes;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tests::host::Host;
use tests::nbd::Nbd;

impl History {
    /// Brings a host up on a state, and looks at everything.
    pub(super) fn check(&self, root: &Path, cut: Cut) -> Result<(), String> {
        let mut host = host_below(root);
        if !host.key_file().exists() {
            // The power went before the first key file was there.
            host.init();
        }
        host.up();
        for (name, vm) in &self.vms {
            let shown = host.coffer(&["--json", "vm", "show", name]);
            let there = match shown.code {
                0 => true,
                4 => false,
                _ => return Err(format!("{shown}")),
            };
            among(name, &there, &vm.there.after(cut))?;
            if there {
                let locked = shown.json()["state"] == "locked";
                among("its lock", &locked, &vm.locked.after(cut))?;
                host.coffer(&["vm", "unlock", name]).ok();
                self.check_vm(&host, name, vm, cut)?;
            }
        }
        let rotated = host.json(&["key", "rotate"]);
        let vms = rotated["vms"].as_array().unwrap();
        if let Some(failed) = vms.iter().find(|vm| !vm["error"].is_null()) {
            return Err(format!("no rotation any more: {failed}"));
        }
        self.check_notes(&host, cut)?;
        host.stop();
        Ok(())
    }

    fn check_vm(&self, host: &Host, name: &str, vm: &Vm, cut: Cut) -> Result<(), String> {
        let report = host.json(&["vm", "fsck", name, "--repair"]);
        if report["damaged"] != 0 {
            return Err(format!("the check finds damage: {report}"));
        }
        let listed = host.json(&["disk", "list", name]);
        let listed = listed.as_array().unwrap();
        for (disk, past) in &vm.disks {
            let found = listed.iter().find(|found| found["name"] == disk.as_str());
            let size = found.map_or(0, |found| found["size"].as_u64().unwrap());
            among(disk, &size, &past.size.after(cut))?;
            let Some(found) = found else { continue };
            if found["state"] == "importing" && past.size.after(cut).contains(&&0) {
                continue;
            }
            let content = content(host, name, disk);
            let had = past.content.after(cut).into_iter().filter(|had| !had.is_empty());
            let had: Vec<Arc<Vec<u8>>> = had.cloned().collect();
            bytes(&content, &had).map_err(|fault| format!("disk {disk}: {fault}"))?;
            grow(host, name, disk, content)?;
        }
        Ok(())
    }

    /// After the rotation, so that its keys are those in use.
    fn check_notes(&self, host: &Host, cut: Cut) -> Result<(), String> {
        for (name, vm) in &self.vms {
            if host.coffer(&["vm", "show", name]).code != 0 {
                continue;
            }
            // Its own lease, left by the loss of power, is no obstacle.
            host.coffer(&["vm", "mount", name]).ok();
            let notes = fs::read(host.home(name).join("notes"));
            let found = match notes {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                read => Some(read.map_err(|error| format!("notes of {name}: {error}"))?),
            };
            let had = vm.notes.after(cut);
            if !had.contains(&&found) {
                let len = |notes: &Option<Vec<u8>>| notes.as_ref().map(Vec::len);
                let had: Vec<_> = had.into_iter().map(len).collect();
                return Err(format!("notes of {name}: {:?} bytes, but had {had:?}", len(&found)));
            }
            host.coffer(&["vm", "umount", name]).ok();
        }
        Ok(())
    }
}

/// All of a disk, as a guest sees it.
fn content(host: &Host, vm: &str, disk: &str) -> Vec<u8> {
    host.coffer(&["disk", "attach", vm, disk]).ok();
    let mut nbd = Nbd::open(&host.socket(vm, disk), disk).unwrap();
    let content = nbd.read(0, usize::try_from(nbd.size).unwrap()).unwrap();
    drop(nbd);
    host.coffer(&["disk", "detach", vm, disk]).ok();
    content
}

/// Makes a disk larger: nothing that lay behind its end may show.
fn grow(host: &Host, vm: &str, disk: &str, mut before: Vec<u8>) -> Result<(), String> {
    before.resize(before.len() + DISK, 0);
    host.coffer(&["disk", "resize", vm, disk, "--size", &before.len().to_string()]).ok();
    match content(host, vm, disk) == before {
        true => Ok(()),
        false => Err(format!("disk {disk} shows old bytes when it grows")),
    }
}
