//! The negotiation as a state machine: bytes in, bytes out, no I/O.
//!
//! Owns the order of handshake messages and the limits on them. Must not know sockets: a fuzzer drives it as
//! the connection does. Flow: [`Negotiation::feed`] takes what the client sent, appends the answers, and says
//! whether more is needed, transmission begins, or the session is over.

use super::agreement::{Agreement, refuse};
use super::proto::negotiation::{
    CLIENT_FLAGS_LEN, ClientFlags, ExportQuery, OPTION_HEADER_LEN, OptionHeader, ReplyKind,
    export_name_answer, option, reply, reply_block_size, reply_description, reply_export,
    reply_name, reply_server, text,
};
use super::proto::transmission::Shape;
use super::proto::{Terms, Violation};

/// Longest option whose data is looked at: a name of 4096 bytes and every information request fit many times.
pub const MAX_OPTION: u32 = 64 * 1024;

/// Longest option that is skipped and answered; a longer one ends the session.
pub const MAX_SKIPPED_OPTION: u32 = 1024 * 1024;

/// Options in one session. Clients send fewer than ten; a peer that asks for ever is cut.
pub const MAX_OPTIONS: u32 = 256;

/// What the client may learn about an export.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Name of the export; the empty name means it, too, when it is the only one on offer.
    pub name: &'a str,
    /// Text for people.
    pub description: &'a str,
    /// Size and abilities.
    pub shape: Shape,
    /// The export is stopping: options are answered with `ERR_SHUTDOWN`.
    pub stopping: bool,
}

/// Where a session stands after a call of [`Negotiation::feed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The client must say more.
    More,
    /// The next byte is the first of a request; the number is that of the export among the offers.
    Transmit(usize, Terms),
    /// `STARTTLS` was acknowledged. This negotiation is over, with everything in it; whatever the client has
    /// sent behind it is thrown away, and one [`Negotiation::over_tls`] takes its place.
    StartTls,
    /// The client took leave; send what there is and close.
    Close,
}

/// Whether the session is encrypted. It never changes: TLS begins a new negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    /// A Unix socket, which needs none (the protocol's NOTLS).
    Local,
    /// A network socket before TLS (FORCEDTLS).
    BeforeTls,
    /// The same after it.
    Tls,
}

/// Which message comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    ClientFlags,
    Header,
    Data(OptionHeader),
    /// The option is too long; `left` bytes of it are still to be skipped.
    Skip {
        option: u32,
        left: u32,
    },
}

/// One session before transmission.
#[derive(Debug)]
pub struct Negotiation {
    stage: Stage,
    security: Security,
    fixed: bool,
    zeroes: bool,
    options: u32,
    agreed: Agreement,
    /// The last name that was asked for and is not on offer.
    unknown: Option<String>,
}

impl Negotiation {
    /// A session whose greeting has just been sent.
    pub fn new() -> Self {
        Self {
            stage: Stage::ClientFlags,
            security: Security::Local,
            fixed: false,
            zeroes: true,
            options: 0,
            agreed: Agreement::default(),
            unknown: None,
        }
    }

    /// The same on a socket where nothing is done without TLS.
    pub fn before_tls() -> Self {
        Self { security: Security::BeforeTls, ..Self::new() }
    }

    /// What follows `before` under TLS. Of what was said in clear only the client flags are kept (they are not
    /// sent again): anybody in between could have said it (CVE-2021-3716).
    pub fn over_tls(before: &Self) -> Self {
        let (stage, security) = (Stage::Header, Security::Tls);
        Self {
            stage,
            security,
            fixed: before.fixed,
            zeroes: before.zeroes,
            options: 0,
            agreed: Agreement::default(),
            unknown: None,
        }
    }

    /// The last name that was asked for in vain since the last call, for the log.
    pub fn take_unknown(&mut self) -> Option<String> {
        self.unknown.take()
    }

    /// Takes whole messages from `input`, appends answers to `out`, and returns how many bytes were taken. The
    /// rest belongs to a message that is not complete, or to the transmission phase.
    ///
    /// # Errors
    /// A [`Violation`] ends the session; what is in `out` was said before it and may still be sent.
    pub fn feed(
        &mut self,
        input: &[u8],
        offers: &[Offer<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Verdict), Violation> {
        let mut rest = input;
        loop {
            let before = rest.len();
            let verdict = self.step(&mut rest, offers, out)?;
            if verdict != Verdict::More || rest.len() == before {
                return Ok((input.len() - rest.len(), verdict));
            }
        }
    }

    /// Takes at most one message; takes nothing when it is not complete.
    fn step(
        &mut self,
        rest: &mut &[u8],
        offers: &[Offer<'_>],
        out: &mut Vec<u8>,
    ) -> Result<Verdict, Violation> {
        match self.stage {
            Stage::ClientFlags => {
                let Some((flags, after)) = rest.split_first_chunk::<CLIENT_FLAGS_LEN>() else {
                    return Ok(Verdict::More);
                };
                let flags = ClientFlags::parse(*flags)?;
                (self.fixed, self.zeroes) = (flags.fixed_newstyle, !flags.no_zeroes);
                (*rest, self.stage) = (after, Stage::Header);
                Ok(Verdict::More)
            }
            Stage::Header => {
                let Some((header, after)) = rest.split_first_chunk::<OPTION_HEADER_LEN>() else {
                    return Ok(Verdict::More);
                };
                *rest = after;
                self.header(OptionHeader::parse(header)?)?;
                // An option without data is complete here; one more byte may never come.
                match self.stage {
                    Stage::Data(OptionHeader { option, length: 0 }) => {
                        self.stage = Stage::Header;
                        self.answer(option, &[], offers, out)
                    }
                    _ => Ok(Verdict::More),
                }
            }
            Stage::Data(OptionHeader { option, length }) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let Some((data, after)) = rest.split_at_checked(length) else {
                    return Ok(Verdict::More);
                };
                (*rest, self.stage) = (after, Stage::Header);
                self.answer(option, data, offers, out)
            }
            Stage::Skip { option, left } => {
                self.skip(option, left, rest, out);
                Ok(Verdict::More)
            }
        }
    }

    /// Decides what to do with the data of an option.
    fn header(&mut self, header: OptionHeader) -> Result<(), Violation> {
        self.options += 1;
        if self.options > MAX_OPTIONS {
            return Err(Violation::TooManyOptions(MAX_OPTIONS));
        }
        // A client without fixed newstyle cannot do TLS, and knows no error replies either.
        let cannot_wait = header.option == option::EXPORT_NAME || !self.fixed;
        if self.security == Security::BeforeTls && cannot_wait {
            return Err(Violation::WithoutTls);
        }
        if header.length > MAX_SKIPPED_OPTION {
            return Err(Violation::OptionLength(header.length));
        }
        self.stage = if header.length > MAX_OPTION {
            Stage::Skip { option: header.option, left: header.length }
        } else {
            Stage::Data(header)
        };
        Ok(())
    }

    /// Throws away data of an option that is too long, and answers after the last byte.
    fn skip(&mut self, option: u32, left: u32, rest: &mut &[u8], out: &mut Vec<u8>) {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        *rest = rest.get(now..).unwrap_or_default();
        let left = left.saturating_sub(u32::try_from(now).unwrap_or(u32::MAX));
        self.stage = Stage::Skip { option, left };
        if left == 0 {
            self.stage = Stage::Header;
            match self.security {
                Security::BeforeTls => {
                    refuse(out, option, ReplyKind::TlsRequired, "not before TLS");
                }
                _ => refuse(out, option, ReplyKind::TooBig, "the option is too long"),
            }
        }
    }

    /// Answers one complete option.
    fn answer(
        &mut self,
        option: u32,
        data: &[u8],
        offers: &[Offer<'_>],
        out: &mut Vec<u8>,
    ) -> Result<Verdict, Violation> {
        match option {
            option::ABORT => {
                reply(out, option, ReplyKind::Ack, &[]);
                return Ok(Verdict::Close);
            }
            option::STARTTLS if self.security != Security::Local => {
                return Ok(self.start_tls(data, out));
            }
            _ if self.security == Security::BeforeTls => {
                refuse(out, option, ReplyKind::TlsRequired, "only STARTTLS is answered here");
            }
            option::EXPORT_NAME => return self.export_name(data, offers, out),
            _ if !offers.is_empty() && offers.iter().all(|offer| offer.stopping) => {
                refuse(out, option, ReplyKind::Shutdown, "the export is stopping");
            }
            option::LIST if !data.is_empty() => {
                refuse(out, option, ReplyKind::Invalid, "LIST takes no data");
            }
            option::LIST => {
                offers.iter().for_each(|offer| reply_server(out, offer.name));
                reply(out, option, ReplyKind::Ack, &[]);
            }
            option::STRUCTURED_REPLY | option::EXTENDED_HEADERS => {
                self.agreed.frame(option, data, out);
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                let exists = |name: &str| find(name, offers).is_some();
                self.agreed.contexts(option, data, exists, out);
            }
            option::INFO | option::GO => {
                self.unknown = ExportQuery::parse(data)
                    .filter(|query| find(query.name, offers).is_none())
                    .map(|query| query.name.to_owned());
                let found = describe(option, data, offers, &self.agreed, out);
                if let Some((chosen, terms)) = found.filter(|_| option == option::GO) {
                    return Ok(Verdict::Transmit(chosen, terms));
                }
            }
            _ => refuse(out, option, ReplyKind::Unsupported, "the option is not supported"),
        }
        Ok(Verdict::More)
    }

    /// `STARTTLS` on a network socket.
    fn start_tls(&self, data: &[u8], out: &mut Vec<u8>) -> Verdict {
        let wrong = match (self.security, data) {
            (Security::BeforeTls, []) => {
                reply(out, option::STARTTLS, ReplyKind::Ack, &[]);
                return Verdict::StartTls;
            }
            (Security::BeforeTls, _) => "STARTTLS takes no data",
            (Security::Local | Security::Tls, _) => "the session is under TLS already",
        };
        refuse(out, option::STARTTLS, ReplyKind::Invalid, wrong);
        Verdict::More
    }

    /// `EXPORT_NAME` has no error reply: whatever is wrong ends the session.
    fn export_name(
        &self,
        data: &[u8],
        offers: &[Offer<'_>],
        out: &mut Vec<u8>,
    ) -> Result<Verdict, Violation> {
        if self.agreed.is_extended() {
            return Err(Violation::ExportNameExtended);
        }
        let name = text(data).ok_or(Violation::UnknownExport)?;
        let (chosen, offer) = find(name, offers)
            .filter(|(_, offer)| !offer.stopping)
            .ok_or(Violation::UnknownExport)?;
        let terms = self.agreed.terms(name);
        export_name_answer(out, offer.shape.size, offer.shape.flags(terms), self.zeroes);
        Ok(Verdict::Transmit(chosen, terms))
    }
}

impl Default for Negotiation {
    fn default() -> Self {
        Self::new()
    }
}

/// Answers `INFO` or `GO`; the number of the export and what holds for it when it was found, so that `GO` has
/// succeeded.
fn describe(
    option: u32,
    data: &[u8],
    offers: &[Offer<'_>],
    agreed: &Agreement,
    out: &mut Vec<u8>,
) -> Option<(usize, Terms)> {
    let Some(query) = ExportQuery::parse(data) else {
        refuse(out, option, ReplyKind::Invalid, "the lengths do not fit, or the name is no text");
        return None;
    };
    let Some((chosen, offer)) = find(query.name, offers) else {
        refuse(out, option, ReplyKind::Unknown, "no export of that name on this socket");
        return None;
    };
    let terms = agreed.terms(query.name);
    reply_export(out, option, offer.shape.size, offer.shape.flags(terms));
    if query.wants_name {
        reply_name(out, option, offer.name);
    }
    if query.wants_description {
        reply_description(out, option, offer.description);
    }
    if query.wants_block_size {
        reply_block_size(out, option);
    }
    reply(out, option, ReplyKind::Ack, &[]);
    Some((chosen, terms))
}

/// The export that `name` means, with its number; the empty name means the only one.
fn find<'a>(name: &str, offers: &'a [Offer<'a>]) -> Option<(usize, &'a Offer<'a>)> {
    match offers {
        [only] if name.is_empty() => Some((0, only)),
        _ => offers.iter().enumerate().find(|(_, offer)| offer.name == name),
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
