//! What must outlive a restart of the daemon: which VMs an operator locked, which folders were registered, which
//! VMs have a network port, and who this host is.
//!
//! Owns `locked.json`, `registered.json`, `tls.json` and `host-id` of the state folder; must not know why. Every change is written
//! and flushed before the call returns. A file that cannot be read stops the start: taking a damaged
//! `locked.json` for an empty one would unlock VMs.

use crate::fault::Fault;
use crate::files;
use hostd_api::error::ErrorCode;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// File with the identity of this host.
const HOST_ID: &str = "host-id";

/// Version of each file.
const VERSION: u32 = 1;

/// Largest state file in bytes: 100,000 VMs of 40 bytes, and as many paths of usual length.
const MAX_FILE: u64 = 32 << 20;

/// The state folder.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    host: Uuid,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    locked: BTreeSet<Uuid>,
    registered: BTreeSet<PathBuf>,
    tls: BTreeSet<TlsPort>,
}

/// The network port of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsPort {
    vm: Uuid,
    port: u16,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<T: Ord> {
    version: u32,
    items: BTreeSet<T>,
}

impl State {
    /// Reads the state from `folder`, which is made when absent.
    ///
    /// # Errors
    /// [`Fault::Io`], or a refusal with code `damaged` or `unsupported` that names the file.
    pub fn open(folder: &Path) -> Result<Self, Fault> {
        files::folder(folder, 0o700, None)?;
        let current = Current {
            locked: read(&folder.join("locked.json"))?,
            registered: read(&folder.join("registered.json"))?,
            tls: read(&folder.join("tls.json"))?,
        };
        let host = host_id(&folder.join(HOST_ID))?;
        Ok(Self { folder: folder.to_owned(), host, current: Mutex::new(current) })
    }

    /// Identity of this host, made at random when the state folder was. Hosts that share a storage tell each other
    /// apart by it.
    #[must_use]
    pub fn host(&self) -> Uuid {
        self.host
    }

    /// Whether an operator locked this VM.
    #[must_use]
    pub fn is_locked(&self, vm: Uuid) -> bool {
        self.current().locked.contains(&vm)
    }

    /// Remembers that a VM is locked, or is not any more.
    ///
    /// # Errors
    /// [`Fault::Io`]; nothing is changed then.
    pub fn set_locked(&self, vm: Uuid, locked: bool) -> Result<(), Fault> {
        let mut current = self.current();
        let mut next = current.locked.clone();
        let changed = if locked { next.insert(vm) } else { next.remove(&vm) };
        if changed {
            write(&self.folder.join("locked.json"), &next)?;
            current.locked = next;
        }
        Ok(())
    }

    /// Folders that were registered by path.
    #[must_use]
    pub fn registered(&self) -> BTreeSet<PathBuf> {
        self.current().registered.clone()
    }

    /// Remembers that a folder is registered, or is not any more.
    ///
    /// # Errors
    /// [`Fault::Io`]; nothing is changed then.
    pub fn set_registered(&self, folder: &Path, registered: bool) -> Result<(), Fault> {
        let mut current = self.current();
        let mut next = current.registered.clone();
        let changed = if registered { next.insert(folder.to_owned()) } else { next.remove(folder) };
        if changed {
            write(&self.folder.join("registered.json"), &next)?;
            current.registered = next;
        }
        Ok(())
    }

    /// The network port of a VM.
    #[must_use]
    pub fn tls_port(&self, vm: Uuid) -> Option<u16> {
        self.current().tls.iter().find(|entry| entry.vm == vm).map(|entry| entry.port)
    }

    /// Gives a VM a port that no other has: `wanted`, or the one it has, or the first free one of `range`. `None`
    /// when there is none.
    ///
    /// # Errors
    /// [`Fault::Io`]; nothing is changed then.
    pub fn assign_tls_port(
        &self,
        vm: Uuid,
        wanted: Option<u16>,
        range: RangeInclusive<u16>,
    ) -> Result<Option<u16>, Fault> {
        let mut current = self.current();
        let taken = |port: &u16| current.tls.iter().any(|e| e.vm != vm && e.port == *port);
        let own = current.tls.iter().find(|entry| entry.vm == vm).map(|entry| entry.port);
        let kept = wanted.or(own.filter(|port| range.contains(port)));
        let port = match kept {
            Some(port) => Some(port).filter(|port| !taken(port)),
            None => range.into_iter().find(|port| !taken(port)),
        };
        if let Some(port) = port {
            self.write_tls(&mut current, vm, Some(port))?;
        }
        Ok(port)
    }

    /// Puts the port of a VM back to what it was, or takes it away.
    ///
    /// # Errors
    /// [`Fault::Io`]; nothing is changed then.
    pub fn set_tls_port(&self, vm: Uuid, port: Option<u16>) -> Result<(), Fault> {
        self.write_tls(&mut self.current(), vm, port)
    }

    fn write_tls(&self, current: &mut Current, vm: Uuid, port: Option<u16>) -> Result<(), Fault> {
        let mut next = current.tls.clone();
        next.retain(|entry| entry.vm != vm);
        next.extend(port.map(|port| TlsPort { vm, port }));
        if next != current.tls {
            write(&self.folder.join("tls.json"), &next)?;
            current.tls = next;
        }
        Ok(())
    }

    /// A panic elsewhere cannot leave it half changed: sets are replaced whole, after the file.
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the identity of this host, or makes one.
fn host_id(path: &Path) -> Result<Uuid, Fault> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            Fault::refused(
                ErrorCode::Damaged,
                format!("{} is damaged: it holds no UUID", path.display()),
                "restore it, or remove it: this host then counts as another one, and takes homes that it held \
                 itself by force only",
            )
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let id = uuid::Builder::from_random_bytes(crypto::random_array()?).into_uuid();
            files::replace(path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(e) => Err(Fault::io("read", path)(e)),
    }
}

fn read<T: Ord + DeserializeOwned>(path: &Path) -> Result<BTreeSet<T>, Fault> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(Fault::io("read", path)(e)),
    };
    if length > MAX_FILE {
        return Err(damaged(path, &format!("it has {length} bytes")));
    }
    let text = std::fs::read(path).map_err(Fault::io("read", path))?;
    let stored: Stored<T> =
        serde_json::from_slice(&text).map_err(|e| damaged(path, &e.to_string()))?;
    if stored.version != VERSION {
        return Err(Fault::refused(
            ErrorCode::Unsupported,
            format!(
                "{} has version {}, this hostd knows {VERSION}",
                path.display(),
                stored.version
            ),
            "start the hostd that wrote it, or a newer one",
        ));
    }
    Ok(stored.items)
}

fn damaged(path: &Path, reason: &str) -> Fault {
    Fault::refused(
        ErrorCode::Damaged,
        format!("{} is damaged: {reason}", path.display()),
        "restore it, or move it away and lock the VMs again that must stay locked",
    )
}

fn write<T: Ord + Serialize + Clone>(path: &Path, items: &BTreeSet<T>) -> Result<(), Fault> {
    let stored = Stored { version: VERSION, items: items.clone() };
    let text = serde_json::to_vec_pretty(&stored).map_err(|e| Fault::Bug(e.to_string()))?;
    files::replace(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let state = State::open(dir.path()).unwrap();
        state.set_locked(one, true).unwrap();
        state.set_locked(two, true).unwrap();
        state.set_locked(two, false).unwrap();
        state.set_registered(Path::new("/ds/a"), true).unwrap();
        let again = State::open(dir.path()).unwrap();
        assert!(again.is_locked(one) && !again.is_locked(two));
        assert_eq!(again.registered().into_iter().collect::<Vec<_>>(), [PathBuf::from("/ds/a")]);
    }

    #[test]
    fn a_host_stays_who_it_is() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let host = State::open(dir.path()).unwrap().host();
        assert_eq!(State::open(dir.path()).unwrap().host(), host);
        assert_ne!(State::open(other.path()).unwrap().host(), host);
        std::fs::write(dir.path().join("host-id"), "nobody").unwrap();
        let message = State::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("host-id"), "{message}");
    }

    #[test]
    fn no_two_vms_have_one_port() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two, three) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let state = State::open(dir.path()).unwrap();
        assert_eq!(state.assign_tls_port(one, None, 7..=8).unwrap(), Some(7));
        assert_eq!(state.assign_tls_port(two, Some(7), 7..=8).unwrap(), None);
        assert_eq!(state.assign_tls_port(two, None, 7..=8).unwrap(), Some(8));
        assert_eq!(state.assign_tls_port(three, None, 7..=8).unwrap(), None);
        assert_eq!(state.assign_tls_port(one, None, 7..=8).unwrap(), Some(7));
        let again = State::open(dir.path()).unwrap();
        assert_eq!((again.tls_port(one), again.tls_port(three)), (Some(7), None));
        again.set_tls_port(one, None).unwrap();
        assert_eq!(again.assign_tls_port(three, None, 7..=8).unwrap(), Some(7));
    }

    #[test]
    fn a_damaged_or_later_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locked.json");
        for (text, reason) in
            [("{", "is damaged"), ("", "is damaged"), ("{\"version\":2,\"items\":[]}", "version 2")]
        {
            std::fs::write(&path, text).unwrap();
            let message = State::open(dir.path()).unwrap_err().to_string();
            assert!(message.contains("locked.json") && message.contains(reason), "{message}");
        }
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("locked.json.new")).unwrap();
        assert!(state.set_locked(Uuid::from_u128(1), true).is_err());
        assert!(!state.is_locked(Uuid::from_u128(1)));
    }
}
