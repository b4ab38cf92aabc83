//! Loop devices over images, and the file systems on them.
//!
//! Owns attaching, mounting and the way back, in a fixed order, also after a panic; must not know what is written.

use crate::command;
use crate::wait;
use rustix::fs::{Advice, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A loop device. Dropping it takes it off its file.
#[derive(Debug)]
pub struct Loop {
    device: PathBuf,
}

/// A mounted file system. Dropping it unmounts it.
#[derive(Debug)]
pub struct Mounted {
    point: PathBuf,
}

impl Loop {
    /// Puts a device on a file. With `direct`, nothing is kept or merged between the two.
    ///
    /// # Panics
    /// When there is none to be had.
    #[must_use]
    pub fn attach(file: &Path, direct: bool) -> Self {
        let direct = if direct { "--direct-io=on" } else { "--direct-io=off" };
        let file = file.to_str().expect("a path in UTF-8");
        let device = command::ok("losetup", &["--find", "--show", direct, file]);
        Self { device: device.trim().into() }
    }

    /// Whether it reads and writes past the page cache of its file.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        let name = self.device.file_name().unwrap_or_default();
        let dio = Path::new("/sys/block").join(name).join("loop/dio");
        fs::read_to_string(dio).is_ok_and(|text| text.trim() == "1")
    }

    /// Waits until the kernel has given up what was mounted from it, and forgets what it has read of it. Both go by
    /// themselves with the unmount, but not at once: a process that another test starts in a mount namespace of its own
    /// has a copy of every mount for a moment, and until then a new mount would show the old file system. And a program
    /// that lists devices may just have it open.
    ///
    /// # Panics
    /// When somebody keeps it.
    pub fn free(&self) {
        // The kernel refuses an exclusive open of what is mounted (open(2), O_EXCL).
        let flags = i32::try_from(OFlags::EXCL.bits()).expect("a small flag");
        let open = || File::options().read(true).custom_flags(flags).open(&self.device).ok();
        let device = wait::until("the loop device is free", wait::STEP, open);
        rustix::fs::fadvise(&device, 0, None, Advice::DontNeed).expect("advice");
    }

    /// Mounts what is on it. The kernel brings its journal in order first, as after a loss of power.
    ///
    /// # Errors
    /// The kernel finds no sound file system.
    ///
    /// # Panics
    /// When the mount point cannot be made.
    pub fn mount(&self, point: &Path, kind: &str, options: &str) -> Result<Mounted, Errno> {
        fs::create_dir_all(point).expect("a mount point");
        let options = CString::new(options).expect("no NUL");
        let flags = MountFlags::NOATIME;
        mount(&self.device, point, kind, flags, options.as_c_str())?;
        Ok(Mounted { point: point.to_owned() })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let device = self.device.to_str().unwrap_or_default();
        let said = command::run("losetup", &["--detach", device], wait::STEP);
        if said.code != 0 {
            eprintln!("{said}");
        }
    }
}

impl Mounted {
    /// Where.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Unmounts it; waits a little for those who are about to close what they have open.
    ///
    /// # Panics
    /// When somebody keeps it.
    pub fn unmount(self) {
        let start = Instant::now();
        loop {
            match unmount(&self.point, UnmountFlags::empty()) {
                Ok(()) => break,
                Err(error) if start.elapsed() > wait::STEP => panic!("cannot unmount: {error}"),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        }
        std::mem::forget(self);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.point, UnmountFlags::DETACH);
    }
}
