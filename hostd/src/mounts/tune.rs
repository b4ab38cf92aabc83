//! The kernel's limits of a mount, which are too low for a home by default.
//!
//! Owns what is written to the backing device information of a mount (Linux,
//! Documentation/ABI/testing/sysfs-class-bdi); must not know the VM. Flow: `service` asks once the mount is served,
//! since the kernel sets the read-ahead again when it first talks to the server.

use super::Device;
use hostd_api::types::HomeMode;
use std::path::Path;

/// Where the kernel shows backing devices.
const BDI: &str = "/sys/class/bdi";

/// How far the kernel reads ahead of a program that reads in order: four requests of the largest size (1 MiB), so that
/// the next ones are decrypted while one is consumed. By default requests have 128 KiB.
const READ_AHEAD_KIB: u32 = 4096;

/// Which share of the memory for pages that are not written yet one home may have. FUSE mounts have 1 % by default and
/// must keep to it (`strict_limit`), since anybody may mount one; a large write then waits most of the time. The
/// server of a home is ours, and the limits of the whole host still hold. Only where the kernel collects writes.
const MAX_RATIO: u32 = 100;

/// Sets the limits of a mount, and says what could not be set.
#[must_use]
pub fn tune(device: Device, mode: HomeMode) -> Vec<String> {
    write(&Path::new(BDI).join(device.to_string()), mode)
}

fn write(folder: &Path, mode: HomeMode) -> Vec<String> {
    let collects = mode == HomeMode::Exclusive;
    let wanted = [
        ("read_ahead_kb", READ_AHEAD_KIB, true),
        ("strict_limit", 0, collects),
        ("max_ratio", MAX_RATIO, collects),
    ];
    let set = |(name, value, wanted): (&str, u32, bool)| {
        let path = folder.join(name);
        let written = wanted.then(|| std::fs::write(&path, value.to_string()))?;
        written.err().map(|e| format!("cannot write {value} to {}: {e}", path.display()))
    };
    wanted.into_iter().filter_map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_by_mode_and_failures_are_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(write(dir.path(), HomeMode::Shared), Vec::<String>::new());
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("read_ahead_kb"), "4096");
        assert!(!dir.path().join("max_ratio").exists());
        assert_eq!(write(dir.path(), HomeMode::Exclusive), Vec::<String>::new());
        assert_eq!((read("max_ratio"), read("strict_limit")), ("100".into(), "0".into()));

        let absent = dir.path().join("0:77");
        let said = write(&absent, HomeMode::Exclusive);
        assert_eq!(said.len(), 3);
        assert!(said[0].contains("0:77/read_ahead_kb"), "{said:?}");
    }
}
