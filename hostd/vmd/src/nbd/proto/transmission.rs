//! Requests of the transmission phase, and what they ask of an export.
//!
//! Owns the layout of compact and extended requests and the rules which command may carry which flag and reach
//! where. Must not know volumes. Flow: the bytes of a header -> [`Request`] -> [`Request::check`] against the
//! [`Shape`] of the export and the [`Terms`] of the handshake -> [`Action`].

use super::status::FILTER_LEN;
use super::{Framing, MAX_DISCARDED, MAX_PAYLOAD, Terms, Violation, WireError, be16, be32, be64};

/// Start of each compact request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;

/// Start of each extended request.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;

/// Bytes of a compact request without its payload.
pub const REQUEST_LEN: usize = 28;

/// Bytes of an extended request without its payload.
pub const EXTENDED_REQUEST_LEN: usize = 32;

/// Transmission flags, told with the size of an export.
pub mod flag {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// Writes get EPERM.
    pub const READ_ONLY: u16 = 1 << 1;
    /// FLUSH exists.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// FUA may be on any command.
    pub const SEND_FUA: u16 = 1 << 3;
    /// TRIM exists.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// WRITE_ZEROES and NO_HOLE exist.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// DF may be on READ.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush on one connection covers writes answered on all.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// CACHE exists.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// FAST_ZERO may be on WRITE_ZEROES.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
    /// BLOCK_STATUS may carry a filter.
    pub const BLOCK_STATUS_PAYLOAD: u16 = 1 << 12;
}

/// Command numbers.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write; the payload follows the request.
    pub const WRITE: u16 = 1;
    /// Leave.
    pub const DISC: u16 = 2;
    /// Make answered writes durable.
    pub const FLUSH: u16 = 3;
    /// The range is not needed any more.
    pub const TRIM: u16 = 4;
    /// The range will be read soon.
    pub const CACHE: u16 = 5;
    /// Make the range read as zeros.
    pub const WRITE_ZEROES: u16 = 6;
    /// Which parts of the range are holes.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Command flags.
pub mod command_flag {
    /// Answer only when the data is on stable storage.
    pub const FUA: u16 = 1 << 0;
    /// Zeros must be provisioned.
    pub const NO_HOLE: u16 = 1 << 1;
    /// Answer in one piece.
    pub const DF: u16 = 1 << 2;
    /// Tell the first extent only.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Fail when it would take as long as a write.
    pub const FAST_ZERO: u16 = 1 << 4;
    /// The length is that of a payload.
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// One request as sent, before any check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Sent with an extended header.
    pub extended: bool,
    /// Command flags.
    pub flags: u16,
    /// Command number.
    pub command: u16,
    /// Opaque; echoed in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Number of bytes: of the payload where there is one, else of the range.
    pub length: u64,
}

/// What a checker must know of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Size in bytes.
    pub size: u64,
    /// No writes allowed.
    pub read_only: bool,
    /// Zeros can be made faster than by writing them.
    pub fast_zero: bool,
}

impl Shape {
    /// The transmission flags that fit. A read-only export offers no TRIM and WRITE_ZEROES, but answers them.
    pub fn flags(self, terms: Terms) -> u16 {
        let when = |condition: bool, flags: u16| if condition { flags } else { 0 };
        let changes = flag::SEND_TRIM | flag::SEND_WRITE_ZEROES;
        let filters = terms.framing == Framing::Extended && terms.allocation;
        flag::HAS_FLAGS
            | flag::SEND_FLUSH
            | flag::SEND_FUA
            | flag::CAN_MULTI_CONN
            | flag::SEND_CACHE
            | if self.read_only { flag::READ_ONLY } else { changes }
            | when(self.fast_zero && !self.read_only, flag::SEND_FAST_ZERO)
            | when(terms.framing != Framing::Simple, flag::SEND_DF)
            | when(filters, flag::BLOCK_STATUS_PAYLOAD)
    }

    /// Whether a range lies inside.
    pub fn holds(self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.size)
    }
}

/// A request that may be carried out. `durable` is FUA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read into the reply.
    Read {
        /// In one piece (DF).
        whole: bool,
    },
    /// Write the payload.
    Write {
        /// FUA.
        durable: bool,
    },
    /// Make answered writes durable.
    Flush,
    /// Forget the range.
    Trim {
        /// FUA.
        durable: bool,
    },
    /// Prepare to read the range.
    Cache,
    /// Make the range read as zeros.
    WriteZeroes {
        /// FUA.
        durable: bool,
        /// Without NO_HOLE the range may be a hole.
        may_punch: bool,
        /// FAST_ZERO.
        fast: bool,
    },
    /// Tell which parts of the range are holes.
    BlockStatus {
        /// REQ_ONE.
        one: bool,
    },
    /// The same; the range is in the payload, and not checked yet.
    FilteredStatus {
        /// REQ_ONE.
        one: bool,
    },
    /// Finish and close, without a reply.
    Disconnect,
}

impl Request {
    /// Reads a request with the header of `framing`, of which `bytes` must hold all.
    ///
    /// # Errors
    /// [`Violation::RequestMagic`], or [`Violation::PayloadLength`] for a payload that is too long to skip.
    pub fn parse(bytes: &[u8], framing: Framing) -> Result<Self, Violation> {
        let extended = framing == Framing::Extended;
        let magic = if extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        let length = if extended { be64(bytes, 24) } else { be32(bytes, 24).map(u64::from) };
        let (Some(found), Some(flags), Some(command), Some(cookie), Some(offset), Some(length)) = (
            be32(bytes, 0),
            be16(bytes, 4),
            be16(bytes, 6),
            be64(bytes, 8),
            be64(bytes, 16),
            length,
        ) else {
            return Err(Violation::RequestMagic);
        };
        let request = Self { extended, flags, command, cookie, offset, length };
        match found == magic {
            true if request.payload() > u64::from(MAX_DISCARDED) => {
                Err(Violation::PayloadLength(length))
            }
            true => Ok(request),
            false => Err(Violation::RequestMagic),
        }
    }

    /// Writes a request, as a client does; a compact one holds the low 32 bits of the length.
    pub fn encode(&self) -> Vec<u8> {
        let magic = if self.extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        let mut out = magic.to_be_bytes().to_vec();
        out.extend(self.flags.to_be_bytes());
        out.extend(self.command.to_be_bytes());
        out.extend(self.cookie.to_be_bytes());
        out.extend(self.offset.to_be_bytes());
        let length = self.length.to_be_bytes();
        out.extend(length.get(if self.extended { 0 } else { 4 }..).unwrap_or_default());
        out
    }

    /// Bytes of payload that follow the request, whether or not it is refused. The extension wants `PAYLOAD_LEN` on
    /// an extended WRITE, but QEMU (10.0 is one) sends the payload without the flag, and a WRITE without payload
    /// would mean nothing: so it has one either way.
    pub fn payload(&self) -> u64 {
        let flagged = self.extended && self.flags & command_flag::PAYLOAD_LEN != 0;
        if flagged || self.command == command::WRITE { self.length } else { 0 }
    }

    /// Whether `shape` and `terms` allow this request, and what it asks for.
    ///
    /// # Errors
    /// The code that the reply carries: `Invalid` for an unknown command, a flag that the command may not have,
    /// a payload over the limit or a read past the end; `Perm` for a change of a read-only export; `NoSpace` for
    /// a write past the end ("Request message", "Error values").
    pub fn check(&self, shape: Shape, terms: Terms) -> Result<Action, WireError> {
        if self.command == command::DISC {
            return Ok(Action::Disconnect);
        }
        if self.flags & !self.allowed_flags(shape, terms)? != 0 {
            return Err(WireError::Invalid);
        }
        let has = |flag: u16| self.flags & flag != 0;
        let (durable, one) = (has(command_flag::FUA), has(command_flag::REQ_ONE));
        let (outside, action) = match self.command {
            command::FLUSH => return Ok(Action::Flush),
            command::BLOCK_STATUS if has(command_flag::PAYLOAD_LEN) => {
                let fits = usize::try_from(self.length) == Ok(FILTER_LEN);
                return fits.then_some(Action::FilteredStatus { one }).ok_or(WireError::Invalid);
            }
            // At least one extent is due, and none may be empty.
            command::BLOCK_STATUS if self.length == 0 => return Err(WireError::Invalid),
            command::BLOCK_STATUS => (WireError::Invalid, Action::BlockStatus { one }),
            command::READ => (WireError::Invalid, Action::Read { whole: has(command_flag::DF) }),
            command::CACHE => (WireError::Invalid, Action::Cache),
            _ if shape.read_only => return Err(WireError::Perm),
            command::WRITE => (WireError::NoSpace, Action::Write { durable }),
            command::TRIM => (WireError::Invalid, Action::Trim { durable }),
            _ => {
                let may_punch = !has(command_flag::NO_HOLE);
                let fast = has(command_flag::FAST_ZERO);
                (WireError::NoSpace, Action::WriteZeroes { durable, may_punch, fast })
            }
        };
        let carries_data = matches!(self.command, command::READ | command::WRITE);
        match (carries_data && self.length > u64::from(MAX_PAYLOAD), shape) {
            (true, _) => Err(WireError::Invalid),
            (_, shape) if shape.holds(self.offset, self.length) => Ok(action),
            _ => Err(outside),
        }
    }

    /// The flags that may be on the command.
    fn allowed_flags(&self, shape: Shape, terms: Terms) -> Result<u16, WireError> {
        let when = |condition: bool, flags: u16| if condition { flags } else { 0 };
        let payload = when(self.extended, command_flag::PAYLOAD_LEN);
        Ok(command_flag::FUA
            | match self.command {
                command::WRITE => payload,
                command::READ => when(terms.framing != Framing::Simple, command_flag::DF),
                command::FLUSH | command::TRIM | command::CACHE => 0,
                command::WRITE_ZEROES => {
                    command_flag::NO_HOLE | when(shape.fast_zero, command_flag::FAST_ZERO)
                }
                command::BLOCK_STATUS if terms.allocation => command_flag::REQ_ONE | payload,
                _ => return Err(WireError::Invalid),
            })
    }
}
