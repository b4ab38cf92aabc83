//! Commands and answers as bytes, big-endian (TPM 2.0 Library, part 1 section 18, part 2 section 6).
//!
//! Owns the framing and its limits. Every length that comes from a TPM is checked against what is there before it is used.

use super::fault::TpmFault;
use super::line::MAX_MESSAGE;

/// Bytes of a header: tag, size, code.
pub(super) const HEADER: usize = 10;

/// TPM_ST_NO_SESSIONS and TPM_ST_SESSIONS (part 2 section 6.9).
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

/// TPM_RS_PW (part 2 section 7.4): a password instead of a session.
const PASSWORD: u32 = 0x4000_0009;

/// Algorithms (part 2 section 6.3).
pub(super) const ALG_AES: u16 = 0x0006;
pub(super) const ALG_KEYEDHASH: u16 = 0x0008;
pub(super) const ALG_SHA256: u16 = 0x000b;
pub(super) const ALG_NULL: u16 = 0x0010;
pub(super) const ALG_ECC: u16 = 0x0023;
pub(super) const ALG_CFB: u16 = 0x0043;

/// Most entries of a list in an answer: there are that many banks and values at most.
const MAX_LIST: u32 = 16;

/// A command code (part 2 section 6.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub(super) u32);

impl Code {
    pub(super) const CREATE_PRIMARY: Self = Self(0x131);
    pub(super) const CREATE: Self = Self(0x153);
    pub(super) const LOAD: Self = Self(0x157);
    pub(super) const UNSEAL: Self = Self(0x15e);
    pub(super) const FLUSH_CONTEXT: Self = Self(0x165);
    pub(super) const POLICY_COMMAND_CODE: Self = Self(0x16c);
    pub(super) const START_AUTH_SESSION: Self = Self(0x176);
    pub(super) const PCR_READ: Self = Self(0x17e);
    pub(super) const POLICY_PCR: Self = Self(0x17f);

    /// Its name in the standard.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CREATE_PRIMARY => "TPM2_CreatePrimary",
            Self::CREATE => "TPM2_Create",
            Self::LOAD => "TPM2_Load",
            Self::UNSEAL => "TPM2_Unseal",
            Self::FLUSH_CONTEXT => "TPM2_FlushContext",
            Self::POLICY_COMMAND_CODE => "TPM2_PolicyCommandCode",
            Self::START_AUTH_SESSION => "TPM2_StartAuthSession",
            Self::PCR_READ => "TPM2_PCR_Read",
            Self::POLICY_PCR => "TPM2_PolicyPCR",
            _ => "a command",
        }
    }

    /// Whether its answer has a handle before the parameters.
    fn answers_handle(self) -> bool {
        matches!(self, Self::CREATE_PRIMARY | Self::LOAD | Self::START_AUTH_SESSION)
    }
}

/// Parameters in the making. None of them holds a key in clear: those are ciphered by `crypto` before they come here.
#[derive(Default)]
pub(super) struct Params(Vec<u8>);

impl Params {
    pub(super) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// TPM2B: a length of two bytes, and the bytes. What is too long for that is cut, and the TPM refuses the rest; all that
    /// is sent is far shorter.
    pub(super) fn sized(self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let bytes = bytes.get(..length.into()).unwrap_or_default();
        self.u16(length).bytes(bytes)
    }

    pub(super) fn take(self) -> Vec<u8> {
        self.0
    }
}

/// A whole command.
///
/// # Errors
/// `Garbled` when it would be longer than any TPM takes: only a stored area can make it so.
pub(super) fn command(
    code: Code,
    handles: &[u32],
    authorisation: Option<&[u8]>,
    params: &[u8],
) -> Result<Vec<u8>, TpmFault> {
    let mut body = Params::default();
    for handle in handles {
        body = body.u32(*handle);
    }
    if let Some(area) = authorisation {
        body = body.u32(length(area)?).bytes(area);
    }
    let body = body.bytes(params).take();
    let tag = if authorisation.is_some() { SESSIONS } else { NO_SESSIONS };
    let size = HEADER + body.len();
    if size > MAX_MESSAGE {
        return Err(TpmFault::Garbled("a command that is too long"));
    }
    let size = u32::try_from(size).map_err(|_| TpmFault::Garbled("a command that is too long"))?;
    Ok(Params::default().u16(tag).u32(size).u32(code.0).bytes(&body).take())
}

fn length(bytes: &[u8]) -> Result<u32, TpmFault> {
    u32::try_from(bytes.len()).map_err(|_| TpmFault::Garbled("a command that is too long"))
}

/// What a TPM answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// What follows the header.
    Done(&'a [u8]),
    /// A response code that is not zero.
    Refused(u32),
}

/// Length of the whole answer whose header this is.
pub(super) fn announced(header: &[u8; HEADER]) -> Result<usize, TpmFault> {
    let [_, _, a, b, c, d, ..] = *header;
    match usize::try_from(u32::from_be_bytes([a, b, c, d])) {
        Ok(size) if (HEADER..=MAX_MESSAGE).contains(&size) => Ok(size),
        _ => Err(TpmFault::Garbled("its length is out of bounds")),
    }
}

/// Reads the header of an answer. Refusals come without sessions; a TPM that does not even know the tag of a command answers
/// with that of version 1.2, which is a refusal as well.
pub(super) fn answer(bytes: &[u8], with_sessions: bool) -> Result<Answer<'_>, TpmFault> {
    let (header, body) =
        bytes.split_first_chunk::<HEADER>().ok_or(TpmFault::Garbled("it is cut short"))?;
    if announced(header)? != bytes.len() {
        return Err(TpmFault::Garbled("its length is not what it says"));
    }
    let mut reader = Reader::new(header);
    let (tag, _size, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
    let expected = if with_sessions { SESSIONS } else { NO_SESSIONS };
    match code {
        0 if tag == expected => Ok(Answer::Done(body)),
        0 => Err(TpmFault::Garbled("its tag is not that of the command")),
        code if body.is_empty() => Ok(Answer::Refused(code)),
        _ => Err(TpmFault::Garbled("a refusal with content")),
    }
}

/// What follows the header of an answer with sessions, in its parts.
pub(super) struct Parts<'a> {
    /// The handle, where the command answers with one.
    pub(super) handle: Option<u32>,
    /// The parameters.
    pub(super) params: &'a [u8],
    /// Nonce, attributes and HMAC.
    pub(super) authorisation: &'a [u8],
}

impl Parts<'_> {
    /// After an empty password, nothing but a nonce and an HMAC that are empty, and attributes.
    pub(super) fn after_password(self) -> Result<Self, TpmFault> {
        match self.authorisation {
            [0, 0, _, 0, 0] => Ok(self),
            _ => Err(TpmFault::Garbled("an authorisation that was not asked for")),
        }
    }
}

/// Splits it.
pub(super) fn parts(code: Code, body: &[u8]) -> Result<Parts<'_>, TpmFault> {
    let mut reader = Reader::new(body);
    let handle = if code.answers_handle() { Some(reader.u32()?) } else { None };
    let length = usize::try_from(reader.u32()?);
    let length = length.map_err(|_| TpmFault::Garbled("its parameters are too long"))?;
    let params = reader.bytes(length)?;
    Ok(Parts { handle, params, authorisation: reader.rest() })
}

/// TPMS_AUTH_COMMAND (part 2 section 10.13.2) for what has no password.
pub(super) fn empty_password() -> Vec<u8> {
    Params::default().u32(PASSWORD).sized(&[]).bytes(&[0]).sized(&[]).take()
}

/// The name of an object: its hash algorithm, and the hash of its public area (part 1 section 16).
pub(super) fn name_of(public: &[u8]) -> Vec<u8> {
    Params::default().u16(ALG_SHA256).bytes(&sha256(&[public])).take()
}

/// SHA-256 (FIPS 180-4) of the concatenation of `parts`, which are public.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    crypto::sha256(parts)
}

/// Bytes of an answer, from front to back.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], TpmFault> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(TpmFault::Garbled("it is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TpmFault> {
        let (taken, rest) =
            self.rest.split_first_chunk().ok_or(TpmFault::Garbled("it is cut short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, TpmFault> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, TpmFault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, TpmFault> {
        self.array().map(u32::from_be_bytes)
    }

    /// TPM2B.
    pub(super) fn sized(&mut self) -> Result<&'a [u8], TpmFault> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    /// The length of a list.
    pub(super) fn count(&mut self) -> Result<usize, TpmFault> {
        match self.u32()? {
            count if count <= MAX_LIST => {
                usize::try_from(count).map_err(|_| TpmFault::Garbled("a list that is too long"))
            }
            _ => Err(TpmFault::Garbled("a list that is too long")),
        }
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing is left.
    pub(super) fn end(self) -> Result<(), TpmFault> {
        if self.rest.is_empty() { Ok(()) } else { Err(TpmFault::Garbled("it has bytes too many")) }
    }
}
