//! `coffer vm fsck`: what a check found, one line for each finding.

use super::kebab;
use crate::error::CliError;
use crate::table::clean;
use hostd_api::types::{CheckReport, Finding, FindingRepair};

/// The report for people.
pub(super) fn text(report: &CheckReport) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text.push_str(&line(finding));
    }
    if report.unlisted > 0 {
        text.push_str(&format!("and {} more findings, which are not listed\n", report.unlisted));
    }
    let CheckReport { vm, objects, damaged, leftovers, mended, .. } = report;
    text.push_str(&format!("VM {vm}: {objects} objects looked at, "));
    text.push_str(&match (damaged, leftovers, mended) {
        (0, 0, 0) => String::from("all in order\n"),
        _ => format!("{damaged} damaged, {leftovers} left over, {mended} mended\n"),
    });
    text
}

/// `PATH: damaged: WHAT (what can be done)`; where names are encrypted, `PATH, PLAIN in the home: ...`.
fn line(finding: &Finding) -> String {
    let Finding { path, plain, grade, what, repair, how, failure } = finding;
    let way = match repair {
        FindingRepair::None => format!("no repair: {how}"),
        FindingRepair::Possible => format!("--repair {how}"),
        FindingRepair::Done => format!("mended: {how}"),
        FindingRepair::Failed => {
            let reason = failure.as_deref().unwrap_or("for no reason that is known");
            format!("--repair {how}, but failed: {reason}")
        }
    };
    let plain = plain.as_ref().map(|plain| format!(", {} in the home", clean(plain)));
    let plain = plain.unwrap_or_default();
    format!("{}{plain}: {}: {} ({})\n", clean(path), kebab(grade), clean(what), clean(&way))
}

/// Damage that is still there.
pub(super) fn failure(report: &CheckReport) -> Option<CliError> {
    let (vm, damaged) = (report.vm.clone(), report.damaged);
    (damaged > 0).then_some(CliError::VmDamaged { vm, damaged })
}
