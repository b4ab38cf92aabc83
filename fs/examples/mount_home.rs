//! Mounts a home without the daemons, for file system suites: they then test the home and nothing around it.
//!
//! `mount_home STORE MOUNTPOINT shared|exclusive plain|encrypted` serves the folder STORE until it is unmounted, as
//! root; the last word says how it stores names. The home key lies beside it in STORE.key, wrapped by a KEK from a passphrase that everybody knows: test data only.

use cryptfs::door::{Caching, FUSE_SUBTYPE, Settings, serve};
use cryptfs::home::Home;
use cryptfs::safe::Names;
use crypto::{Arena, Argon2Params, HomeKey, Kek, Passphrase};
use rustix::mount::MountFlags;
use std::error::Error;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use uuid::Uuid;

/// Threads that answer the kernel.
const THREADS: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [store, point, mode, names] = &words[..] else {
        return Err("usage: mount_home STORE MOUNTPOINT shared|exclusive plain|encrypted".into());
    };
    let caching = match mode.as_str() {
        "shared" => Caching::Shared,
        "exclusive" => Caching::Exclusive,
        other => return Err(format!("{other} is neither shared nor exclusive").into()),
    };
    let names = match names.as_str() {
        "plain" => Names::Plain,
        "encrypted" => Names::Encrypted,
        other => return Err(format!("{other} is neither plain nor encrypted").into()),
    };
    let arena = Arena::new(8 << 20)?;
    let key = home_key(&arena, &format!("{store}.key"))?;
    let home = Home::open(OwnedFd::from(File::open(store)?), key, Uuid::nil(), names, arena)?;
    let device = mount(Path::new(point))?;
    serve(home, device, Settings { threads: THREADS, caching })?.join()?;
    Ok(())
}

/// The key of the file, made when there is none.
fn home_key(arena: &Arena, path: &str) -> Result<HomeKey, Box<dyn Error>> {
    let params = Argon2Params { memory_kib: 8192, passes: 1, lanes: 1, salt: [7; 16] };
    let passphrase = Passphrase::read(arena, &b"test data only"[..])?;
    let kek = Kek::from_passphrase(arena, &passphrase, &params)?;
    match fs::read(path) {
        Ok(wrapped) => Ok(kek.open(arena, &wrapped)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = HomeKey::generate(arena)?;
            fs::write(path, kek.wrap(&key)?)?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}

fn mount(point: &Path) -> Result<OwnedFd, Box<dyn Error>> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let options = CString::new(format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    ))?;
    let kind = format!("fuse.{FUSE_SUBTYPE}");
    // Set-user programs and devices are among what suites try.
    rustix::mount::mount("coffer:suite", point, kind, MountFlags::empty(), options.as_c_str())?;
    Ok(device.into())
}
