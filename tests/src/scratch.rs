//! A scratch folder whose mounts go away with it.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder for one test. Dropping it unmounts what is mounted below and removes the files.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// A new, empty folder with a short path: a Unix socket path has room for 107 bytes.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("cf-").tempdir().expect("a scratch folder");
        Self { folder }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path below it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Mounts a tmpfs of `bytes` on a new folder `name`.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn tmpfs(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).expect("a folder for the tmpfs");
        let data = CString::new(format!("size={bytes}")).expect("digits have no NUL");
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), Some(data.as_c_str()))
            .expect("mount tmpfs");
        path
    }

    /// Mounts a ramfs, which has no direct I/O, on a new folder `name`.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn ramfs(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).expect("a folder for the ramfs");
        mount("ramfs", &path, "ramfs", MountFlags::empty(), None).expect("mount ramfs");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for mountpoint in mounts_below(self.path()).iter().rev() {
            let _ = unmount(mountpoint, UnmountFlags::DETACH);
        }
    }
}

/// Mount points below `folder`, in the order in which they were mounted.
#[must_use]
pub fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}
