//! Messages of the handshake: greeting, client flags, options and their replies.
//!
//! Owns the layout of "Fixed newstyle negotiation". Must not know in which order messages come: that is
//! `handshake`. Flow: client bytes -> [`ClientFlags`], [`OptionHeader`], [`ExportQuery`]; [`reply`] and its
//! kin append answers to a buffer.

use super::meta::ALLOCATION;
use super::{MAX_PAYLOAD, MAX_STRING, MIN_BLOCK, PREFERRED_BLOCK, Violation, be16, be32};

/// `NBDMAGIC`, start of the greeting.
const GREETING_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, second half of the greeting and start of each option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Start of each option reply.
pub const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// `NBD_FLAG_FIXED_NEWSTYLE` and `NBD_FLAG_C_FIXED_NEWSTYLE`.
const FIXED_NEWSTYLE: u16 = 1 << 0;
/// `NBD_FLAG_NO_ZEROES` and `NBD_FLAG_C_NO_ZEROES`.
const NO_ZEROES: u16 = 1 << 1;

/// Bytes of the client flags.
pub const CLIENT_FLAGS_LEN: usize = 4;
/// Bytes of an option header.
pub const OPTION_HEADER_LEN: usize = 16;
/// Zero bytes after the answer to `EXPORT_NAME`, unless both sides agreed to leave them out.
pub const EXPORT_NAME_PADDING: usize = 124;

/// Option numbers.
pub mod option {
    /// Choose an export, old form without an error path.
    pub const EXPORT_NAME: u32 = 1;
    /// Leave.
    pub const ABORT: u32 = 2;
    /// Name the exports.
    pub const LIST: u32 = 3;
    /// Go on under TLS.
    pub const STARTTLS: u32 = 5;
    /// Describe an export.
    pub const INFO: u32 = 6;
    /// Choose an export.
    pub const GO: u32 = 7;
    /// Answer READ by chunks.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Name the contexts of BLOCK_STATUS.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Select contexts for BLOCK_STATUS.
    pub const SET_META_CONTEXT: u32 = 10;
    /// Use extended headers.
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Types of option replies; errors have the top bit set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// Done.
    Ack,
    /// An export of `LIST`.
    Server,
    /// A piece of information.
    Info,
    /// A context of BLOCK_STATUS.
    MetaContext,
    /// The option is not supported.
    Unsupported,
    /// The option's data is malformed.
    Invalid,
    /// Nothing but STARTTLS is answered before TLS.
    TlsRequired,
    /// No such export.
    Unknown,
    /// The server is stopping.
    Shutdown,
    /// The option's data is too long.
    TooBig,
    /// Extended headers are in use, and there is no way back.
    ExtendedRequired,
}

impl ReplyKind {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        const ERROR: u32 = 1 << 31;
        match self {
            Self::Ack => 1,
            Self::Server => 2,
            Self::Info => 3,
            Self::MetaContext => 4,
            Self::Unsupported => ERROR | 1,
            Self::Invalid => ERROR | 3,
            Self::TlsRequired => ERROR | 5,
            Self::Unknown => ERROR | 6,
            Self::Shutdown => ERROR | 7,
            Self::TooBig => ERROR | 9,
            Self::ExtendedRequired => ERROR | 10,
        }
    }
}

/// What a client wants to know with `INFO` and `GO`, beyond size and flags.
const INFO_EXPORT: u16 = 0;
const INFO_NAME: u16 = 1;
const INFO_DESCRIPTION: u16 = 2;
const INFO_BLOCK_SIZE: u16 = 3;

/// The 18 bytes that a server says first.
pub fn greeting() -> [u8; 18] {
    let mut out = [0; 18];
    let (first, rest) = out.split_at_mut(8);
    let (second, flags) = rest.split_at_mut(8);
    first.copy_from_slice(&GREETING_MAGIC.to_be_bytes());
    second.copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    flags.copy_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    out
}

/// What the client agreed to. A client without fixed newstyle knows only `EXPORT_NAME`; it gets the same
/// answers, since it asks nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientFlags {
    /// The client understands error replies to options.
    pub fixed_newstyle: bool,
    /// Leave out the padding after `EXPORT_NAME`.
    pub no_zeroes: bool,
}

impl ClientFlags {
    /// Reads the client flags.
    ///
    /// # Errors
    /// [`Violation::ClientFlags`] when a flag is set that the greeting did not offer.
    pub fn parse(bytes: [u8; CLIENT_FLAGS_LEN]) -> Result<Self, Violation> {
        let flags = u32::from_be_bytes(bytes);
        if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
            return Err(Violation::ClientFlags(flags));
        }
        let has = |flag: u16| flags & u32::from(flag) != 0;
        Ok(Self { fixed_newstyle: has(FIXED_NEWSTYLE), no_zeroes: has(NO_ZEROES) })
    }
}

/// Start of an option; `length` bytes of data follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionHeader {
    /// Option number, known or not.
    pub option: u32,
    /// Bytes of data.
    pub length: u32,
}

impl OptionHeader {
    /// Reads an option header.
    ///
    /// # Errors
    /// [`Violation::OptionMagic`].
    pub fn parse(bytes: &[u8; OPTION_HEADER_LEN]) -> Result<Self, Violation> {
        match (
            bytes.first_chunk().copied().map(u64::from_be_bytes),
            be32(bytes, 8),
            be32(bytes, 12),
        ) {
            (Some(OPTION_MAGIC), Some(option), Some(length)) => Ok(Self { option, length }),
            _ => Err(Violation::OptionMagic),
        }
    }
}

/// The data of `INFO` and `GO`: an export name and what else the client wants to know. Unknown information
/// requests are skipped, as the protocol demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportQuery<'a> {
    /// Name of the export; empty for the default one.
    pub name: &'a str,
    /// `NBD_INFO_NAME` was asked for.
    pub wants_name: bool,
    /// `NBD_INFO_DESCRIPTION` was asked for.
    pub wants_description: bool,
    /// `NBD_INFO_BLOCK_SIZE` was asked for.
    pub wants_block_size: bool,
}

impl<'a> ExportQuery<'a> {
    /// Reads the data of `INFO` or `GO`; `None` when the counts do not fit it or the name is no name.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let name_len = usize::try_from(be32(data, 0)?).ok()?;
        let (name, rest) = data.get(4..)?.split_at_checked(name_len)?;
        let count = usize::from(be16(rest, 0)?);
        let requests = rest.get(2..)?;
        if requests.len() != count * 2 {
            return None;
        }
        let wants = |info: u16| requests.chunks_exact(2).any(|asked| asked == info.to_be_bytes());
        Some(Self {
            name: text(name)?,
            wants_name: wants(INFO_NAME),
            wants_description: wants(INFO_DESCRIPTION),
            wants_block_size: wants(INFO_BLOCK_SIZE),
        })
    }
}

/// A string of the protocol: UTF-8, no NUL, at most [`MAX_STRING`] bytes.
pub fn text(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > MAX_STRING || bytes.contains(&0) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// Appends one option reply with its data.
pub fn reply(out: &mut Vec<u8>, option: u32, kind: ReplyKind, data: &[&[u8]]) {
    let length: usize = data.iter().map(|part| part.len()).sum();
    // Every caller sends at most a few strings of MAX_STRING bytes.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.code().to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    for part in data {
        out.extend_from_slice(part);
    }
}

/// Appends the `NBD_REP_SERVER` that names one export.
pub fn reply_server(out: &mut Vec<u8>, name: &str) {
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes();
    reply(out, option::LIST, ReplyKind::Server, &[&length, name.as_bytes()]);
}

/// Appends `NBD_INFO_EXPORT`: size in bytes and transmission flags.
pub fn reply_export(out: &mut Vec<u8>, option: u32, size: u64, flags: u16) {
    let info = INFO_EXPORT.to_be_bytes();
    reply(out, option, ReplyKind::Info, &[&info, &size.to_be_bytes(), &flags.to_be_bytes()]);
}

/// Appends `NBD_INFO_NAME`: the canonical name.
pub fn reply_name(out: &mut Vec<u8>, option: u32, name: &str) {
    reply(out, option, ReplyKind::Info, &[&INFO_NAME.to_be_bytes(), name.as_bytes()]);
}

/// Appends `NBD_INFO_DESCRIPTION`: text for people.
pub fn reply_description(out: &mut Vec<u8>, option: u32, description: &str) {
    let info = INFO_DESCRIPTION.to_be_bytes();
    reply(out, option, ReplyKind::Info, &[&info, description.as_bytes()]);
}

/// Appends `NBD_INFO_BLOCK_SIZE`: smallest, preferred and largest.
pub fn reply_block_size(out: &mut Vec<u8>, option: u32) {
    let info = INFO_BLOCK_SIZE.to_be_bytes();
    let sizes = [MIN_BLOCK, PREFERRED_BLOCK, MAX_PAYLOAD].map(u32::to_be_bytes);
    reply(out, option, ReplyKind::Info, &[&info, sizes.as_flattened()]);
}

/// Appends the `NBD_REP_META_CONTEXT` that names `base:allocation`, with its number when it is selected.
pub fn reply_context(out: &mut Vec<u8>, option: u32, id: u32) {
    reply(out, option, ReplyKind::MetaContext, &[&id.to_be_bytes(), ALLOCATION.as_bytes()]);
}

/// Appends the answer to `EXPORT_NAME`.
pub fn export_name_answer(out: &mut Vec<u8>, size: u64, flags: u16, zeroes: bool) {
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    if zeroes {
        out.extend_from_slice(&[0; EXPORT_NAME_PADDING]);
    }
}
