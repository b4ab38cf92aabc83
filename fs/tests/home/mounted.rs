//! A store with its key, and a mount of it that is always taken away.

use cryptfs::door::{Caching, FUSE_SUBTYPE, HomeServer, Settings, serve};
use cryptfs::home::{Home, names};
use cryptfs::safe::Names;
use crypto::{Arena, HomeKey, KeySheet, SheetKey, SivKey};
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use uuid::Uuid;

/// Threads of each mount.
const THREADS: usize = 4;

/// A ciphertext folder and the key for it.
pub(crate) struct Store {
    key: HomeKey,
    pub(crate) vm: Uuid,
    names: Names,
    arena: Arena,
    /// Before the folder in the order of drops.
    _small: Option<Small>,
    pub(crate) folder: TempDir,
}

impl Store {
    pub(crate) fn new() -> Store {
        let arena = Arena::new(256 * 1024).unwrap();
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let key = HomeKey::generate(&arena).unwrap();
        Store { folder, key, vm: Uuid::new_v4(), names: crate::NAMES, arena, _small: None }
    }

    /// On a storage of its own with room for so many bytes; needs root, like a mount.
    pub(crate) fn small(bytes: u64) -> Option<Store> {
        Store::over(|path| {
            let options = CString::new(format!("size={bytes},mode=755")).unwrap();
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            rustix::mount::mount("coffer-test", path, "tmpfs", flags, options.as_c_str()).unwrap();
        })
    }

    /// On a storage that `mount` puts on the folder; needs root.
    pub(crate) fn over(mount: impl FnOnce(&Path)) -> Option<Store> {
        if !rustix::process::geteuid().is_root() {
            skip("not root");
            return None;
        }
        let store = Store::new();
        mount(store.folder.path());
        let path = store.folder.path().to_path_buf();
        Some(Store { _small: Some(Small(path)), ..store })
    }

    /// The same store, taken for one with this policy.
    pub(crate) fn with(self, names: Names) -> Store {
        Store { names, ..self }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.names == Names::Encrypted
    }

    /// Longest name.
    pub(crate) fn longest(&self) -> usize {
        if self.is_encrypted() { names::MAX_PLAIN } else { 255 }
    }

    /// Where a file's ciphertext lies.
    pub(crate) fn below(&self, path: &str) -> PathBuf {
        let mut below = self.folder.path().to_path_buf();
        below.extend(Path::new(path).iter().map(|name| self.stored(name)));
        below
    }

    /// What the storage calls a name.
    fn stored(&self, name: &OsStr) -> OsString {
        if !self.is_encrypted() {
            return name.to_owned();
        }
        let key = SivKey::derive(&self.key, &self.arena, names::KEY_INFO).unwrap();
        let encoded = names::encode(name.as_bytes(), &key).unwrap();
        OsString::from_vec(encoded.as_bytes().to_vec())
    }

    /// Opens it without mounting it.
    pub(crate) fn home(&self) -> Home {
        // A key cannot be cloned; it travels in a sheet, as from hostd to vmd.
        let sheet = KeySheet::seal(&[SheetKey::Home(&self.key)]).unwrap();
        let key = KeySheet::open(sheet, &self.arena).unwrap().take_home().unwrap();
        let folder = OwnedFd::from(File::open(self.folder.path()).unwrap());
        Home::open(folder, key, self.vm, self.names, self.arena.clone()).unwrap()
    }

    /// Mounts it, shared; `None`, said aloud, where that is impossible.
    pub(crate) fn mount(&self) -> Option<Mounted> {
        self.mount_as(Caching::Shared)
    }

    /// Mounts it; `None`, said aloud, where that is impossible.
    pub(crate) fn mount_as(&self, caching: Caching) -> Option<Mounted> {
        if !rustix::process::geteuid().is_root() {
            return skip("not root");
        }
        let Ok(device) = OpenOptions::new().read(true).write(true).open("/dev/fuse") else {
            return skip("no /dev/fuse");
        };
        let point = TempDir::new().unwrap();
        fs::set_permissions(point.path(), Permissions::from_mode(0o755)).unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        let options = CString::new(options).unwrap();
        let kind = format!("fuse.{FUSE_SUBTYPE}");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("coffer:test", point.path(), kind, flags, options.as_c_str()).unwrap();
        let settings = Settings { threads: THREADS, caching };
        let mut mounted = Mounted { point: Some(point), server: None };
        mounted.server = Some(serve(self.home(), OwnedFd::from(device), settings).unwrap());
        Some(mounted)
    }
}

/// Says why a test of a mounted home is skipped.
pub(crate) fn skip(why: &str) -> Option<Mounted> {
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("SKIPPED: {why}; this test mounts a home\n"),
    );
    None
}

/// The storage under a small store, taken away before its folder is.
pub(crate) struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A mounted home.
pub(crate) struct Mounted {
    point: Option<TempDir>,
    server: Option<HomeServer>,
}

impl Mounted {
    pub(crate) fn path(&self) -> &Path {
        self.point.as_ref().unwrap().path()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Waits for the end of a mount that was taken away already.
    pub(crate) fn join(mut self) {
        self.server.take().unwrap().join().unwrap();
    }

    /// Unmounts as an operator does; fails if something is still open.
    pub(crate) fn unmount(mut self) {
        let path = self.path();
        eventually(|| rustix::mount::unmount(path, UnmountFlags::empty())).unwrap();
        self.server.take().unwrap().join().unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(point) = self.point.take() else { return };
        if self.server.is_some() || std::thread::panicking() {
            // Whatever is still open must not keep the mount: the process exits soon.
            let _ = rustix::mount::unmount(point.path(), UnmountFlags::DETACH);
        }
        if let Some(server) = self.server.take().filter(|_| !std::thread::panicking()) {
            let _ = server.join();
        }
    }
}

/// Tries again for a moment. What was closed here may be open a little longer: in a child that another test
/// forked and that has not come to its exec, or in the server, which the kernel tells of a close later.
pub(crate) fn eventually<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            done => return done,
        }
    }
}

/// Bytes that differ at every place and are never zero.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 256 + at * 7) % 255).unwrap() + 1).collect()
}
