//! Messages of the transmission phase: requests, what they ask of an export, simple replies.
//!
//! Owns the layout of a request and the rules which command may carry which flag and reach where. Must not
//! know volumes. Flow: 28 bytes -> [`Request`] -> [`Request::check`] against the [`Shape`] of the export ->
//! [`Action`]; [`simple_reply`] makes the 16 bytes of the answer.

use super::{MAX_DISCARDED, MAX_PAYLOAD, Violation, WireError, be16, be32};

/// Start of each request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Start of each simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Bytes of a request without its payload.
pub const REQUEST_LEN: usize = 28;
/// Bytes of a simple reply without its payload.
pub const REPLY_LEN: usize = 16;

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
    /// A flush on one connection covers writes answered on all.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
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
    /// Make the range read as zeros.
    pub const WRITE_ZEROES: u16 = 6;
}

/// Command flags.
pub mod command_flag {
    /// Answer only when the data is on stable storage.
    pub const FUA: u16 = 1 << 0;
    /// Zeros must be provisioned.
    pub const NO_HOLE: u16 = 1 << 1;
}

/// One request as sent, before any check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Command flags.
    pub flags: u16,
    /// Command number.
    pub command: u16,
    /// Opaque; echoed in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u32,
}

/// What a checker must know of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Size in bytes.
    pub size: u64,
    /// No writes allowed.
    pub read_only: bool,
}

impl Shape {
    /// The transmission flags that fit. A read-only export offers no TRIM and WRITE_ZEROES, but answers them.
    pub fn flags(self) -> u16 {
        let common = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::SEND_FUA | flag::CAN_MULTI_CONN;
        if self.read_only {
            common | flag::READ_ONLY
        } else {
            common | flag::SEND_TRIM | flag::SEND_WRITE_ZEROES
        }
    }
}

/// A request that may be carried out. `durable` is FUA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read into the reply.
    Read,
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
    /// Make the range read as zeros.
    WriteZeroes {
        /// FUA.
        durable: bool,
        /// Without NO_HOLE the range may be a hole.
        may_punch: bool,
    },
    /// Finish and close, without a reply.
    Disconnect,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Violation::RequestMagic`], or [`Violation::WriteLength`] for a payload that is too long to skip.
    pub fn parse(bytes: &[u8; REQUEST_LEN]) -> Result<Self, Violation> {
        let cookie = bytes.get(8..).and_then(|b| b.first_chunk().copied()).map(u64::from_be_bytes);
        let offset = bytes.get(16..).and_then(|b| b.first_chunk().copied()).map(u64::from_be_bytes);
        let (
            Some(REQUEST_MAGIC),
            Some(flags),
            Some(command),
            Some(cookie),
            Some(offset),
            Some(length),
        ) = (be32(bytes, 0), be16(bytes, 4), be16(bytes, 6), cookie, offset, be32(bytes, 24))
        else {
            return Err(Violation::RequestMagic);
        };
        let request = Self { flags, command, cookie, offset, length };
        if request.payload() > MAX_DISCARDED {
            return Err(Violation::WriteLength(length));
        }
        Ok(request)
    }

    /// Writes a request, as a client does.
    pub fn encode(&self) -> [u8; REQUEST_LEN] {
        let mut out = [0; REQUEST_LEN];
        let fields: [&[u8]; 6] = [
            &REQUEST_MAGIC.to_be_bytes(),
            &self.flags.to_be_bytes(),
            &self.command.to_be_bytes(),
            &self.cookie.to_be_bytes(),
            &self.offset.to_be_bytes(),
            &self.length.to_be_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        out
    }

    /// Bytes of payload that follow the request, whether or not it is refused.
    pub fn payload(&self) -> u32 {
        if self.command == command::WRITE { self.length } else { 0 }
    }

    /// Whether `shape` allows this request, and what it asks for.
    ///
    /// # Errors
    /// The code that the reply carries: `Invalid` for an unknown command, a flag that the command may not have,
    /// a payload over the limit or a read past the end; `Perm` for a change of a read-only export; `NoSpace` for
    /// a write past the end ("Request message", "Error values").
    pub fn check(&self, shape: Shape) -> Result<Action, WireError> {
        let allowed = match self.command {
            command::READ | command::WRITE | command::DISC | command::FLUSH | command::TRIM => {
                command_flag::FUA
            }
            command::WRITE_ZEROES => command_flag::FUA | command_flag::NO_HOLE,
            _ => return Err(WireError::Invalid),
        };
        if self.flags & !allowed != 0 && self.command != command::DISC {
            return Err(WireError::Invalid);
        }
        let durable = self.flags & command_flag::FUA != 0;
        match self.command {
            command::DISC => Ok(Action::Disconnect),
            command::FLUSH => Ok(Action::Flush),
            command::READ => self.inside(shape, WireError::Invalid).map(|()| Action::Read),
            _ if shape.read_only => Err(WireError::Perm),
            command::WRITE => {
                self.inside(shape, WireError::NoSpace).map(|()| Action::Write { durable })
            }
            command::TRIM => {
                self.inside(shape, WireError::Invalid).map(|()| Action::Trim { durable })
            }
            _ => self.inside(shape, WireError::NoSpace).map(|()| Action::WriteZeroes {
                durable,
                may_punch: self.flags & command_flag::NO_HOLE == 0,
            }),
        }
    }

    /// Payload limit and range; `outside` is the answer to a range past the end.
    fn inside(&self, shape: Shape, outside: WireError) -> Result<(), WireError> {
        let carries_data = matches!(self.command, command::READ | command::WRITE);
        if carries_data && self.length > MAX_PAYLOAD {
            return Err(WireError::Invalid);
        }
        match self.offset.checked_add(u64::from(self.length)) {
            Some(end) if end <= shape.size => Ok(()),
            _ => Err(outside),
        }
    }
}

/// The 16 bytes of a simple reply; the data of a successful READ follows them.
pub fn simple_reply(cookie: u64, error: Option<WireError>) -> [u8; REPLY_LEN] {
    let mut out = [0; REPLY_LEN];
    let fields: [&[u8]; 3] = [
        &SIMPLE_REPLY_MAGIC.to_be_bytes(),
        &error.map_or(0, WireError::code).to_be_bytes(),
        &cookie.to_be_bytes(),
    ];
    for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
        *to = *from;
    }
    out
}
