//! A home served inside the test, without the daemons: a state is opened, checked and closed in milliseconds.
//!
//! Owns the key, and mounts that are always taken away; must not know what is in the home.

use cryptfs::door::{Caching, FUSE_SUBTYPE, HomeServer, Settings, serve};
use cryptfs::fsck::{Grade, Line, Report};
use cryptfs::home::{Home, check};
use cryptfs::safe::Names;
use crypto::{Arena, HomeKey, KeySheet, SheetKey};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Threads of a mount; one program uses it.
const THREADS: usize = 2;

/// The key of a home, and what goes with it.
pub(super) struct Keys {
    key: HomeKey,
    vm: Uuid,
    arena: Arena,
}

/// A mounted home.
pub(super) struct Served {
    point: PathBuf,
    server: Option<HomeServer>,
}

/// What a check of a home has found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) damaged: Vec<String>,
    pub(super) leftovers: Vec<String>,
}

impl Keys {
    pub(super) fn new() -> Self {
        let arena = Arena::new(1 << 20).unwrap();
        Self { key: HomeKey::generate(&arena).unwrap(), vm: Uuid::new_v4(), arena }
    }

    fn key(&self) -> HomeKey {
        // A key cannot be cloned; it travels in a sheet, as from hostd to vmd.
        let sheet = KeySheet::seal(&[SheetKey::Home(&self.key)]).unwrap();
        KeySheet::open(sheet, &self.arena).unwrap().take_home().unwrap()
    }

    pub(super) fn serve(&self, store: &Path, point: &Path, caching: Caching) -> Served {
        fs::create_dir_all(point).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        let options = CString::new(options).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("coffer:cut", point, format!("fuse.{FUSE_SUBTYPE}"), flags, options.as_c_str())
            .unwrap();
        let mut served = Served { point: point.to_owned(), server: None };
        let folder = OwnedFd::from(File::open(store).unwrap());
        let home =
            Home::open(folder, self.key(), self.vm, Names::Plain, self.arena.clone()).unwrap();
        let settings = Settings { threads: THREADS, caching };
        served.server = Some(serve(home, OwnedFd::from(device), settings).unwrap());
        served
    }

    pub(super) fn check(&self, store: &Path, repair: bool) -> Findings {
        let mut findings = Findings::default();
        let mut note = |line: &Line| {
            if let Line::Finding(finding) = line {
                let list = match finding.grade {
                    Grade::Damaged => &mut findings.damaged,
                    Grade::Leftover => &mut findings.leftovers,
                };
                list.push(format!("{}: {} ({:?})", finding.path, finding.what, finding.mend));
            }
            Ok(())
        };
        let folder = OwnedFd::from(File::open(store).unwrap());
        let mut report = Report::new(&mut note);
        let arena = self.arena.clone();
        check::check(folder, self.key(), self.vm, Names::Plain, arena, repair, &mut report)
            .unwrap();
        findings
    }
}

impl Served {
    /// Unmounts it; waits a little for the kernel, which tells of a close late.
    pub(super) fn unmount(mut self) {
        let start = Instant::now();
        while let Err(error) = unmount(&self.point, UnmountFlags::empty()) {
            assert!(start.elapsed() < Duration::from_secs(20), "cannot unmount: {error}");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.server.take().unwrap().join().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.server.is_some() {
            let _ = unmount(&self.point, UnmountFlags::DETACH);
        }
    }
}
