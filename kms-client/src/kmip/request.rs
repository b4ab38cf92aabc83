//! Requests: what is asked, as a message.
//!
//! Owns the order of fields that the standard lays down (KMIP 1.4 section 7). It must not know connections. Flow: a [`Call`] is
//! an operation with what it needs; [`encode`] makes one message of one or more of them.

use super::credential::Credential;
use super::ttlv::{Message, Tag, TtlvError, Writer};
use super::values::{Operation, QueryFunction, Revocation, Version, only};
use crypto::Kek;

/// Most operations in one message: three tags of a key are sent at once, and nothing more.
pub const MAX_BATCH: usize = 16;

/// One operation with what it needs.
#[derive(Debug, Clone, Copy)]
pub enum Call<'a> {
    /// Which versions the server speaks, of these; of all, when there are none.
    DiscoverVersions(&'a [Version]),
    /// What the server can do.
    Query(&'a [QueryFunction]),
    /// A new key, AES-256.
    Create(&'a [Attribute<'a>]),
    /// A key that was made here, with what else is known of it.
    Register(&'a Kek, &'a [Attribute<'a>]),
    /// The bytes of a key.
    Get(&'a str),
    /// These attributes of a key.
    GetAttributes(&'a str, &'a [&'a str]),
    /// Names of the attributes of a key.
    GetAttributeList(&'a str),
    /// One more attribute for a key.
    AddAttribute(&'a str, Attribute<'a>),
    /// A key may be used from now on.
    Activate(&'a str),
    /// A key is taken back, with a reason and a sentence.
    Revoke(&'a str, Revocation, &'a str),
    /// A key is to be forgotten.
    Destroy(&'a str),
    /// Ids of keys with these attributes, so many at most.
    Locate(&'a [Attribute<'a>], i32),
    /// A new key in the place of another.
    ReKey(&'a str),
}

/// An attribute of a key: its name and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Name, as the standard writes it, or `x-` and a name of one's own.
    pub name: &'a str,
    /// Value.
    pub value: AttributeValue<'a>,
}

/// Value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeValue<'a> {
    /// A number.
    Integer(i32),
    /// A value of an enumeration.
    Enumeration(u32),
    /// A text.
    Text(&'a str),
    /// A Name structure with this text.
    Name(&'a str),
}

impl<'a> Attribute<'a> {
    /// What vCenter asks for with a new key, in its order.
    pub const NEW_KEY: [Self; 3] = [
        Self { name: "Cryptographic Algorithm", value: AttributeValue::Enumeration(only::AES) },
        Self {
            name: "Cryptographic Usage Mask",
            value: AttributeValue::Integer(only::ENCRYPT_DECRYPT),
        },
        Self { name: "Cryptographic Length", value: AttributeValue::Integer(only::BITS) },
    ];

    /// The attribute Object Type: a symmetric key.
    pub const SYMMETRIC_KEY: Self =
        Self { name: "Object Type", value: AttributeValue::Enumeration(only::SYMMETRIC_KEY) };

    /// The attribute Name.
    #[must_use]
    pub fn name(text: &'a str) -> Self {
        Self { name: "Name", value: AttributeValue::Name(text) }
    }

    /// An attribute of one's own, a text.
    #[must_use]
    pub fn text(name: &'a str, text: &'a str) -> Self {
        Self { name, value: AttributeValue::Text(text) }
    }

    fn write(&self, w: &mut Writer) {
        w.structure(Tag::ATTRIBUTE, |w| {
            w.text(Tag::ATTRIBUTE_NAME, self.name);
            match self.value {
                AttributeValue::Integer(value) => w.integer(Tag::ATTRIBUTE_VALUE, value),
                AttributeValue::Enumeration(value) => w.enumeration(Tag::ATTRIBUTE_VALUE, value),
                AttributeValue::Text(value) => w.text(Tag::ATTRIBUTE_VALUE, value),
                AttributeValue::Name(value) => w.structure(Tag::ATTRIBUTE_VALUE, |w| {
                    w.text(Tag::NAME_VALUE, value);
                    w.enumeration(Tag::NAME_TYPE, only::UNINTERPRETED_TEXT);
                }),
            }
        });
    }
}

/// A request message: the calls with their ids (of the caller's choice, 8 bytes as a rule). The time is left out: servers
/// refuse messages from the future, and clocks differ.
///
/// # Errors
/// [`TtlvError`] when it would be larger than any server takes.
pub fn encode(version: Version, calls: &[(Call<'_>, Option<&[u8]>)]) -> Result<Message, TtlvError> {
    encode_as(version, None, calls)
}

/// The same of somebody with a user name and password.
///
/// # Errors
/// [`TtlvError`] when it would be larger than any server takes.
pub fn encode_as(
    version: Version,
    credential: Option<&Credential>,
    calls: &[(Call<'_>, Option<&[u8]>)],
) -> Result<Message, TtlvError> {
    let mut writer = Writer::default();
    writer.structure(Tag::REQUEST_MESSAGE, |w| {
        w.structure(Tag::REQUEST_HEADER, |w| {
            write_version(version, w);
            if let Some(credential) = credential {
                credential.write(w);
            }
            w.integer(Tag::BATCH_COUNT, i32::try_from(calls.len()).unwrap_or(i32::MAX));
        });
        for (call, id) in calls {
            w.structure(Tag::BATCH_ITEM, |w| {
                w.enumeration(Tag::OPERATION, call.operation().number());
                if let Some(id) = id {
                    w.bytes(Tag::UNIQUE_BATCH_ITEM_ID, id);
                }
                w.structure(Tag::REQUEST_PAYLOAD, |w| call.write(w));
            });
        }
    });
    writer.finish()
}

fn write_version(version: Version, w: &mut Writer) {
    w.structure(Tag::PROTOCOL_VERSION, |w| {
        w.integer(Tag::PROTOCOL_VERSION_MAJOR, 1);
        w.integer(Tag::PROTOCOL_VERSION_MINOR, version.minor());
    });
}

impl Call<'_> {
    /// Its operation.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self {
            Self::DiscoverVersions(_) => Operation::DiscoverVersions,
            Self::Query(_) => Operation::Query,
            Self::Create(_) => Operation::Create,
            Self::Register(..) => Operation::Register,
            Self::Get(_) => Operation::Get,
            Self::GetAttributes(..) => Operation::GetAttributes,
            Self::GetAttributeList(_) => Operation::GetAttributeList,
            Self::AddAttribute(..) => Operation::AddAttribute,
            Self::Activate(_) => Operation::Activate,
            Self::Revoke(..) => Operation::Revoke,
            Self::Destroy(_) => Operation::Destroy,
            Self::Locate(..) => Operation::Locate,
            Self::ReKey(_) => Operation::ReKey,
        }
    }

    fn write(&self, w: &mut Writer) {
        let uid = |w: &mut Writer, uid: &str| w.text(Tag::UNIQUE_IDENTIFIER, uid);
        match *self {
            Self::DiscoverVersions(versions) => {
                versions.iter().for_each(|version| write_version(*version, w));
            }
            Self::Query(functions) => functions.iter().for_each(|function| {
                w.enumeration(Tag::QUERY_FUNCTION, function.number());
            }),
            Self::Create(more) => {
                w.enumeration(Tag::OBJECT_TYPE, only::SYMMETRIC_KEY);
                write_template(&[&Attribute::NEW_KEY, more], w);
            }
            Self::Register(key, more) => {
                w.enumeration(Tag::OBJECT_TYPE, only::SYMMETRIC_KEY);
                let [_, usage, _] = Attribute::NEW_KEY;
                write_template(&[&[usage], more], w);
                write_key(key, w);
            }
            Self::Get(key)
            | Self::GetAttributeList(key)
            | Self::Activate(key)
            | Self::Destroy(key)
            | Self::ReKey(key) => uid(w, key),
            Self::GetAttributes(key, names) => {
                uid(w, key);
                names.iter().for_each(|name| w.text(Tag::ATTRIBUTE_NAME, name));
            }
            Self::AddAttribute(key, attribute) => {
                uid(w, key);
                attribute.write(w);
            }
            Self::Revoke(key, reason, message) => {
                uid(w, key);
                w.structure(Tag::REVOCATION_REASON, |w| {
                    w.enumeration(Tag::REVOCATION_REASON_CODE, reason.number());
                    w.text(Tag::REVOCATION_MESSAGE, message);
                });
            }
            Self::Locate(attributes, most) => {
                w.integer(Tag::MAXIMUM_ITEMS, most);
                attributes.iter().for_each(|attribute| attribute.write(w));
            }
        }
    }
}

fn write_template(parts: &[&[Attribute<'_>]], w: &mut Writer) {
    w.structure(Tag::TEMPLATE_ATTRIBUTE, |w| {
        parts.iter().copied().flatten().for_each(|attribute| attribute.write(w));
    });
}

/// The Symmetric Key object (section 2.2.2), raw.
fn write_key(key: &Kek, w: &mut Writer) {
    w.structure(Tag::SYMMETRIC_KEY, |w| {
        w.structure(Tag::KEY_BLOCK, |w| {
            w.enumeration(Tag::KEY_FORMAT_TYPE, only::RAW);
            w.structure(Tag::KEY_VALUE, |w| {
                w.bytes_with(Tag::KEY_MATERIAL, Kek::WIRE_LEN, |field| {
                    #[expect(clippy::expect_used, reason = "the field has the length of a key")]
                    key.to_wire(field).expect("a field of the length of a key");
                });
            });
            w.enumeration(Tag::CRYPTOGRAPHIC_ALGORITHM, only::AES);
            w.integer(Tag::CRYPTOGRAPHIC_LENGTH, only::BITS);
        });
    });
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
