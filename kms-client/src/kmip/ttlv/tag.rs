//! The tags that are used here (KMIP 1.4 section 9.1.3.1), with their names for messages.
//!
//! Owns the numbers. It must not know where a tag may stand.

/// A tag, three bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

macro_rules! tags {
    ($($name:ident = $number:literal $text:literal,)*) => {
        impl Tag {
            $(#[doc = $text] pub const $name: Self = Self($number);)*

            /// Its name, if it is one of those that are used here.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

tags! {
    NONE = 0 "the message",
    ATTRIBUTE = 0x42_0008 "Attribute",
    ATTRIBUTE_NAME = 0x42_000A "Attribute Name",
    ATTRIBUTE_VALUE = 0x42_000B "Attribute Value",
    AUTHENTICATION = 0x42_000C "Authentication",
    BATCH_COUNT = 0x42_000D "Batch Count",
    BATCH_ITEM = 0x42_000F "Batch Item",
    CREDENTIAL = 0x42_0023 "Credential",
    CREDENTIAL_TYPE = 0x42_0024 "Credential Type",
    CREDENTIAL_VALUE = 0x42_0025 "Credential Value",
    CRYPTOGRAPHIC_ALGORITHM = 0x42_0028 "Cryptographic Algorithm",
    CRYPTOGRAPHIC_LENGTH = 0x42_002A "Cryptographic Length",
    KEY_BLOCK = 0x42_0040 "Key Block",
    KEY_FORMAT_TYPE = 0x42_0042 "Key Format Type",
    KEY_MATERIAL = 0x42_0043 "Key Material",
    KEY_VALUE = 0x42_0045 "Key Value",
    KEY_WRAPPING_DATA = 0x42_0046 "Key Wrapping Data",
    MAXIMUM_ITEMS = 0x42_004F "Maximum Items",
    NAME_TYPE = 0x42_0054 "Name Type",
    NAME_VALUE = 0x42_0055 "Name Value",
    OBJECT_TYPE = 0x42_0057 "Object Type",
    OPERATION = 0x42_005C "Operation",
    PASSWORD = 0x42_00A1 "Password",
    PROTOCOL_VERSION = 0x42_0069 "Protocol Version",
    PROTOCOL_VERSION_MAJOR = 0x42_006A "Protocol Version Major",
    PROTOCOL_VERSION_MINOR = 0x42_006B "Protocol Version Minor",
    QUERY_FUNCTION = 0x42_0074 "Query Function",
    REQUEST_HEADER = 0x42_0077 "Request Header",
    REQUEST_MESSAGE = 0x42_0078 "Request Message",
    REQUEST_PAYLOAD = 0x42_0079 "Request Payload",
    RESPONSE_HEADER = 0x42_007A "Response Header",
    RESPONSE_MESSAGE = 0x42_007B "Response Message",
    RESPONSE_PAYLOAD = 0x42_007C "Response Payload",
    RESULT_MESSAGE = 0x42_007D "Result Message",
    RESULT_REASON = 0x42_007E "Result Reason",
    RESULT_STATUS = 0x42_007F "Result Status",
    REVOCATION_MESSAGE = 0x42_0080 "Revocation Message",
    REVOCATION_REASON = 0x42_0081 "Revocation Reason",
    REVOCATION_REASON_CODE = 0x42_0082 "Revocation Reason Code",
    KEY = 0x42_003F "Key",
    SERVER_INFORMATION = 0x42_0088 "Server Information",
    SYMMETRIC_KEY = 0x42_008F "Symmetric Key",
    TEMPLATE_ATTRIBUTE = 0x42_0091 "Template-Attribute",
    UNIQUE_BATCH_ITEM_ID = 0x42_0093 "Unique Batch Item ID",
    UNIQUE_IDENTIFIER = 0x42_0094 "Unique Identifier",
    USERNAME = 0x42_0099 "Username",
    VENDOR_IDENTIFICATION = 0x42_009D "Vendor Identification",
}

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) if *self == Self::NONE => f.write_str(name),
            Some(name) => write!(f, "{name} ({:06X})", self.0),
            None => write!(f, "tag {:06X}", self.0),
        }
    }
}
