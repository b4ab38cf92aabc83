//! Capabilities: what root may do beside files of its own.
//!
//! Owns the list of those that stay. Flow: [`drop_all_but_needed`] clears all others from every set, for good.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// What the data plane needs:
/// - `CHOWN`, `FOWNER`, `FSETID`: the home gives its files the owners and modes that its users ask for;
/// - `DAC_OVERRIDE`, `DAC_READ_SEARCH`: VM folders belong to whoever runs QEMU, the kernel has checked the
///   caller of the mount against the modes (`default_permissions`);
/// - `IPC_LOCK`: memory that is mapped later is locked, too.
///
/// Not `MKNOD`: a home is mounted `nodev`, so a device in it would be of no use, and one made in the VM folder is
/// a way to the host. Device nodes get EPERM; fifos and sockets need no capability.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::IPC_LOCK);

/// Drops every other capability, from the bounding set as well.
pub(super) fn drop_all_but_needed() -> Result<Vec<String>, String> {
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        match remove_capability_from_bounding_set(capability) {
            // EINVAL: the kernel does not know this one. EPERM: without CAP_SETPCAP, as an ordinary user, where
            // no-new-privileges already makes the bounding set moot.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(e) => return Err(format!("the bounding set: {e}")),
        }
    }
    clear_ambient_capability_set().map_err(|e| format!("the ambient set: {e}"))?;
    let now = capabilities(None).map_err(|e| format!("reading the sets: {e}"))?;
    let kept = CapabilitySets {
        effective: now.effective.intersection(KEPT),
        permitted: now.permitted.intersection(KEPT),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, kept).map_err(|e| format!("the sets: {e}"))?;
    Ok(vec!["capabilities".into()])
}
