//! What must hold of sealed files, leases and payloads after a loss of power.

use super::{DISK, History, Keys};
use crate::cut::among;
use crate::cut::ground::Cut;
use crate::cut::home::judge::bytes;
use cryptfs::descriptor::Descriptor;
use cryptfs::folder::VmFolder;
use cryptfs::fsck::{Claims, Grade, Line, Report, check_folder};
use cryptfs::lease::Use;
use cryptfs::name::Name;
use cryptfs::safe::Safe;
use cryptfs::seal::{Body, SealError};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

impl History {
    pub(super) fn check(&self, keys: &Keys, folder: &VmFolder, cut: Cut) -> Result<(), String> {
        let safe = sequence::<Safe>(keys, &folder.safe())?;
        among("the safe", &safe, &self.safe.after(cut))?;
        let mut claimed = BTreeSet::new();
        for (name, past) in &self.descriptors {
            let disk: Name = name.parse().unwrap();
            let found = sequence::<Descriptor>(keys, &folder.descriptor(&disk))?;
            among(name, &found, &past.after(cut))?;
            if found > 0 {
                claimed.insert(format!("{name}.data"));
                let volume = keys.volume(folder, &disk, cut.number.is_multiple_of(3))?;
                let mut content = vec![0; DISK];
                volume.read(0, &mut content).map_err(|error| error.to_string())?;
                let had: Vec<Arc<Vec<u8>>> =
                    self.disks[name].after(cut).into_iter().cloned().collect();
                bytes(&content, &had).map_err(|fault| format!("disk {name}: {fault}"))?;
            }
        }
        if safe == 0 {
            return Ok(());
        }
        let mut damaged = Vec::new();
        let mut note = |line: &Line| {
            if let Line::Finding(finding) = line
                && finding.grade == Grade::Damaged
            {
                damaged.push(format!("{finding:?}"));
            }
            Ok(())
        };
        let claims = Claims { payloads: claimed, complete: true };
        check_folder(folder, &claims, true, &mut Report::new(&mut note)).unwrap();
        if !damaged.is_empty() {
            return Err(format!("the check finds damage: {damaged:?}"));
        }
        self.check_lease(keys, folder, cut)
    }

    /// The host comes back, sees its own lease or none, and takes the next one.
    fn check_lease(&self, keys: &Keys, folder: &VmFolder, cut: Cut) -> Result<(), String> {
        let (leases, may_be) = (keys.leases(folder), self.lease.after(cut));
        let holders = leases.holders().map_err(|error| error.to_string())?;
        for record in &holders {
            let found = (record.epoch, Some(record.how));
            if record.host != keys.host.id || !may_be.contains(&&found) {
                return Err(format!("the lease {found:?} is held, but was one of {may_be:?}"));
            }
        }
        if holders.is_empty() && !may_be.iter().any(|(_, how)| how.is_none()) {
            return Err(format!("no lease is held, but it was one of {may_be:?}"));
        }
        let taken = leases.take(&keys.host, Use::Exclusive, false, 9);
        let epoch = taken.map_err(|error| error.to_string())?.claim.epoch();
        match may_be.iter().any(|(last, _)| last + 1 == epoch) {
            true => Ok(()),
            false => Err(format!("epoch {epoch} comes after one of {may_be:?}")),
        }
    }
}

/// Sequence of a sealed file that opens, 0 when there is none.
fn sequence<B: Body>(keys: &Keys, path: &Path) -> Result<u64, String> {
    match keys.open::<B>(path) {
        Ok((body, _)) => Ok(body.sequence()),
        Err(SealError::Missing { .. }) => Ok(0),
        Err(error) => Err(error.to_string()),
    }
}
