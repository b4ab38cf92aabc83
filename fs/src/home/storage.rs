//! What kind of storage a home lies on.
//!
//! Owns the list of file systems that have nothing to tell when a file is closed; must not know files.

use super::error::HomeError;
use std::os::fd::AsFd;

/// File systems of this host's own devices and memory (`linux/magic.h`): an error of theirs shows at the write or at a
/// sync, never first at a close. Every other one is asked.
const LOCAL: [u64; 7] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0x794c_7630, // overlayfs, whose upper layer must be one of the others
];

/// Is there nothing to ask when a file on it is closed?
pub(super) fn is_local(folder: impl AsFd) -> Result<bool, HomeError> {
    let shown = rustix::fs::fstatfs(folder).map_err(HomeError::io("statfs of the home"))?;
    Ok(u64::try_from(shown.f_type).is_ok_and(|kind| LOCAL.contains(&kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_file_systems_on_the_list_are_local() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(!is_local(&proc).unwrap());
        let shm = std::fs::File::open("/dev/shm").unwrap();
        assert!(is_local(&shm).unwrap(), "/dev/shm is tmpfs");
    }
}
