//! What client and server agree on by options, before an export is chosen.
//!
//! Owns the options STRUCTURED_REPLY, EXTENDED_HEADERS, LIST_META_CONTEXT and SET_META_CONTEXT, and what becomes of
//! them. It must not know exports nor in which order other options come. Flow: `handshake` hands the data of one
//! of these options over; when an export is chosen, [`Agreement::terms`] says what holds for it.

use super::proto::meta::ContextQuery;
use super::proto::negotiation::{ReplyKind, option, reply, reply_context};
use super::proto::status::ALLOCATION_ID;
use super::proto::{Framing, Terms};

/// The state of the agreement.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    framing: Framing,
    /// The export, as the client called it, for which `base:allocation` was selected last.
    selected: Option<String>,
}

impl Agreement {
    /// What holds for an export that is chosen by `name`. A selection counts for the name it was made with.
    pub(super) fn terms(&self, name: &str) -> Terms {
        Terms { framing: self.framing, allocation: self.selected.as_deref() == Some(name) }
    }

    /// Whether extended headers are in use.
    pub(super) fn is_extended(&self) -> bool {
        self.framing == Framing::Extended
    }

    /// Answers STRUCTURED_REPLY or EXTENDED_HEADERS. Asking again for what is in use is harmless.
    pub(super) fn frame(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) {
        if !data.is_empty() {
            return refuse(out, option, ReplyKind::Invalid, "the option takes no data");
        }
        if option == option::EXTENDED_HEADERS {
            self.framing = Framing::Extended;
        } else if self.is_extended() {
            return refuse(out, option, ReplyKind::ExtendedRequired, "headers are extended");
        } else {
            self.framing = Framing::Structured;
        }
        reply(out, option, ReplyKind::Ack, &[]);
    }

    /// Answers LIST_META_CONTEXT or SET_META_CONTEXT; `exists` tells whether there is an export of that name.
    pub(super) fn contexts(
        &mut self,
        option: u32,
        data: &[u8],
        exists: impl FnOnce(&str) -> bool,
        out: &mut Vec<u8>,
    ) {
        let sets = option == option::SET_META_CONTEXT;
        // A selection replaces the one before, also when it fails.
        if sets {
            self.selected = None;
        }
        if sets && self.framing == Framing::Simple {
            return refuse(out, option, ReplyKind::Invalid, "structured replies come first");
        }
        let Some(query) = ContextQuery::parse(data) else {
            return refuse(
                out,
                option,
                ReplyKind::Invalid,
                "the queries do not fit, or are no text",
            );
        };
        if !exists(query.name) {
            return refuse(
                out,
                option,
                ReplyKind::Unknown,
                "no export of that name on this socket",
            );
        }
        if sets && query.selects() {
            self.selected = Some(query.name.to_owned());
            reply_context(out, option, ALLOCATION_ID);
        } else if !sets && query.lists() {
            // The number is of no use in a list.
            reply_context(out, option, 0);
        }
        reply(out, option, ReplyKind::Ack, &[]);
    }
}

pub(super) fn refuse(out: &mut Vec<u8>, option: u32, kind: ReplyKind, why: &str) {
    reply(out, option, kind, &[why.as_bytes()]);
}
