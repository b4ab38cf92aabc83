//! What the inventory knows of each thing.
//!
//! Owns the shapes, where each is kept, and what else points to it; must not know how they are stored. No record holds a key, only
//! key ids.

use super::names::{Name, escape};
use crypto::KeyId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Most keys that one thing is wrapped by: one, and a second one while it is wrapped anew, and as many for a copy to another provider.
pub const MAX_KEY_IDS: usize = 4;

/// A thing of the inventory.
pub trait Record: Serialize + DeserializeOwned {
    /// Its kind, as it is named in keys of the store and to people.
    const KIND: &'static str;

    /// Where it is kept below its kind; in the order of this, things are listed.
    fn place(&self) -> String;

    /// Keys that no other thing may have, with what they lead to.
    fn unique(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Further keys that lead to it.
    fn also(&self) -> Vec<String> {
        Vec::new()
    }

    /// What must be there for it to be.
    fn parents(&self) -> Vec<Parent> {
        Vec::new()
    }

    /// The keys that it needs.
    fn key_ids(&self) -> &[KeyId] {
        &[]
    }

    /// Its name, for people.
    fn title(&self) -> String;

    /// It as a parent of others.
    fn as_parent(&self) -> Option<Parent> {
        None
    }
}

/// What another thing belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parent {
    /// A cluster, by name.
    Cluster(Name),
    /// A VM, by identity.
    Vm(Uuid),
}

impl Parent {
    /// The key that is there as long as it is.
    #[must_use]
    pub fn sign(&self) -> String {
        match self {
            Self::Cluster(name) => format!("cluster/{name}"),
            Self::Vm(id) => format!("vm-id/{id}"),
        }
    }

    /// The key that is there while it is being removed.
    #[must_use]
    pub fn leaving(&self) -> String {
        format!("leaving/{}", self.sign())
    }

    /// For people.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::Cluster(name) => format!("cluster {name}"),
            Self::Vm(id) => format!("VM {id}"),
        }
    }
}

/// Hosts that share VMs and get the same keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name.
    pub name: Name,
    /// Provider of new keys.
    #[serde(default)]
    pub provider: Option<Name>,
    /// Seconds since 1970.
    pub made_at: u64,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: Name,
    /// Its cluster.
    pub cluster: Name,
    /// Where controld reaches it, `HOST:PORT`.
    #[serde(default)]
    pub address: Option<String>,
    /// SHA-256 of its certificate, lower-case hex.
    pub certificate: String,
    /// The one before, which counts until the new one was used once: the answer to a renewal may be lost.
    #[serde(default)]
    pub previous_certificate: Option<String>,
    /// Last second of its certificate.
    pub certificate_until: u64,
    /// Its public HPKE key (RFC 9180), lower-case hex; a new one with each start of its hostd.
    #[serde(default)]
    pub hpke_key: Option<String>,
    /// Seconds since 1970.
    pub joined_at: u64,
}

/// A folder that holds VM folders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datastore {
    /// Its name.
    pub name: Name,
    /// Its cluster.
    pub cluster: Name,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// Identity in its safe.
    pub id: Uuid,
    /// Name, one of its kind in the cluster.
    pub name: Name,
    /// Its cluster.
    pub cluster: Name,
    /// The host that has it.
    #[serde(default)]
    pub host: Option<Name>,
    /// Its datastore.
    #[serde(default)]
    pub datastore: Option<Name>,
    /// Its policy.
    #[serde(default)]
    pub policy: Option<Name>,
    /// The keys that wrap its home key.
    pub key_ids: Vec<KeyId>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Identity in its descriptor.
    pub id: Uuid,
    /// Name, one of its kind in the VM.
    pub name: Name,
    /// Its VM; a detached disk has none, and needs its keys all the same.
    #[serde(default)]
    pub vm: Option<Uuid>,
    /// Bytes.
    pub size: u64,
    /// The keys that wrap its key.
    pub key_ids: Vec<KeyId>,
}

/// A storage policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name.
    pub name: Name,
    /// Whether its VMs and disks are encrypted.
    pub encrypted: bool,
    /// Provider of the keys; that of the cluster when absent.
    #[serde(default)]
    pub provider: Option<Name>,
    /// A key that all VMs with this policy share; each has its own when there is none.
    #[serde(default)]
    pub key_ids: Vec<KeyId>,
}

/// A key provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its name, the first part of its key ids.
    pub name: Name,
    /// `kmip`, `native` or `openbao`.
    pub kind: Name,
}

/// A copy of a VM that somebody keeps, and that needs these keys to be of use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Identity of the copy.
    pub id: Uuid,
    /// Whose copy it is; the VM may be gone.
    pub vm: Uuid,
    /// Where it is, in the words of who keeps it.
    pub note: String,
    /// Seconds since 1970.
    pub made_at: u64,
    /// The keys that were in its safe and descriptors.
    pub key_ids: Vec<KeyId>,
}

impl Record for Cluster {
    const KIND: &'static str = "cluster";

    fn place(&self) -> String {
        self.name.to_string()
    }

    fn title(&self) -> String {
        self.name.to_string()
    }

    fn as_parent(&self) -> Option<Parent> {
        Some(Parent::Cluster(self.name.clone()))
    }
}

impl Record for Host {
    const KIND: &'static str = "host";

    fn place(&self) -> String {
        self.name.to_string()
    }

    fn also(&self) -> Vec<String> {
        vec![format!("cluster-host/{}/{}", self.cluster, self.name)]
    }

    fn parents(&self) -> Vec<Parent> {
        vec![Parent::Cluster(self.cluster.clone())]
    }

    fn title(&self) -> String {
        self.name.to_string()
    }
}

impl Record for Datastore {
    const KIND: &'static str = "datastore";

    fn place(&self) -> String {
        format!("{}/{}", self.cluster, self.name)
    }

    fn parents(&self) -> Vec<Parent> {
        vec![Parent::Cluster(self.cluster.clone())]
    }

    fn title(&self) -> String {
        self.name.to_string()
    }
}

impl Record for Vm {
    const KIND: &'static str = "vm";

    fn place(&self) -> String {
        format!("{}/{}", self.cluster, self.name)
    }

    fn unique(&self) -> Vec<(String, String)> {
        vec![(format!("vm-id/{}", self.id), self.place())]
    }

    fn also(&self) -> Vec<String> {
        self.host.iter().map(|host| format!("host-vm/{host}/{}", self.id)).collect()
    }

    fn parents(&self) -> Vec<Parent> {
        vec![Parent::Cluster(self.cluster.clone())]
    }

    fn key_ids(&self) -> &[KeyId] {
        &self.key_ids
    }

    fn title(&self) -> String {
        format!("{} in {}", self.name, self.cluster)
    }

    fn as_parent(&self) -> Option<Parent> {
        Some(Parent::Vm(self.id))
    }
}

impl Record for Disk {
    const KIND: &'static str = "disk";

    fn place(&self) -> String {
        match self.vm {
            Some(vm) => format!("{vm}/{}", self.name),
            // Names of detached disks need not differ.
            None => format!("{DETACHED}/{}", self.id),
        }
    }

    fn unique(&self) -> Vec<(String, String)> {
        vec![(format!("disk-id/{}", self.id), self.place())]
    }

    fn parents(&self) -> Vec<Parent> {
        self.vm.map(Parent::Vm).into_iter().collect()
    }

    fn key_ids(&self) -> &[KeyId] {
        &self.key_ids
    }

    fn title(&self) -> String {
        match self.vm {
            Some(vm) => format!("{} of VM {vm}", self.name),
            None => format!("{}, detached", self.name),
        }
    }
}

/// In the place of a VM for disks that have none.
pub const DETACHED: &str = "detached";

impl Record for Policy {
    const KIND: &'static str = "policy";

    fn place(&self) -> String {
        self.name.to_string()
    }

    fn key_ids(&self) -> &[KeyId] {
        &self.key_ids
    }

    fn title(&self) -> String {
        self.name.to_string()
    }
}

impl Record for Provider {
    const KIND: &'static str = "provider";

    fn place(&self) -> String {
        self.name.to_string()
    }

    fn title(&self) -> String {
        self.name.to_string()
    }
}

impl Record for Backup {
    const KIND: &'static str = "backup";

    fn place(&self) -> String {
        format!("{}/{}", self.vm, self.id)
    }

    fn unique(&self) -> Vec<(String, String)> {
        vec![(format!("backup-id/{}", self.id), self.place())]
    }

    fn key_ids(&self) -> &[KeyId] {
        &self.key_ids
    }

    fn title(&self) -> String {
        format!("of VM {}: {}", self.vm, self.note)
    }
}

/// The key that tells that a thing needs a key.
pub(super) fn use_key(id: &KeyId, kind: &str, place: &str) -> String {
    format!("use/{}/{kind}/{place}", escape(&id.to_string()))
}
