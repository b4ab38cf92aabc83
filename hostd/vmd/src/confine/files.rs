//! Landlock: which files may be opened from now on.
//!
//! Owns the rules. Descriptors that are open already keep working; the rules are about new ones, and not about
//! modes, owners, times and attributes: `root` leaves nothing to change there. Flow: [`restrict`] makes a rule
//! set with two places in it and puts the thread under it.

use super::root::FUSE;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope,
};
use std::os::fd::BorrowedFd;

/// The newest rules we know and have tested; an older kernel enforces those of them that it has.
const KNOWN: ABI = ABI::V6;

/// Only the VM folder, and /dev/fuse; no TCP, no abstract sockets or signals to the outside.
pub(super) fn restrict(folder: BorrowedFd<'_>) -> Result<Vec<String>, String> {
    let status = apply(folder).map_err(|e| e.to_string())?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(vec!["landlock".into(), "landlock-scopes".into()]),
        RulesetStatus::PartiallyEnforced => Ok(vec!["landlock".into()]),
        RulesetStatus::NotEnforced => Err("this kernel has no landlock, or it is off".into()),
    }
}

fn apply(folder: BorrowedFd<'_>) -> Result<RestrictionStatus, RulesetError> {
    let fuse_rights = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rule(PathBeneath::new(folder, AccessFs::from_all(KNOWN)))?;
    // A host without FUSE serves disks, and no homes.
    if let Ok(fuse) = PathFd::new(FUSE) {
        rules = rules.add_rule(PathBeneath::new(fuse, fuse_rights))?;
    }
    rules.restrict_self()
}
