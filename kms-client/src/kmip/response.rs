//! Responses: whether a message answers what was asked, and what it says.
//!
//! Owns the comparison of an answer with its request (KMIP 1.4 section 7.2). It must not know connections, nor what is in a
//! payload. Flow: [`read`] takes a checked message, and gives one [`Answer`] for each call, in the order of the calls.

use super::ttlv::{Item, Reason, Tag, TtlvError};
use super::values::{Operation, ResultReason, Version};

/// Longest text of a server that is kept, in characters: it goes into messages for people.
const MAX_TEXT: usize = 200;

/// What became of one call: its payload, or why the server refused. Some successes have no payload.
pub type Answer<'a> = Result<Option<Item<'a>>, Refusal>;

/// A server's no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why; `None` for a number that is not in the standard.
    pub reason: Option<ResultReason>,
    /// What the server adds, in printable characters and bounded.
    pub message: String,
}

/// Why a message is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The bytes are no message.
    #[error(transparent)]
    Malformed(#[from] TtlvError),
    /// The message answers something else.
    #[error("{0}")]
    Unfitting(String),
}

/// A call as far as its answer must repeat it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its operation.
    pub operation: Operation,
    /// Its id, if it had one.
    pub id: Option<&'a [u8]>,
}

/// The answers in `message` to the calls `asked` in `version`.
///
/// Items are matched by their ids, so a server may change their order. Fields that are not known are passed over. A server that
/// cannot read a request at all answers with one item without operation and id, in a header of an older version; this
/// is every call's refusal.
///
/// # Errors
/// [`ResponseError`] when it is no answer to them; then nothing is known of what the server did.
pub fn read<'a>(
    message: &'a [u8],
    version: Version,
    asked: &[Asked<'_>],
) -> Result<Vec<Answer<'a>>, ResponseError> {
    let root = Item::parse(message)?;
    if root.tag() != Tag::RESPONSE_MESSAGE {
        return Err(root.fault(Reason::WrongTag { wanted: Tag::RESPONSE_MESSAGE }).into());
    }
    let header = root.required(Tag::RESPONSE_HEADER)?.structure()?;
    let theirs = header.required(Tag::PROTOCOL_VERSION)?.structure()?;
    let count = header.required(Tag::BATCH_COUNT)?.integer()?;
    let items: Vec<_> = root.children().filter(|c| c.tag() == Tag::BATCH_ITEM).collect();
    if usize::try_from(count) != Ok(items.len()) {
        return unfitting(format!("it says {count} answers and has {}", items.len()));
    }
    if let Some(refusal) = whole_refusal(&items)? {
        return Ok(asked.iter().map(|_| Err(refusal.clone())).collect());
    }
    match Version::read(&theirs)? {
        Some(theirs) if theirs <= version => {}
        Some(theirs) => return unfitting(format!("it has version {theirs}, asked was {version}")),
        None => return unfitting(format!("its version is unknown, asked was {version}")),
    }
    if items.len() > asked.len() || items.is_empty() {
        return unfitting(format!("{} answers to {} calls", items.len(), asked.len()));
    }
    let mut left = items;
    let mut answers = Vec::with_capacity(asked.len());
    for call in asked {
        // A server stops at the first call that it refuses, unless asked to go on (section 6.10).
        let stopped = left.is_empty() && answers.iter().any(Result::is_err);
        answers.push(if stopped { Err(not_done()) } else { answer(take(&mut left, call)?, call)? });
    }
    Ok(answers)
}

/// What becomes of a call after one that was refused.
fn not_done() -> Refusal {
    let message = "not done, as the server refused the operation before it".to_owned();
    Refusal { reason: Some(ResultReason::OperationCanceled), message }
}

fn unfitting<T>(what: String) -> Result<T, ResponseError> {
    Err(ResponseError::Unfitting(what))
}

/// The refusal of a message as a whole.
fn whole_refusal(items: &[Item<'_>]) -> Result<Option<Refusal>, TtlvError> {
    let [item] = items else { return Ok(None) };
    let unnamed = item.optional(Tag::OPERATION)?.is_none();
    let failed = item.required(Tag::RESULT_STATUS)?.enumeration()? == STATUS_FAILED;
    if unnamed && failed { refusal(item).map(Some) } else { Ok(None) }
}

/// The item that answers a call: the one with its id, or the next when neither has one.
fn take<'a>(left: &mut Vec<Item<'a>>, call: &Asked<'_>) -> Result<Item<'a>, ResponseError> {
    let alone = left.len() == 1;
    for (index, item) in left.iter().enumerate() {
        let id = item.optional(Tag::UNIQUE_BATCH_ITEM_ID)?.map(|id| id.bytes()).transpose()?;
        // One answer to one call needs no id, and some servers leave it out.
        if id == call.id || (alone && id.is_none()) {
            return Ok(left.remove(index));
        }
    }
    unfitting(format!("no answer to {} has its id", call.operation))
}

/// Result Status (section 9.1.3.2.28).
const STATUS_SUCCESS: u32 = 0;
const STATUS_FAILED: u32 = 1;
const STATUS_PENDING: u32 = 2;

fn answer<'a>(item: Item<'a>, call: &Asked<'_>) -> Result<Answer<'a>, ResponseError> {
    let status = item.required(Tag::RESULT_STATUS)?;
    match item.optional(Tag::OPERATION)?.map(|operation| operation.enumeration()).transpose()? {
        Some(operation) if operation == call.operation.number() => {}
        None if status.enumeration()? == STATUS_FAILED => {}
        Some(other) => {
            let name = Operation::of(other)
                .map_or_else(|| format!("operation {other:#x}"), |known| known.to_string());
            return unfitting(format!("it answers {name}, asked was {}", call.operation));
        }
        None => return Err(item.fault(Reason::Missing(Tag::OPERATION)).into()),
    }
    match status.enumeration()? {
        STATUS_SUCCESS => Ok(Ok(item.optional(Tag::RESPONSE_PAYLOAD)?)),
        STATUS_FAILED => Ok(Err(refusal(&item)?)),
        STATUS_PENDING => {
            unfitting("it wants to be asked again later, which was not allowed".into())
        }
        other => Err(status.fault(Reason::UnknownValue(other.into())).into()),
    }
}

fn refusal(item: &Item<'_>) -> Result<Refusal, TtlvError> {
    let reason = item.optional(Tag::RESULT_REASON)?.map(|r| r.enumeration()).transpose()?;
    let message = item.optional(Tag::RESULT_MESSAGE)?.map(|m| m.text()).transpose()?;
    Ok(Refusal {
        reason: reason.and_then(ResultReason::of),
        message: printable(message.unwrap_or_default()),
    })
}

/// Text of a server, fit for a log and a terminal.
pub(crate) fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).take(MAX_TEXT).collect::<String>().trim().to_owned()
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            self.reason.map_or("a reason that is not in the standard", ResultReason::name),
        )?;
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
