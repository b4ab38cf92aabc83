//! The descriptor: the small file `NAME.disk` that says what a disk is, where its payload lies, and
//! that holds the wrapped disk key.
//!
//! Owns the fields and their rules; how the file is sealed is [`crate::seal`]'s.

use crate::folder::{DESCRIPTOR_SUFFIX, payload_name};
use crate::name::Name;
use crate::seal::{Body, Flaw, SealError, TRANSIT, VERSION, Wrap};
use crate::volume::Geometry;
pub use crate::volume::{GeometryError, MAX_SIZE, padded_size, unit_for};
use crypto::{Dek, Unit};
use serde::{Deserialize, Serialize};
use std::path::Path;
use uuid::Uuid;

/// The only cipher: AES-XTS, tweak = number of the 512-byte sector, 64 bits, little-endian.
pub const CIPHER: &str = "aes-xts-plain64";

/// Longest name of a payload: what file systems allow.
const MAX_PAYLOAD_NAME: usize = 255;

/// Body of `NAME.disk`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    format: String,
    version: u32,
    features: Vec<String>,
    /// Counts the replacements of the file.
    pub sequence: u64,
    /// Identity of the disk.
    pub id: Uuid,
    /// Name of the disk.
    pub name: Name,
    /// Identity of the VM that it belongs to.
    pub vm: Uuid,
    /// Bytes that the guest sees; the payload has at least as many.
    pub size: u64,
    cipher: String,
    /// Data unit in bytes, 512 or 4096.
    pub unit: u32,
    /// Name of the payload file, in the folder of the descriptor.
    pub payload: String,
    /// Whether the content is complete.
    pub state: State,
    /// The disk key, once for each key-encrypting key.
    pub wraps: Vec<Wrap>,
}

/// Whether the content of a disk is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is.
    Ready,
    /// An import has not finished; the disk must not be given to a guest.
    Importing,
}

impl Descriptor {
    /// The descriptor of a new disk, whose payload is `NAME.data`. `unit` is chosen by the size when
    /// absent.
    pub fn new(
        id: Uuid,
        name: Name,
        vm: Uuid,
        size: u64,
        unit: Option<Unit>,
        wraps: Vec<Wrap>,
    ) -> Result<Self, GeometryError> {
        let unit = unit.map_or_else(|| unit_for(size), Ok)?;
        Geometry { size, unit, read_only: false }.check()?;
        Ok(Self {
            format: Self::FORMAT.to_owned(),
            version: VERSION,
            features: Vec::new(),
            sequence: 0,
            id,
            payload: payload_name(&name),
            name,
            vm,
            size,
            cipher: CIPHER.to_owned(),
            unit: u32::from(unit),
            state: State::Ready,
            wraps,
        })
    }

    /// Size and unit for [`crate::volume::Volume::open`].
    pub fn geometry(&self, read_only: bool) -> Result<Geometry, GeometryError> {
        let unit = Unit::try_from(self.unit).map_err(|_| GeometryError::Unit(self.unit))?;
        let geometry = Geometry { size: self.size, unit, read_only };
        geometry.check().map(|()| geometry)
    }

    /// Checks that the descriptor found at `path` is the one of the disk `name` of the VM `vm`, the id
    /// in its safe. A descriptor that was swapped with another one in order passes its MAC, but not this.
    pub fn check_place(&self, path: &Path, name: &Name, vm: Uuid) -> Result<(), SealError> {
        let misplaced = |field, found: String, expected: String| {
            Err(SealError::Misplaced { path: path.to_owned(), field, found, expected })
        };
        if self.name != *name {
            return misplaced("name", self.name.to_string(), name.to_string());
        }
        if self.vm != vm {
            return misplaced("vm", self.vm.to_string(), vm.to_string());
        }
        Ok(())
    }
}

impl Body for Descriptor {
    const FORMAT: &'static str = "coffer-disk";
    const MAC_INFO: &'static str = "coffer v1 disk mac";
    const FEATURES: &'static [&'static str] = &[TRANSIT];
    type Key = Dek;

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

    fn bound(&self) -> String {
        format!("coffer v1 disk {} {}", self.vm, self.id)
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    fn check(&self) -> Result<(), Flaw> {
        if self.cipher != CIPHER {
            return Err(Flaw::Unknown { field: "cipher", found: self.cipher.clone() });
        }
        if !is_payload_name(&self.payload) {
            return Err(Flaw::Payload(self.payload.clone()));
        }
        self.geometry(false).map(|_| ()).map_err(Flaw::Geometry)
    }
}

/// Whether a text names a file in the folder of the descriptor that may hold a payload: not a path, not
/// a hidden file, not a descriptor.
fn is_payload_name(text: &str) -> bool {
    (1..=MAX_PAYLOAD_NAME).contains(&text.len())
        && !text.starts_with('.')
        && !text.ends_with(DESCRIPTOR_SUFFIX)
        && !text.contains(|c: char| c == '/' || c.is_control())
}

#[cfg(test)]
#[path = "descriptor_tests.rs"]
mod tests;
