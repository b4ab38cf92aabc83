//! The keys of a test server, and what the operations do to them.
//!
//! Owns the life cycle of keys as KMIP 1.4 section 3.22 has it. Two servers with one store are a cluster that replicates at once; two
//! stores are one that lags, until [`Store::copy_from`].

use kms_client::kmip::ttlv::{Item, Tag, Value, Writer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub(crate) type Shared = Arc<Mutex<Store>>;

/// One key.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) bytes: Vec<u8>,
    pub(crate) state: u32,
    pub(crate) name: Option<String>,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// The keys of a server.
pub(crate) struct Store {
    pub(crate) keys: BTreeMap<String, Key>,
    /// How often each operation was asked for.
    pub(crate) counts: BTreeMap<u32, usize>,
    /// Operations that this server does not have.
    pub(crate) lacks: Vec<u32>,
    /// It takes one operation a message.
    pub(crate) no_batches: bool,
    /// It stops at the first operation of a message that it refuses, as the standard says.
    pub(crate) stops: bool,
    /// User and password that it wants.
    pub(crate) account: Option<(String, String)>,
    /// Versions that it speaks, minor numbers.
    pub(crate) versions: Vec<i32>,
    next: u32,
    step: u32,
}

/// Why an operation is refused.
type Reason = (u32, &'static str);

const NOT_FOUND: Reason = (0x01, "Could not locate object");
const NOT_SUPPORTED: Reason = (0x05, "Operation not supported");
const DENIED: Reason = (0x0C, "The state of the key does not allow it");

impl Store {
    pub(crate) fn shared() -> Shared {
        Self::numbered(1, 1)
    }

    /// A store whose ids are `first`, `first + step` and so on, so that two of them never clash.
    pub(crate) fn numbered(first: u32, step: u32) -> Shared {
        Arc::new(Mutex::new(Self {
            keys: BTreeMap::new(),
            counts: BTreeMap::new(),
            lacks: Vec::new(),
            no_batches: false,
            stops: false,
            account: None,
            versions: vec![0, 1, 2, 3, 4],
            next: first,
            step,
        }))
    }

    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.keys.extend(other.keys.iter().map(|(uid, key)| (uid.clone(), key.clone())));
    }

    /// How often an operation was asked for.
    pub(crate) fn count(&self, operation: kms_client::kmip::values::Operation) -> usize {
        self.counts.get(&operation.number()).copied().unwrap_or(0)
    }

    /// The answer to a request message.
    pub(crate) fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let root = Item::parse(request).unwrap();
        let header = root.required(Tag::REQUEST_HEADER).unwrap();
        let version = header.required(Tag::PROTOCOL_VERSION).unwrap();
        let minor = version.required(Tag::PROTOCOL_VERSION_MINOR).unwrap().integer().unwrap();
        let items: Vec<_> = root.children().filter(|c| c.tag() == Tag::BATCH_ITEM).collect();
        let mut answers = Vec::new();
        if self.account.as_ref().is_some_and(|wanted| account_in(&header).as_ref() != Some(wanted))
        {
            answers.push(whole(3, "who are you?"));
        } else if self.no_batches && items.len() > 1 {
            answers.push(whole(4, "one operation a message, please"));
        } else {
            for item in &items {
                let (answer, done) = self.item(item);
                answers.push(answer);
                if self.stops && !done {
                    break;
                }
            }
        }
        let mut writer = Writer::default();
        writer.structure(Tag::RESPONSE_MESSAGE, |w| {
            w.structure(Tag::RESPONSE_HEADER, |w| {
                w.structure(Tag::PROTOCOL_VERSION, |w| {
                    w.integer(Tag::PROTOCOL_VERSION_MAJOR, 1);
                    w.integer(Tag::PROTOCOL_VERSION_MINOR, minor);
                });
                w.date_time(Tag(0x42_0092), 1_764_000_000);
                w.integer(Tag::BATCH_COUNT, i32::try_from(answers.len()).unwrap());
            });
            answers.iter().for_each(|answer| w.copy(&Item::parse(answer).unwrap()));
        });
        writer.finish().unwrap().to_vec()
    }

    /// The answer to one operation, and whether it was done.
    fn item(&mut self, item: &Item<'_>) -> (Vec<u8>, bool) {
        let operation = item.required(Tag::OPERATION).unwrap().enumeration().unwrap();
        *self.counts.entry(operation).or_default() += 1;
        let mut payload = Writer::default();
        let mut outcome = Err(NOT_SUPPORTED);
        payload.structure(Tag::RESPONSE_PAYLOAD, |w| {
            if !self.lacks.contains(&operation) {
                outcome = self.operate(operation, &item.required(Tag::REQUEST_PAYLOAD).unwrap(), w);
            }
        });
        let payload = payload.finish().unwrap();
        let mut writer = Writer::default();
        writer.structure(Tag::BATCH_ITEM, |w| {
            w.enumeration(Tag::OPERATION, operation);
            if let Some(id) = item.optional(Tag::UNIQUE_BATCH_ITEM_ID).unwrap() {
                w.bytes(Tag::UNIQUE_BATCH_ITEM_ID, id.bytes().unwrap());
            }
            w.enumeration(Tag::RESULT_STATUS, u32::from(outcome.is_err()));
            match outcome {
                Ok(()) => w.copy(&Item::parse(&payload).unwrap()),
                Err((reason, message)) => {
                    w.enumeration(Tag::RESULT_REASON, reason);
                    w.text(Tag::RESULT_MESSAGE, message);
                }
            }
        });
        (writer.finish().unwrap().to_vec(), outcome.is_ok())
    }

    fn operate(&mut self, operation: u32, asked: &Item<'_>, w: &mut Writer) -> Result<(), Reason> {
        let uid = asked.optional(Tag::UNIQUE_IDENTIFIER).unwrap().map(|u| u.text().unwrap());
        let uid = uid.unwrap_or_default();
        match operation {
            0x01 | 0x03 => self.create(operation == 0x03, asked, w),
            0x04 => {
                let old = self.keys.get(uid).ok_or(NOT_FOUND)?.clone();
                let uid = self.insert(Key { bytes: self.fresh(), ..old });
                w.text(Tag::UNIQUE_IDENTIFIER, &uid);
                Ok(())
            }
            0x08 => {
                let name = name_in(asked.children());
                let found = self.keys.iter().filter(|(_, k)| name.is_none() || k.name == name);
                found.for_each(|(uid, _)| w.text(Tag::UNIQUE_IDENTIFIER, uid));
                Ok(())
            }
            0x0A => self.get(uid, w),
            0x0B => self.attributes(uid, asked, w),
            0x0C => {
                let key = self.keys.get(uid).ok_or(NOT_FOUND)?;
                w.text(Tag::UNIQUE_IDENTIFIER, uid);
                let names = std::iter::once("State").chain(key.attributes.keys().map(|n| &**n));
                names.for_each(|name| w.text(Tag::ATTRIBUTE_NAME, name));
                Ok(())
            }
            0x0D => {
                let key = self.keys.get_mut(uid).ok_or(NOT_FOUND)?;
                let attribute = asked.required(Tag::ATTRIBUTE).unwrap();
                let text = |tag| attribute.required(tag).unwrap().text().unwrap().to_owned();
                key.attributes.insert(text(Tag::ATTRIBUTE_NAME), text(Tag::ATTRIBUTE_VALUE));
                w.text(Tag::UNIQUE_IDENTIFIER, uid);
                Ok(())
            }
            0x12 => self.change(uid, &[1], 2, w),
            0x13 => {
                let reason = asked.required(Tag::REVOCATION_REASON).unwrap();
                let code = reason.required(Tag::REVOCATION_REASON_CODE).unwrap();
                let compromised = code.enumeration().unwrap() == 2;
                self.change(uid, &[1, 2], if compromised { 4 } else { 3 }, w)
            }
            0x14 => {
                let state = self.keys.get(uid).ok_or(NOT_FOUND)?.state;
                self.change(uid, &[1, 3, 4], if state == 4 { 6 } else { 5 }, w)?;
                self.keys.remove(uid);
                Ok(())
            }
            0x18 => {
                let all = [1, 3, 4, 8, 0x0A, 0x0B, 0x0C, 0x0D, 0x12, 0x13, 0x14, 0x18, 0x1E];
                let has = all.iter().filter(|number| !self.lacks.contains(number));
                has.for_each(|number| w.enumeration(Tag::OPERATION, *number));
                w.text(Tag::VENDOR_IDENTIFICATION, "coffer tests");
                Ok(())
            }
            0x1E => {
                for minor in &self.versions {
                    w.structure(Tag::PROTOCOL_VERSION, |w| {
                        w.integer(Tag::PROTOCOL_VERSION_MAJOR, 1);
                        w.integer(Tag::PROTOCOL_VERSION_MINOR, *minor);
                    });
                }
                Ok(())
            }
            _ => Err(NOT_SUPPORTED),
        }
    }

    fn create(&mut self, register: bool, asked: &Item<'_>, w: &mut Writer) -> Result<(), Reason> {
        let template = asked.required(Tag::TEMPLATE_ATTRIBUTE).unwrap();
        let bytes = if register {
            let block = asked.required(Tag::SYMMETRIC_KEY).unwrap();
            let block = block.required(Tag::KEY_BLOCK).unwrap();
            let value = block.required(Tag::KEY_VALUE).unwrap();
            value.required(Tag::KEY_MATERIAL).unwrap().bytes().unwrap().to_vec()
        } else {
            self.fresh()
        };
        let name = name_in(template.children());
        let uid = self.insert(Key { bytes, state: 1, name, attributes: BTreeMap::new() });
        w.enumeration(Tag::OBJECT_TYPE, 2);
        w.text(Tag::UNIQUE_IDENTIFIER, &uid);
        Ok(())
    }

    /// Bytes that no other key of these tests has.
    fn fresh(&self) -> Vec<u8> {
        (0..32).map(|at: u8| at ^ u8::try_from(self.next % 251 + 1).unwrap()).collect()
    }

    fn insert(&mut self, key: Key) -> String {
        let uid = self.next.to_string();
        self.next += self.step;
        self.keys.insert(uid.clone(), key);
        uid
    }

    fn get(&self, uid: &str, w: &mut Writer) -> Result<(), Reason> {
        let key = self.keys.get(uid).ok_or(NOT_FOUND)?;
        w.enumeration(Tag::OBJECT_TYPE, 2);
        w.text(Tag::UNIQUE_IDENTIFIER, uid);
        w.structure(Tag::SYMMETRIC_KEY, |w| {
            w.structure(Tag::KEY_BLOCK, |w| {
                w.enumeration(Tag::KEY_FORMAT_TYPE, 1);
                w.structure(Tag::KEY_VALUE, |w| w.bytes(Tag::KEY_MATERIAL, &key.bytes));
                w.enumeration(Tag::CRYPTOGRAPHIC_ALGORITHM, 3);
                w.integer(Tag::CRYPTOGRAPHIC_LENGTH, 256);
            });
        });
        Ok(())
    }

    fn attributes(&self, uid: &str, asked: &Item<'_>, w: &mut Writer) -> Result<(), Reason> {
        let key = self.keys.get(uid).ok_or(NOT_FOUND)?;
        w.text(Tag::UNIQUE_IDENTIFIER, uid);
        for name in asked.children().filter(|child| child.tag() == Tag::ATTRIBUTE_NAME) {
            let name = name.text().unwrap();
            let text = key.attributes.get(name);
            if name != "State" && text.is_none() {
                continue;
            }
            w.structure(Tag::ATTRIBUTE, |w| {
                w.text(Tag::ATTRIBUTE_NAME, name);
                match text {
                    Some(text) => w.text(Tag::ATTRIBUTE_VALUE, text),
                    None => w.enumeration(Tag::ATTRIBUTE_VALUE, key.state),
                }
            });
        }
        Ok(())
    }

    fn change(&mut self, uid: &str, from: &[u32], to: u32, w: &mut Writer) -> Result<(), Reason> {
        let key = self.keys.get_mut(uid).ok_or(NOT_FOUND)?;
        if !from.contains(&key.state) {
            return Err(DENIED);
        }
        key.state = to;
        w.text(Tag::UNIQUE_IDENTIFIER, uid);
        Ok(())
    }
}

/// The refusal of a message as a whole: it names no operation.
fn whole(reason: u32, message: &str) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.structure(Tag::BATCH_ITEM, |w| {
        w.enumeration(Tag::RESULT_STATUS, 1);
        w.enumeration(Tag::RESULT_REASON, reason);
        w.text(Tag::RESULT_MESSAGE, message);
    });
    writer.finish().unwrap().to_vec()
}

/// User and password in the header of a request.
fn account_in(header: &Item<'_>) -> Option<(String, String)> {
    let credential =
        header.optional(Tag::AUTHENTICATION).unwrap()?.required(Tag::CREDENTIAL).unwrap();
    assert_eq!(credential.required(Tag::CREDENTIAL_TYPE).unwrap().enumeration(), Ok(1));
    let value = credential.required(Tag::CREDENTIAL_VALUE).unwrap();
    let text = |tag| value.required(tag).unwrap().text().unwrap().to_owned();
    Some((text(Tag::USERNAME), text(Tag::PASSWORD)))
}

/// The text of the attribute Name among these.
fn name_in<'a>(items: impl Iterator<Item = Item<'a>>) -> Option<String> {
    let attributes = items.filter(|item| item.tag() == Tag::ATTRIBUTE);
    let mut named = attributes.filter(|attribute| {
        attribute.required(Tag::ATTRIBUTE_NAME).unwrap().text().unwrap() == "Name"
    });
    let value = named.next()?.required(Tag::ATTRIBUTE_VALUE).unwrap();
    match value.required(Tag::NAME_VALUE).unwrap().value() {
        Value::TextString(text) => Some(text.to_owned()),
        _ => None,
    }
}
