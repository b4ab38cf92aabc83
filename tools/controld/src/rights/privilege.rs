//! The privileges.
//!
//! Owns their names; pure. The first fourteen are those of vSphere, by its names (category Cryptographer of its list of defined
//! privileges), so that roles can be carried over. What vSphere has in other categories and a control plane of keys needs as well is
//! in the category `Coffer`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! privileges {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something that a role may allow.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Privilege {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Privilege {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

privileges! {
    /// Export an encrypted VM, reach its files and its console.
    Access = "Cryptographer.Access",
    /// Add a disk to an encrypted VM.
    AddDisk = "Cryptographer.AddDisk",
    /// Clone an encrypted VM.
    Clone = "Cryptographer.Clone",
    /// Decrypt a VM or disk.
    Decrypt = "Cryptographer.Decrypt",
    /// Encrypt a VM or disk.
    Encrypt = "Cryptographer.Encrypt",
    /// Encrypt a VM when it is made.
    EncryptNew = "Cryptographer.EncryptNew",
    /// Change policies that encrypt.
    ManageEncryptionPolicy = "Cryptographer.ManageEncryptionPolicy",
    /// Add and remove key servers.
    ManageKeyServers = "Cryptographer.ManageKeyServers",
    /// Make, retire and destroy keys.
    ManageKeys = "Cryptographer.ManageKeys",
    /// Move an encrypted VM.
    Migrate = "Cryptographer.Migrate",
    /// See key servers and keys.
    ReadKeyServersInfo = "Cryptographer.ReadKeyServersInfo",
    /// Encrypt a VM anew, shallow or deep.
    Recrypt = "Cryptographer.Recrypt",
    /// Have a host join, or change its keys.
    RegisterHost = "Cryptographer.RegisterHost",
    /// Register and unlock a VM.
    RegisterVm = "Cryptographer.RegisterVM",
    /// See the inventory.
    Read = "Coffer.Read",
    /// Change the inventory where no key is concerned.
    ManageInventory = "Coffer.ManageInventory",
    /// Read and check the audit log.
    ReadAudit = "Coffer.ReadAudit",
    /// Change roles, bindings and tokens.
    ManageRights = "Coffer.ManageRights",
    /// Be the second person for what needs two.
    Approve = "Coffer.Approve",
}

impl Privilege {
    /// Whether it is one of vSphere's fourteen.
    #[must_use]
    pub fn is_cryptographer(self) -> bool {
        self.as_str().starts_with("Cryptographer.")
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Privilege {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|privilege| privilege.as_str() == text);
        found.copied().ok_or_else(|| format!("{text:?} is no privilege"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourteen_have_the_names_of_vsphere() {
        let mut names: Vec<_> = Privilege::ALL
            .iter()
            .filter(|privilege| privilege.is_cryptographer())
            .map(|privilege| privilege.as_str().strip_prefix("Cryptographer.").unwrap())
            .collect();
        names.sort_unstable();
        let mut expected = [
            "Access",
            "AddDisk",
            "Clone",
            "Decrypt",
            "Encrypt",
            "EncryptNew",
            "ManageEncryptionPolicy",
            "ManageKeyServers",
            "ReadKeyServersInfo",
            "ManageKeys",
            "Migrate",
            "Recrypt",
            "RegisterVM",
            "RegisterHost",
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for privilege in Privilege::ALL {
            assert_eq!(privilege.to_string().parse::<Privilege>().unwrap(), *privilege);
            let json = serde_json::to_string(privilege).unwrap();
            assert_eq!(json, format!("\"{privilege}\""));
            assert_eq!(serde_json::from_str::<Privilege>(&json).unwrap(), *privilege);
        }
        assert!("Cryptographer.access".parse::<Privilege>().is_err());
    }
}
