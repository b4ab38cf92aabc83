//! Checking a VM: its safe, its disks, the names in its folder, and its home.
//!
//! Owns the order and what may be checked when. Guest data is not touched here: the vmd of the VM has the key of the
//! home and goes through it (`service::check`); this file reads sealed files, names and lengths. Flow: [`Host::check_vm`]
//! refuses what would race, collects findings from all parts, and returns them with their counts.

use super::info::{MAX_DISKS, disk_names};
use super::payload::open_payload;
use super::{Inner, Opened, Vm};
use crate::asker::Asker;
use crate::fault::Fault;
use crate::host::Host;
use crate::service::claim::Claimed;
use cryptfs::descriptor::{Descriptor, State};
use cryptfs::folder::payload_name;
use cryptfs::fsck::{
    Claims, Finding, Grade, Line, MAX_FINDINGS, Mend, Report, Totals, check_folder,
};
use cryptfs::name::Name;
use cryptfs::safe::Safe;
use hostd_api::error::{ErrorCode, LockCode};
use hostd_api::types::{self, CheckReport, CheckVm, FindingGrade, FindingRepair};
use std::io;
use std::sync::Arc;

/// What all parts of a check have found.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    findings: Vec<types::Finding>,
    totals: Totals,
}

impl Collected {
    /// Takes a finding of any part; a part has its own limit, this one is for all of them.
    pub(crate) fn take(&mut self, finding: Finding) {
        if u64::try_from(self.findings.len()).is_ok_and(|count| count < MAX_FINDINGS) {
            self.findings.push(shown(finding));
        } else {
            self.totals.unlisted = self.totals.unlisted.saturating_add(1);
        }
    }

    /// Adds the counts of a part that came to its end.
    pub(crate) fn add(&mut self, part: Totals) {
        let totals = &mut self.totals;
        for (sum, more) in [
            (&mut totals.objects, part.objects),
            (&mut totals.damaged, part.damaged),
            (&mut totals.leftovers, part.leftovers),
            (&mut totals.mended, part.mended),
            (&mut totals.unlisted, part.unlisted),
        ] {
            *sum = sum.saturating_add(more);
        }
    }

    /// All of it, of the VM with this name.
    pub(crate) fn report(self, vm: &str) -> CheckReport {
        let Collected { findings, totals } = self;
        let Totals { objects, damaged, leftovers, mended, unlisted } = totals;
        CheckReport { vm: vm.to_owned(), objects, damaged, leftovers, mended, unlisted, findings }
    }
}

impl Host {
    /// `POST /v1/vms/{vm}/check`.
    ///
    /// # Errors
    /// `wrong-state` while the home is mounted, and for a repair while a disk is attached; `vm-locked` when the key
    /// cannot be had; `data-plane` when it ends early, also because whoever asked has left; faults of the vmd. What is
    /// wrong with the VM is no fault but a finding.
    pub fn check_vm(
        self: &Arc<Self>,
        name: &str,
        how: &CheckVm,
        asker: &Asker,
    ) -> Result<CheckReport, Fault> {
        let vm = self.inventory.get(name)?;
        let mut inner = self.enter(&vm)?;
        at_rest(&vm, &inner, how.repair)?;
        let datastore = self.datastore_of(&vm)?;
        datastore.readable()?;
        if how.repair {
            datastore.writable()?;
        }
        let why_end = || why_end(&vm, asker);
        let mut found = Collected::default();
        let safe = self.check_files(&vm, &mut inner, how.repair, &why_end, &mut found)?;
        if let Some((safe, claim)) = safe
            && vm.folder.home().symlink_metadata().is_ok_and(|home| home.is_dir())
        {
            let service = self.running(&vm, &mut inner)?;
            let why_end = || claim.why_end().or_else(why_end);
            let outcome = self.check_home(&vm, service, safe, how.repair, &why_end, &mut found);
            if claim.why_end().is_some() {
                // The other host waits, and nothing more may be written.
                service.end_process();
            }
            self.stop_if_idle(&mut inner);
            outcome?;
        }
        self.vm_info(&vm, &mut inner);
        Ok(found.report(vm.name.as_str()))
    }

    /// Everything but the home. Returns the safe, if it opens, and the right to check what it opens.
    fn check_files(
        self: &Arc<Self>,
        vm: &Arc<Vm>,
        inner: &mut Inner,
        repair: bool,
        why_end: WhyEnd<'_>,
        found: &mut Collected,
    ) -> Result<Option<(Opened<Safe>, Claimed)>, Fault> {
        let _lock = self.exclusive(vm, inner)?;
        let mut emit = |line: &Line| {
            if let Line::Finding(finding) = line {
                found.take(finding.clone());
            }
            Ok(())
        };
        let mut report = Report::new(&mut emit);
        let safe = match self.check_safe(vm, inner, &mut report)? {
            Some(safe) => {
                let claim = self.claim_for_check(vm, &safe, repair)?;
                Some((safe, claim))
            }
            None => None,
        };
        let claims = self.check_disks(vm, inner, why_end, &mut report)?;
        check_folder(&vm.folder, &claims, repair, &mut report).map_err(|e| unheard(&e))?;
        let totals = report.totals();
        found.add(totals);
        Ok(safe)
    }

    fn check_safe(
        &self,
        vm: &Vm,
        inner: &mut Inner,
        report: &mut Report<'_>,
    ) -> Result<Option<Opened<Safe>>, Fault> {
        let what = match self.open_safe(vm, inner) {
            Ok(safe) => return Ok(Some(safe)),
            Err(Fault::Locked { reason, .. }) if reason.code == LockCode::SafeDamaged => {
                reason.detail
            }
            Err(Fault::Sealed(fault)) => fault.to_string(),
            Err(fault) => return Err(fault),
        };
        let remedy = "restore it from a backup; its key is inside, so the home was not looked at";
        damage(report, "vm.safe", what, remedy)?;
        Ok(None)
    }

    /// Looks at every descriptor and payload. Returns the payloads that belong to a disk.
    fn check_disks(
        &self,
        vm: &Vm,
        inner: &Inner,
        why_end: WhyEnd<'_>,
        report: &mut Report<'_>,
    ) -> Result<Claims, Fault> {
        let disks = disk_names(&vm.folder.disks());
        let mut claims = Claims { complete: disks.len() < MAX_DISKS, ..Claims::default() };
        if !claims.complete {
            let what =
                format!("it has {MAX_DISKS} descriptors or more; only so many were looked at");
            damage(report, "disks", what, "move away what is no descriptor of this VM")?;
        }
        for disk in disks {
            if let Some(why) = why_end() {
                return Err(unfinished(vm, why));
            }
            let payload = match self.open_disk(vm, inner, &disk) {
                Ok(opened) => check_payload(vm, &opened.body, report)?,
                // Of a disk whose key cannot be had now nothing is known.
                Err(fault @ Fault::Locked { .. }) if fault.may_pass() => return Err(fault),
                Err(fault) => {
                    let remedy = "restore it from a backup; without it the payload cannot be read";
                    damage(report, &format!("disks/{disk}.disk"), fault.to_string(), remedy)?;
                    claims.complete = false;
                    payload_name(&disk)
                }
            };
            if !claims.payloads.insert(payload.clone()) {
                let what = format!("disk {disk} and another one have this payload");
                let remedy = "delete the disk that was copied; attach neither before";
                damage(report, &format!("disks/{payload}"), what, remedy)?;
            }
        }
        Ok(claims)
    }
}

/// Tells why a check must not go on, when it must not.
pub(crate) type WhyEnd<'a> = &'a dyn Fn() -> Option<&'static str>;

fn why_end(vm: &Vm, asker: &Asker) -> Option<&'static str> {
    if vm.is_wanted() {
        return Some("it gave way to a forced lock, or to the end of hostd");
    }
    asker.is_gone().then_some("whoever asked for it has left")
}

/// Refuses what would race with a check.
fn at_rest(vm: &Vm, inner: &Inner, repair: bool) -> Result<(), Fault> {
    let Some(service) = &inner.service else { return Ok(()) };
    if service.home.is_some() {
        return Err(Fault::wrong_state(
            format!("the home of VM {} is mounted, and would change under a check", vm.name),
            format!("run `coffer vm umount {}` first", vm.name),
        ));
    }
    match service.disks.keys().next() {
        Some(disk) if repair => Err(Fault::wrong_state(
            format!("disk {disk} of VM {} is attached, and a repair needs a VM at rest", vm.name),
            format!("run `coffer disk detach {} {disk}` first, or check without --repair", vm.name),
        )),
        _ => Ok(()),
    }
}

/// Looks at type, length and state of what a descriptor speaks of; returns the name of the payload.
fn check_payload(
    vm: &Vm,
    descriptor: &Descriptor,
    report: &mut Report<'_>,
) -> Result<String, Fault> {
    let path = format!("disks/{}", descriptor.payload);
    let size = descriptor.size;
    let length = open_payload(vm, descriptor, true).and_then(|file| {
        let meta = file.metadata();
        meta.map(|meta| meta.len()).map_err(Fault::io("look at", &vm.folder.disks()))
    });
    match length {
        Err(fault) => damage(report, &path, fault.to_string(), "restore it from a backup")?,
        Ok(length) if length < size => {
            let what = format!("it has {length} bytes, and the disk {size}");
            damage(report, &path, what, "restore it from a backup")?;
        }
        Ok(length) if length > size => {
            let what = format!("it has {length} bytes, and the disk only {size}");
            let remedy = "if the disk was larger once, its descriptor may be an old copy; after a shrink that was \
                          cut short, resize the disk again, with --shrink";
            leftover(report, path, what, remedy)?;
        }
        Ok(_) => {}
    }
    if descriptor.state == State::Importing {
        let what = "an import into this disk has not ended".to_owned();
        let remedy = "if none runs, delete the disk and import it again";
        leftover(report, descriptor_path(&descriptor.name), what, remedy)?;
    }
    Ok(descriptor.payload.clone())
}

fn descriptor_path(disk: &Name) -> String {
    format!("disks/{disk}.disk")
}

fn damage(report: &mut Report<'_>, path: &str, what: String, remedy: &str) -> Result<(), Fault> {
    let (path, mend) = (path.to_owned(), Mend::not(remedy));
    report
        .found(Finding { path, plain: None, grade: Grade::Damaged, what, mend })
        .map_err(|e| unheard(&e))
}

fn leftover(
    report: &mut Report<'_>,
    path: String,
    what: String,
    remedy: &str,
) -> Result<(), Fault> {
    let mend = Mend::not(remedy);
    report
        .found(Finding { path, plain: None, grade: Grade::Leftover, what, mend })
        .map_err(|e| unheard(&e))
}

/// Findings are collected in memory, which takes all of them.
fn unheard(error: &io::Error) -> Fault {
    Fault::Bug(format!("a finding was not taken: {error}"))
}

fn shown(finding: Finding) -> types::Finding {
    let Finding { path, plain, grade, what, mend } = finding;
    let grade = match grade {
        Grade::Damaged => FindingGrade::Damaged,
        Grade::Leftover => FindingGrade::Leftover,
    };
    let (repair, how, failure) = match mend {
        Mend::Not { remedy } => (FindingRepair::None, remedy, None),
        Mend::Possible { how } => (FindingRepair::Possible, how, None),
        Mend::Done { how } => (FindingRepair::Done, how, None),
        Mend::Failed { how, reason } => (FindingRepair::Failed, how, Some(reason)),
    };
    types::Finding { path, plain, grade, what, repair, how, failure }
}

/// The fault of a check that a vmd did not bring to its end.
pub(crate) fn unfinished(vm: &Vm, why: &str) -> Fault {
    Fault::refused(
        ErrorCode::DataPlane,
        format!("the check of VM {} did not come to its end: {why}", vm.name),
        "see the log of hostd, then check again",
    )
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
