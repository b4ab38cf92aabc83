//! Mounts a folder as it is, through the same FUSE transport as a home: the mark of `tools/bench/home`.
//!
//! `passthrough SOURCE MOUNTPOINT shared|exclusive` serves until it is unmounted, as root. It does what the rows of
//! the bench need, and as little as it can: what a home is slower by is what encryption and its safety cost. Nobody
//! should use it for anything else: it keeps no set-user bits in order and passes on no locks, lists or links.
//! Owns the command line and the mount; `server` answers the kernel. It must not know a key.

mod attr;
mod folder;
mod nodes;
mod server;

use cryptfs::door::{Caching, FUSE_SUBTYPE};
use folder::Server;
use fuser::{Config, Session, SessionACL};
use rustix::mount::MountFlags;
use std::error::Error;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [source, point, mode] = &words[..] else {
        return Err("usage: passthrough SOURCE MOUNTPOINT shared|exclusive".into());
    };
    let caching = match mode.as_str() {
        "shared" => Caching::Shared,
        "exclusive" => Caching::Exclusive,
        other => return Err(format!("{other} is neither shared nor exclusive").into()),
    };
    let server = Server::new(OwnedFd::from(File::open(source)?), caching);
    let device = mount(Path::new(point))?;
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.clone_fd = true;
    config.n_threads = Some(threads());
    Session::from_fd(server, device, SessionACL::All, config)?.run()?;
    Ok(())
}

/// As many as `vmd` has for a home.
fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    processors.saturating_mul(2).clamp(4, 16)
}

/// Mounted as a home is.
fn mount(point: &Path) -> Result<OwnedFd, Box<dyn Error>> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let options = CString::new(format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    ))?;
    let (kind, flags) = (format!("fuse.{FUSE_SUBTYPE}"), MountFlags::NODEV | MountFlags::NOSUID);
    rustix::mount::mount("coffer:passthrough", point, kind, flags, options.as_c_str())?;
    Ok(device.into())
}
