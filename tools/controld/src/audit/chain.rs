//! A line of the log, and what ties it to the one before.
//!
//! Owns the shape and the hash; pure: no file, no clock. A line is the JSON of a [`Record`] followed by its own hash:
//!
//! ```text
//! {"hash":"<64 hex>","record":{"seq":7,"prev":"<64 hex>","time":..,...}}
//! ```
//!
//! The hash is SHA-256 (FIPS 180-4) over "coffer audit v1", a NUL, the 64 characters of `prev`, a line feed, and the exact bytes of the record
//! as they stand in the line. No canonical form is needed: what was written is what is hashed.

use crypto::sha256_hex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

/// Longest line: a reason of a few sentences, and names.
pub const MAX_LINE: usize = 16 * 1024;

/// Longest text of one field; longer ones are cut, so that nobody can keep an act out of the log by a long name.
const MAX_TEXT: usize = 1024;

/// The hash before the first line.
pub(super) const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Put before what is hashed, so that no other hash of ours can be one of these.
const DOMAIN: &str = "coffer audit v1\0";

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Name of the user, host or controld; empty when nobody said one.
    pub name: String,
    /// How that is known: `certificate`, `token`, `controld`, `nobody`.
    pub by: String,
    /// Address of the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// To what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// A key id; never a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// A VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// A host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "reason")]
pub enum Outcome {
    /// It is about to be done; another line tells how it ended. A line `begun` without one is an act that a crash cut short.
    Begun,
    /// It was done.
    Done,
    /// It was not allowed.
    Denied(String),
    /// It was allowed, and failed.
    Failed(String),
}

/// What is written about: everything but what the log adds itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// Who.
    pub who: Who,
    /// The verb, for example `vm.put`.
    pub verb: String,
    /// To what.
    pub target: Target,
    /// Why, in the words of who asked; empty when none were given.
    pub why: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Number, from 1 on, without a gap.
    pub seq: u64,
    /// Hash of the line before.
    pub prev: String,
    /// Seconds since 1970, as the clock of this controld had it.
    pub time: u64,
    /// What happened.
    #[serde(flatten)]
    pub act: Act,
}

/// Number and hash of a line: with it, whoever keeps it can tell later that nothing up to there is missing or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the line; 0 for an empty log.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineFault {
    /// It is no line of this log.
    #[error("is no line of an audit log: {0}")]
    Shape(String),
    /// Its hash is not the one of its content.
    #[error("was changed: its hash does not fit")]
    Hash,
    /// It does not follow the line before.
    #[error("does not follow line {after}: a line was removed, added or moved")]
    Order {
        /// Number of the line before.
        after: u64,
    },
}

#[derive(Serialize)]
struct Writing<'a> {
    hash: &'a str,
    record: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading<'a> {
    hash: String,
    #[serde(borrow)]
    record: &'a RawValue,
}

impl Head {
    /// That of an empty log.
    #[must_use]
    pub fn nothing() -> Self {
        Self { seq: 0, hash: NOTHING.to_owned() }
    }
}

impl Act {
    /// With every text cut to its limit.
    fn cut(&self) -> Self {
        let cut = |text: &String| text.chars().take(MAX_TEXT / 4).collect::<String>();
        let maybe = |text: &Option<String>| text.as_ref().map(cut);
        let (who, target) = (&self.who, &self.target);
        let outcome = match &self.outcome {
            Outcome::Denied(reason) => Outcome::Denied(cut(reason)),
            Outcome::Failed(reason) => Outcome::Failed(cut(reason)),
            other => other.clone(),
        };
        Self {
            who: Who { name: cut(&who.name), by: cut(&who.by), address: maybe(&who.address) },
            verb: cut(&self.verb),
            target: Target {
                key_id: maybe(&target.key_id),
                vm: maybe(&target.vm),
                host: maybe(&target.host),
                other: maybe(&target.other),
            },
            why: cut(&self.why),
            outcome,
        }
    }
}

/// The line after `head`, with its line feed, and the head after it.
pub(super) fn line(head: &Head, time: u64, act: &Act) -> Result<(String, Head), serde_json::Error> {
    let seq = head.seq + 1;
    let record = Record { seq, prev: head.hash.clone(), time, act: act.cut() };
    let record = serde_json::value::to_raw_value(&record)?;
    let hash = hash(&head.hash, record.get());
    let mut line = serde_json::to_string(&Writing { hash: &hash, record: &record })?;
    line.push('\n');
    Ok((line, Head { seq, hash }))
}

/// Holds a line (without its line feed) against the head before it.
pub(super) fn follow(head: &Head, line: &[u8]) -> Result<(Record, Head), LineFault> {
    let (record, hash) = alone(line)?;
    if record.seq != head.seq + 1 || record.prev != head.hash {
        return Err(LineFault::Order { after: head.seq });
    }
    let head = Head { seq: record.seq, hash };
    Ok((record, head))
}

/// A line and its hash, held against nothing but itself.
pub(super) fn alone(line: &[u8]) -> Result<(Record, String), LineFault> {
    let shape = |e: serde_json::Error| LineFault::Shape(e.to_string());
    let reading: Reading<'_> = serde_json::from_slice(line).map_err(shape)?;
    let record: Record = serde_json::from_str(reading.record.get()).map_err(shape)?;
    if hash(&record.prev, reading.record.get()) != reading.hash {
        return Err(LineFault::Hash);
    }
    Ok((record, reading.hash))
}

fn hash(prev: &str, record: &str) -> String {
    sha256_hex(format!("{DOMAIN}{prev}\n{record}").as_bytes())
}
