//! The safe: the small file `vm.safe` that says who a VM is and holds its wrapped home key.
//!
//! Owns the fields; how the file is sealed is [`crate::seal`]'s.

use crate::name::Name;
use crate::seal::{Body, Flaw, TRANSIT, VERSION, Wrap};
use crypto::HomeKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Body of `vm.safe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Safe {
    format: String,
    version: u32,
    features: Vec<String>,
    /// Counts the replacements of the file.
    pub sequence: u64,
    /// Identity of the VM; disks refer to it.
    pub id: Uuid,
    /// Name of the VM.
    pub name: Name,
    /// How the VM is to be treated.
    pub policy: Policy,
    /// The home key, once for each key-encrypting key.
    pub wraps: Vec<Wrap>,
}

/// How a VM is to be treated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What running I/O does when a key is taken away.
    pub on_key_loss: OnKeyLoss,
    /// How names in the home are stored.
    pub names: Names,
}

/// What running I/O does when a key is taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnKeyLoss {
    /// It goes on until the VM is stopped.
    #[default]
    Keep,
    /// It waits for the key.
    Stall,
    /// It fails at once.
    Fail,
}

/// How names in the home are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Names {
    /// As they are.
    #[default]
    Plain,
    /// Encrypted, and so are the targets of links.
    Encrypted,
}

/// The feature of a safe whose policy encrypts names: who does not know it must not serve the home.
const ENCRYPTED_NAMES: &str = "encrypted-names";

impl Safe {
    /// The safe of a new VM.
    pub fn new(id: Uuid, name: Name, policy: Policy, wraps: Vec<Wrap>) -> Self {
        let format = Self::FORMAT.to_owned();
        let features = Vec::new();
        Self { format, version: VERSION, features, sequence: 0, id, name, policy, wraps }
    }
}

impl Body for Safe {
    const FORMAT: &'static str = "coffer-safe";
    const MAC_INFO: &'static str = "coffer v1 safe mac";
    const FEATURES: &'static [&'static str] = &[ENCRYPTED_NAMES, TRANSIT];
    type Key = HomeKey;

    fn wraps(&self) -> &[Wrap] {
        &self.wraps
    }

    fn set_wraps(&mut self, wraps: Vec<Wrap>) {
        self.wraps = wraps;
    }

    fn features(&self) -> &[String] {
        &self.features
    }

    fn set_features(&mut self, features: Vec<String>) {
        self.features = features;
    }

    fn needed_features(&self) -> Vec<String> {
        match self.policy.names {
            Names::Plain => Vec::new(),
            Names::Encrypted => vec![ENCRYPTED_NAMES.to_owned()],
        }
    }

    fn bound(&self) -> String {
        format!("coffer v1 home {}", self.id)
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    fn check(&self) -> Result<(), Flaw> {
        Ok(())
    }
}
