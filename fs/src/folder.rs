//! Where the files of a VM are.
//!
//! Owns the layout of a VM folder (`docs/format.md`, "VM folder"); does no I/O and must not know what
//! is inside the files.

use crate::name::Name;
use std::path::{Path, PathBuf};

/// End of the file name of a descriptor.
pub const DESCRIPTOR_SUFFIX: &str = ".disk";

/// End of the file name of a payload.
pub const PAYLOAD_SUFFIX: &str = ".data";

/// The folder of one VM on a datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmFolder {
    path: PathBuf,
}

impl VmFolder {
    /// The folder at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `vm.safe`: who the VM is, the wrapped home key, the policy.
    pub fn safe(&self) -> PathBuf {
        self.path.join("vm.safe")
    }

    /// `home`: the ciphertext tree of the VM home.
    pub fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// `disks`: descriptors and payloads.
    pub fn disks(&self) -> PathBuf {
        self.path.join("disks")
    }

    /// `disks/NAME.disk`: size, unit, where the payload is, the wrapped disk key.
    pub fn descriptor(&self, disk: &Name) -> PathBuf {
        self.disks().join(format!("{disk}{DESCRIPTOR_SUFFIX}"))
    }

    /// `disks/NAME.data`: the ciphertext of the disk. A descriptor may name another file of `disks`.
    pub fn payload(&self, disk: &Name) -> PathBuf {
        self.disks().join(payload_name(disk))
    }

    /// `leases`: which hosts use the home, and how.
    pub fn leases(&self) -> PathBuf {
        self.path.join("leases")
    }

    /// `.lock`: held by flock for as long as a host process serves the VM.
    pub fn lock(&self) -> PathBuf {
        self.path.join(".lock")
    }
}

/// File name of the payload of `disk`.
pub fn payload_name(disk: &Name) -> String {
    format!("{disk}{PAYLOAD_SUFFIX}")
}

/// The disk whose descriptor has this file name, if it is a name of a descriptor.
pub fn disk_of(file_name: &str) -> Option<Name> {
    file_name.strip_suffix(DESCRIPTOR_SUFFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_layout() {
        let folder = VmFolder::new("/ds/web01");
        let disk: Name = "root".parse().unwrap();
        assert_eq!(folder.safe(), Path::new("/ds/web01/vm.safe"));
        assert_eq!(folder.home(), Path::new("/ds/web01/home"));
        assert_eq!(folder.descriptor(&disk), Path::new("/ds/web01/disks/root.disk"));
        assert_eq!(folder.payload(&disk), Path::new("/ds/web01/disks/root.data"));
        assert_eq!(folder.leases(), Path::new("/ds/web01/leases"));
        assert_eq!(folder.lock(), Path::new("/ds/web01/.lock"));
    }

    #[test]
    fn descriptors_are_told_from_other_files() {
        assert_eq!(disk_of("root.disk").unwrap().as_str(), "root");
        assert_eq!(disk_of("a.disk.disk").unwrap().as_str(), "a.disk");
        for other in ["root.data", ".disk", "root.disk~", ".root.disk", "disk"] {
            assert_eq!(disk_of(other), None, "{other}");
        }
    }
}
