//! The numbers of the protocol that are used here (KMIP 1.4 section 9.1.3.2), as types with names.
//!
//! Owns versions, operations, states and reasons. It must not know messages.

use super::ttlv::{Item, Reason, Tag, TtlvError};

/// A version of the protocol. Its major number is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the numbers")]
pub enum Version {
    V1_0,
    V1_1,
    V1_2,
    V1_3,
    V1_4,
}

impl Version {
    /// All that are spoken here, oldest first.
    pub const ALL: [Self; 5] = [Self::V1_0, Self::V1_1, Self::V1_2, Self::V1_3, Self::V1_4];

    /// The version with these numbers, if it is spoken here.
    #[must_use]
    pub fn of(major: i32, minor: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|version| major == 1 && version.minor() == minor)
    }

    /// The number after the dot.
    #[must_use]
    pub fn minor(self) -> i32 {
        match self {
            Self::V1_0 => 0,
            Self::V1_1 => 1,
            Self::V1_2 => 2,
            Self::V1_3 => 3,
            Self::V1_4 => 4,
        }
    }

    /// The one to speak with a server that knows `offered`: `wanted` itself, else the nearest older one, else the nearest
    /// newer one. `None` when there is none in common.
    #[must_use]
    pub fn choose(wanted: Self, offered: &[Self]) -> Option<Self> {
        let older = offered.iter().filter(|version| **version <= wanted).max();
        older.or_else(|| offered.iter().min()).copied()
    }

    /// Reads a Protocol Version structure; `None` for one that is not spoken here.
    ///
    /// # Errors
    /// [`TtlvError`] when it has not its two numbers.
    pub fn read(item: &Item<'_>) -> Result<Option<Self>, TtlvError> {
        let major = item.required(Tag::PROTOCOL_VERSION_MAJOR)?.integer()?;
        let minor = item.required(Tag::PROTOCOL_VERSION_MINOR)?.integer()?;
        Ok(Self::of(major, minor))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1.{}", self.minor())
    }
}

impl std::str::FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|version| version.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is no version of KMIP from 1.0 to 1.4"))
    }
}

macro_rules! numbers {
    ($(#[$doc:meta])* $type:ident { $($name:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type {
            $(#[doc = $text] $name,)*
        }

        impl $type {
            /// Its number on the wire.
            #[must_use]
            pub fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }

            /// The one with this number, if it is known here.
            #[must_use]
            pub fn of(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Its name in the standard.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Reads an enumeration of this type.
            ///
            /// # Errors
            /// [`TtlvError`] when it is none, or has a value that is not known here.
            pub fn read(item: &Item<'_>) -> Result<Self, TtlvError> {
                let number = item.enumeration()?;
                Self::of(number).ok_or_else(|| item.fault(Reason::UnknownValue(number.into())))
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

numbers! {
    /// What a server is asked to do (section 9.1.3.2.27).
    Operation {
        Create = 0x01 "Create",
        Register = 0x03 "Register",
        ReKey = 0x04 "Re-key",
        Locate = 0x08 "Locate",
        Get = 0x0A "Get",
        GetAttributes = 0x0B "Get Attributes",
        GetAttributeList = 0x0C "Get Attribute List",
        AddAttribute = 0x0D "Add Attribute",
        Activate = 0x12 "Activate",
        Revoke = 0x13 "Revoke",
        Destroy = 0x14 "Destroy",
        Query = 0x18 "Query",
        DiscoverVersions = 0x1E "Discover Versions",
    }
}

numbers! {
    /// State of a key on a server (section 9.1.3.2.18; the life cycle of NIST SP 800-57).
    State {
        PreActive = 1 "Pre-Active",
        Active = 2 "Active",
        Deactivated = 3 "Deactivated",
        Compromised = 4 "Compromised",
        Destroyed = 5 "Destroyed",
        DestroyedCompromised = 6 "Destroyed Compromised",
    }
}

numbers! {
    /// Why a key is taken back (section 9.1.3.2.19).
    Revocation {
        Unspecified = 1 "Unspecified",
        KeyCompromise = 2 "Key Compromise",
        Superseded = 5 "Superseded",
        CessationOfOperation = 6 "Cessation of Operation",
    }
}

numbers! {
    /// What a server is asked about itself (section 9.1.3.2.24).
    QueryFunction {
        Operations = 1 "Query Operations",
        Objects = 2 "Query Objects",
        ServerInformation = 3 "Query Server Information",
    }
}

numbers! {
    /// Why a server refused (section 9.1.3.2.29).
    ResultReason {
        ItemNotFound = 0x01 "Item Not Found",
        ResponseTooLarge = 0x02 "Response Too Large",
        AuthenticationNotSuccessful = 0x03 "Authentication Not Successful",
        InvalidMessage = 0x04 "Invalid Message",
        OperationNotSupported = 0x05 "Operation Not Supported",
        MissingData = 0x06 "Missing Data",
        InvalidField = 0x07 "Invalid Field",
        FeatureNotSupported = 0x08 "Feature Not Supported",
        OperationCanceled = 0x09 "Operation Canceled By Requester",
        CryptographicFailure = 0x0A "Cryptographic Failure",
        IllegalOperation = 0x0B "Illegal Operation",
        PermissionDenied = 0x0C "Permission Denied",
        ObjectArchived = 0x0D "Object Archived",
        IndexOutOfBounds = 0x0E "Index Out Of Bounds",
        KeyFormatNotSupported = 0x10 "Key Format Type Not Supported",
        KeyValueNotPresent = 0x13 "Key Value Not Present",
        AttestationRequired = 0x14 "Attestation Required",
        AttestationFailed = 0x15 "Attestation Failed",
        Sensitive = 0x16 "Sensitive",
        NotExtractable = 0x17 "Not Extractable",
        ObjectAlreadyExists = 0x18 "Object Already Exists",
        GeneralFailure = 0x100 "General Failure",
    }
}

/// Numbers of enumerations of which one value is used: a symmetric key, AES, raw bytes, a name as plain text.
pub(crate) mod only {
    /// Object Type (section 9.1.3.2.12).
    pub(crate) const SYMMETRIC_KEY: u32 = 2;
    /// Cryptographic Algorithm (section 9.1.3.2.13).
    pub(crate) const AES: u32 = 3;
    /// Key Format Type (section 9.1.3.2.3).
    pub(crate) const RAW: u32 = 1;
    /// Key Format Type: the bytes inside one more structure.
    pub(crate) const TRANSPARENT_SYMMETRIC_KEY: u32 = 7;
    /// Name Type (section 9.1.3.2.11).
    pub(crate) const UNINTERPRETED_TEXT: u32 = 1;
    /// Cryptographic Usage Mask (section 9.1.3.3.1): Encrypt and Decrypt, as vCenter asks for.
    pub(crate) const ENCRYPT_DECRYPT: i32 = 12;
    /// Cryptographic Length in bits.
    pub(crate) const BITS: i32 = 256;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_version_or_the_nearest_older_one() {
        use Version::*;
        let choose = |offered: &[Version]| Version::choose(V1_1, offered);
        assert_eq!(choose(&[V1_4, V1_3, V1_1, V1_0]), Some(V1_1));
        assert_eq!(choose(&[V1_4, V1_2, V1_0]), Some(V1_0));
        assert_eq!(choose(&[V1_4, V1_2]), Some(V1_2));
        assert_eq!(choose(&[]), None);
        assert_eq!(Version::of(2, 1), None);
        assert_eq!(Version::of(1, 5), None);
        assert_eq!("1.4".parse(), Ok(V1_4));
        assert!("2.0".parse::<Version>().is_err());
    }
}
