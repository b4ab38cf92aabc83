//! The VMs that this host knows.
//!
//! Owns the table by name and its rules (no name and no identity twice, a limit); must not do I/O. The lock
//! of the table is held for a look-up only, never while a VM is worked on.

use crate::fault::Fault;
use crate::vm::Vm;
use cryptfs::name::Name;
use hostd_api::error::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// The table.
#[derive(Debug)]
pub struct Inventory {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    vms: BTreeMap<Name, Arc<Vm>>,
    /// Names of VMs that are being made.
    making: BTreeSet<Name>,
}

impl Inventory {
    /// An empty table for at most `limit` VMs.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, table: Mutex::default() }
    }

    /// The VM of that name.
    ///
    /// # Errors
    /// A refusal: `invalid-argument` for what is no name, `not-found`.
    pub fn get(&self, name: &str) -> Result<Arc<Vm>, Fault> {
        let name = parse_name("VM", name)?;
        self.table().vms.get(&name).cloned().ok_or_else(|| missing(&name))
    }

    /// The VM of that identity.
    #[must_use]
    pub fn by_id(&self, id: Uuid) -> Option<Arc<Vm>> {
        self.table().vms.values().find(|vm| vm.id == id).cloned()
    }

    /// All VMs, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Vm>> {
        self.table().vms.values().cloned().collect()
    }

    /// Adds a VM.
    ///
    /// # Errors
    /// A refusal: `already-exists` naming the VM that has the name or the identity; the limit.
    pub fn insert(&self, vm: Arc<Vm>) -> Result<(), Fault> {
        let mut table = self.table();
        if let Some(other) = table.vms.get(&vm.name) {
            return Err(taken(&vm.name, &format!("of {}", other.folder.path().display())));
        }
        if let Some(other) = table.vms.values().find(|other| other.id == vm.id) {
            return Err(Fault::refused(
                ErrorCode::AlreadyExists,
                format!(
                    "{} has the identity {} of VM {}; it looks like a copy",
                    vm.folder.path().display(),
                    vm.id,
                    other.name
                ),
                "remove the copy",
            ));
        }
        if table.vms.len() >= self.limit {
            return Err(Fault::refused(
                ErrorCode::HostLimit,
                format!("this host knows {} VMs, which is its limit", self.limit),
                "raise limits.vms in the configuration",
            ));
        }
        table.vms.insert(vm.name.clone(), vm);
        Ok(())
    }

    /// Keeps a name for a VM that is being made, until the guard is dropped.
    ///
    /// # Errors
    /// A refusal with code `already-exists`.
    pub fn reserve(&self, name: &Name) -> Result<Reservation<'_>, Fault> {
        let mut table = self.table();
        if let Some(other) = table.vms.get(name) {
            return Err(taken(name, &format!("of {}", other.folder.path().display())));
        }
        if !table.making.insert(name.clone()) {
            return Err(taken(name, "of a VM that is being made now"));
        }
        Ok(Reservation { inventory: self, name: name.clone() })
    }

    /// Forgets a VM.
    pub fn remove(&self, name: &Name) {
        self.table().vms.remove(name);
    }

    /// A panic elsewhere cannot leave the table half changed: each change is one map operation.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that is kept.
#[derive(Debug)]
pub struct Reservation<'a> {
    inventory: &'a Inventory,
    name: Name,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.inventory.table().making.remove(&self.name);
    }
}

/// Parses a name from a request.
///
/// # Errors
/// A refusal that names the broken rule.
pub fn parse_name(what: &str, text: &str) -> Result<Name, Fault> {
    text.parse().map_err(|e| {
        Fault::invalid(format!("{text:?} is no name of a {what}: {e}"), "choose another name")
    })
}

fn missing(name: &Name) -> Fault {
    Fault::refused(
        ErrorCode::NotFound,
        format!("there is no VM {name} on this host"),
        "see `coffer vm list`; a folder that was put into a datastore needs `coffer vm register`",
    )
}

fn taken(name: &Name, by: &str) -> Fault {
    Fault::refused(
        ErrorCode::AlreadyExists,
        format!("the name {name} is taken: it is that {by}"),
        "choose another name",
    )
}
