//! The operations of a server, each one call and its answer as a value.
//!
//! Owns what is asked and which fields of the answer count (KMIP 1.4 section 4). It must not know when they are used. Flow: a method
//! makes a [`Call`], the session exchanges it, and a closure reads the payload.

use super::fault::{Fault, NodeError};
use super::key_block::{self, KeyFault};
use super::node::Session;
use super::request::{Attribute, Call, MAX_BATCH};
use super::response::{Answer, Refusal, printable};
use super::ttlv::{Item, Tag, TtlvError, Value};
use super::values::{Operation, QueryFunction, ResultReason, Revocation, State, only};
use crypto::{Arena, Kek};

/// Most keys that one Locate asks for.
pub const MAX_LOCATED: i32 = 1000;

/// Most versions, attributes or operations of one answer that are kept: more than the standard has.
const MAX_LISTED: usize = 1024;

/// Longest name or text that is kept of an attribute, in bytes.
const MAX_ATTRIBUTE: usize = 4096;

/// An attribute that a server told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Name.
    pub name: String,
    /// Value.
    pub value: ToldValue,
}

/// Value of such an attribute, as far as they are used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToldValue {
    /// A number.
    Integer(i32),
    /// A value of an enumeration.
    Enumeration(u32),
    /// A text, or the text of a name.
    Text(String),
    /// A time, seconds since 1970.
    DateTime(i64),
    /// Anything else.
    Other,
}

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Numbers of the operations that it has; empty when it does not say.
    pub operations: Vec<u32>,
    /// Who made it.
    pub vendor: Option<String>,
    /// It calls itself a clone, which gives keys but makes none.
    pub clone: bool,
}

impl Session<'_> {
    /// Makes a new key, AES-256, Pre-Active as a rule. `name` is for finding it again after an unknown outcome.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn create(&mut self, name: Option<&str>) -> Result<String, NodeError> {
        self.create_under(name, None)
    }

    /// The same; `policy` names the rules of the server on who may have the key.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn create_under(
        &mut self,
        name: Option<&str>,
        policy: Option<&str>,
    ) -> Result<String, NodeError> {
        let policy = policy.map(|policy| Attribute::text("Operation Policy Name", policy));
        let attributes: Vec<_> = name.map(Attribute::name).into_iter().chain(policy).collect();
        self.call(Call::Create(&attributes), new_uid)
    }

    /// Gives the server a key that was made here.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn register(&mut self, key: &Kek, name: Option<&str>) -> Result<String, NodeError> {
        let name = name.map(Attribute::name);
        self.call(Call::Register(key, name.as_slice()), new_uid)
    }

    /// Makes a new key that takes the place of another; its id.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn rekey(&mut self, uid: &str) -> Result<String, NodeError> {
        let replaced = self.call(Call::ReKey(uid), |payload| {
            Ok(payload.required(Tag::UNIQUE_IDENTIFIER)?.text()?.to_owned())
        })?;
        Ok(replaced)
    }

    /// Brings a key into the arena.
    ///
    /// # Errors
    /// [`NodeError`], with [`Fault::Key`] when what came is no key that can be used.
    pub fn get(&mut self, uid: &str, arena: &Arena) -> Result<Kek, NodeError> {
        self.call(Call::Get(uid), |payload| Ok(key_block::read(payload, uid, arena)?))
    }

    /// State of a key; `None` when the server does not tell it.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn state(&mut self, uid: &str) -> Result<Option<State>, NodeError> {
        let mut state = None;
        self.batch(&[Call::GetAttributes(uid, &["State"])], |_, answer| {
            state = state_of(answer, uid)?.map_err(Fault::Refused)?;
            Ok(())
        })?;
        Ok(state)
    }

    /// State and key in one message: what a fetch asks for. No state from a server that does not tell it, and no key when the server
    /// left it out or refused it, which may be for its state; then it is asked for alone.
    ///
    /// # Errors
    /// [`NodeError`], with [`Fault::Key`] when what came is no key that can be used.
    pub fn state_and_key(
        &mut self,
        uid: &str,
        arena: &Arena,
    ) -> Result<(Option<State>, Option<Kek>), NodeError> {
        let (mut state, mut key) = (Ok(None), None);
        let calls = [Call::GetAttributes(uid, &["State"]), Call::Get(uid)];
        self.batch(&calls, |index, answer| {
            match (index, answer) {
                (0, answer) => state = state_of(answer, uid)?,
                (_, Ok(Some(payload))) => key = Some(key_block::read(&payload, uid, arena)?),
                (_, Ok(None) | Err(_)) => {}
            }
            Ok(())
        })?;
        match state {
            Ok(state) => Ok((state, key)),
            Err(refusal) => {
                let error = self.error(Operation::GetAttributes.name(), Fault::Refused(refusal));
                // A server without batches refuses the message as a whole.
                match error.fault.reason() {
                    Some(
                        ResultReason::OperationNotSupported | ResultReason::FeatureNotSupported,
                    ) => Ok((None, key)),
                    Some(ResultReason::InvalidMessage) => Ok((self.state(uid)?, key)),
                    _ => Err(error),
                }
            }
        }
    }

    /// States and keys of several, up to [`MAX_BATCH`] / 2, in one message. Only those that came whole and that the server calls active;
    /// each of the others is worth a question of its own.
    ///
    /// # Errors
    /// [`NodeError`] when there was no answer to the message.
    pub fn active_keys(
        &mut self,
        uids: &[String],
        arena: &Arena,
    ) -> Result<Vec<Option<Kek>>, NodeError> {
        let question = |uid| [Call::GetAttributes(uid, &["State"]), Call::Get(uid)];
        let calls: Vec<_> = uids.iter().flat_map(|uid| question(uid)).collect();
        let mut keys = Vec::with_capacity(uids.len());
        let mut active = false;
        self.batch(&calls, |index, answer| {
            let Some(uid) = uids.get(index / 2) else { return Ok(()) };
            if index % 2 == 0 {
                active = matches!(state_of(answer, uid), Ok(Ok(Some(State::Active))));
                return Ok(());
            }
            let payload = answer.ok().flatten().filter(|_| active);
            keys.push(payload.and_then(|payload| key_block::read(&payload, uid, arena).ok()));
            Ok(())
        })?;
        Ok(keys)
    }

    /// These attributes of a key, as far as it has them; all of them when `names` is empty.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn attributes(&mut self, uid: &str, names: &[&str]) -> Result<Vec<Told>, NodeError> {
        self.call(Call::GetAttributes(uid, names), |payload| {
            same_uid(payload, uid)?;
            let all = payload.children().filter(|child| child.tag() == Tag::ATTRIBUTE);
            Ok(all.take(MAX_LISTED).map(|attribute| told(&attribute)).collect::<Result<_, _>>()?)
        })
    }

    /// Names of the attributes that a key has.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn attribute_list(&mut self, uid: &str) -> Result<Vec<String>, NodeError> {
        self.call(Call::GetAttributeList(uid), |payload| {
            same_uid(payload, uid)?;
            let all = payload.children().filter(|child| child.tag() == Tag::ATTRIBUTE_NAME);
            let text = |name: Item<'_>| name.text().map(bounded);
            Ok(all.take(MAX_LISTED).map(text).collect::<Result<_, _>>()?)
        })
    }

    /// Gives a key attributes of one's own, up to [`MAX_BATCH`] in one message; for each whether it was taken.
    ///
    /// # Errors
    /// [`NodeError`] when there was no answer at all.
    pub fn add_attributes(
        &mut self,
        uid: &str,
        attributes: &[Attribute<'_>],
    ) -> Result<Vec<Result<(), Refusal>>, NodeError> {
        let mut taken = Vec::with_capacity(attributes.len());
        for part in attributes.chunks(MAX_BATCH) {
            let calls: Vec<_> = part.iter().map(|a| Call::AddAttribute(uid, *a)).collect();
            self.batch(&calls, |_, answer| {
                taken.push(answer.map(drop));
                Ok(())
            })?;
        }
        Ok(taken)
    }

    /// Lets a key be used.
    ///
    /// # Errors
    /// [`NodeError`]; a key that is active already is refused.
    pub fn activate(&mut self, uid: &str) -> Result<(), NodeError> {
        self.change(Call::Activate(uid), uid)
    }

    /// Takes a key back.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn revoke(&mut self, uid: &str, reason: Revocation, why: &str) -> Result<(), NodeError> {
        self.change(Call::Revoke(uid, reason, why), uid)
    }

    /// Has the server forget a key.
    ///
    /// # Errors
    /// [`NodeError`]; an active key is refused by most servers.
    pub fn destroy(&mut self, uid: &str) -> Result<(), NodeError> {
        self.change(Call::Destroy(uid), uid)
    }

    /// Does a call that changes a key. Its answer has nothing but the id, and some servers leave that out as well.
    fn change(&mut self, call: Call<'_>, uid: &str) -> Result<(), NodeError> {
        self.batch(&[call], |_, answer| match answer.map_err(Fault::Refused)? {
            Some(payload) => same_uid(&payload, uid),
            None => Ok(()),
        })
    }

    /// Ids of the keys with this name; of all keys without one.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn locate(&mut self, name: Option<&str>) -> Result<Vec<String>, NodeError> {
        let mut attributes = vec![Attribute::SYMMETRIC_KEY];
        attributes.extend(name.map(Attribute::name));
        let mut found = Vec::new();
        self.batch(&[Call::Locate(&attributes, MAX_LOCATED)], |_, answer| {
            // Nothing found may be said by an empty payload or by none.
            let payload = answer.map_err(Fault::Refused)?;
            let ids = payload.iter().flat_map(Item::children);
            for id in ids.filter(|child| child.tag() == Tag::UNIQUE_IDENTIFIER) {
                found.push(uid_of(id.text()?)?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// What the server can do, and who made it.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn query(&mut self) -> Result<ServerFacts, NodeError> {
        let functions = [QueryFunction::Operations, QueryFunction::ServerInformation];
        self.call(Call::Query(&functions), |payload| Ok(facts(payload)?))
    }
}

/// The state in an answer to the question for it, or the refusal.
pub(super) fn state_of(
    answer: Answer<'_>,
    uid: &str,
) -> Result<Result<Option<State>, Refusal>, Fault> {
    let payload = match answer {
        Ok(Some(payload)) => payload,
        Ok(None) => return Err(Fault::Unfitting("it has no payload".to_owned())),
        Err(refusal) => return Ok(Err(refusal)),
    };
    same_uid(&payload, uid)?;
    let mut attributes = payload.children().filter(|child| child.tag() == Tag::ATTRIBUTE);
    let Some(attribute) = attributes.next() else { return Ok(Ok(None)) };
    Ok(Ok(Some(State::read(&attribute.required(Tag::ATTRIBUTE_VALUE)?)?)))
}

/// The id of a key that was just made; it must be fit for a key id of ours, or nobody could ask for it again.
fn new_uid(payload: &Item<'_>) -> Result<String, Fault> {
    if let Some(kind) = payload.optional(Tag::OBJECT_TYPE)? {
        let kind = kind.enumeration()?;
        if kind != only::SYMMETRIC_KEY {
            return Err(KeyFault::OtherObject(kind).into());
        }
    }
    uid_of(payload.required(Tag::UNIQUE_IDENTIFIER)?.text()?)
}

fn uid_of(text: &str) -> Result<String, Fault> {
    match crypto::KeyId::new("kmip", text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Fault::Unfitting(format!("{:?} cannot be the id of a key", printable(text)))),
    }
}

/// The answer must be about the key that was asked for, where it says.
fn same_uid(payload: &Item<'_>, uid: &str) -> Result<(), Fault> {
    let Some(found) = payload.optional(Tag::UNIQUE_IDENTIFIER)? else { return Ok(()) };
    let found = found.text()?;
    if found == uid { Ok(()) } else { Err(KeyFault::OtherKey { found: printable(found) }.into()) }
}

fn told(attribute: &Item<'_>) -> Result<Told, TtlvError> {
    let name = bounded(attribute.required(Tag::ATTRIBUTE_NAME)?.text()?);
    let value = attribute.required(Tag::ATTRIBUTE_VALUE)?;
    let value = match value.value() {
        Value::Integer(number) => ToldValue::Integer(number),
        Value::Enumeration(number) => ToldValue::Enumeration(number),
        Value::TextString(text) => ToldValue::Text(bounded(text)),
        Value::DateTime(seconds) => ToldValue::DateTime(seconds),
        Value::Structure(()) => structured(&value)?,
        _ => ToldValue::Other,
    };
    Ok(Told { name, value })
}

/// The one structure that is looked into: a name.
fn structured(value: &Item<'_>) -> Result<ToldValue, TtlvError> {
    match value.optional(Tag::NAME_VALUE)? {
        Some(name) => Ok(ToldValue::Text(bounded(name.text()?))),
        None => Ok(ToldValue::Other),
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(MAX_ATTRIBUTE).collect()
}

/// Servers of one vendor tell in a field of their own whether they are a master or a clone; the word is looked for in
/// whatever they say of themselves.
fn facts(payload: &Item<'_>) -> Result<ServerFacts, TtlvError> {
    let mut facts = ServerFacts::default();
    for child in payload.children().take(MAX_LISTED) {
        match child.tag() {
            Tag::OPERATION => facts.operations.push(child.enumeration()?),
            Tag::VENDOR_IDENTIFICATION => facts.vendor = Some(printable(child.text()?)),
            Tag::SERVER_INFORMATION => {
                let texts = child.children().filter_map(|inner| inner.text().ok());
                facts.clone = texts.into_iter().any(|text| text.eq_ignore_ascii_case("clone"));
            }
            _ => {}
        }
    }
    Ok(facts)
}
