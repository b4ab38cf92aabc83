//! A TPM 2.0 as the keeper of one KEK: sealed by it, given back by it alone, and only while chosen PCRs are what they were.
//!
//! Owns the few commands of the TPM 2.0 Library that this takes, and what they are sent over. It must not know what the KEK
//! opens, nor files. Flow: [`Address::open`] gives a [`Tpm`]; [`Tpm::seal`] makes its storage key, begins a session
//! that is salted with it, and has the KEK, ciphered, sealed below it; [`Tpm::unseal`] goes the same way back. Nothing stays in the
//! TPM: the storage key is derived again each time, and the sealed object is with the caller.
//!
//! Why it is done so: `docs/decisions/tpm.md`.

mod address;
mod codes;
mod fault;
mod line;
mod pcrs;
mod session;
mod storage_key;
mod wire;

pub use address::Address;
pub use fault::TpmFault;
pub use line::{Line, MAX_MESSAGE};
pub use pcrs::{PcrSet, PcrValue};

use crypto::{Arena, Kek};
use session::{Kind, Session, ends};
use storage_key::StorageKey;
use wire::{Code, Params, Reader};

/// What a TPM has sealed: useless without it, and no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Digest in the name of the storage key: which TPM it is.
    pub parent: [u8; 32],
    /// The public area of the object, with its policy.
    pub public: Vec<u8>,
    /// Its private area, encrypted by the storage key.
    pub private: Vec<u8>,
    /// The PCRs of its policy, in order, with their values.
    pub pcrs: Vec<PcrValue>,
}

/// Largest area of a sealed object that is sent to a TPM: several times what one has.
pub const MAX_AREA: usize = 1024;

/// Attributes of the sealed object (part 2 section 8.3): fixedTPM, fixedParent, and noDA, as there is no password to guess.
/// Without userWithAuth the policy is the only way to it.
const OBJECT_ATTRIBUTES: u32 = 1 << 1 | 1 << 4 | 1 << 10;

/// A TPM that is reached over a line.
pub struct Tpm<'a> {
    line: Box<dyn Line + 'a>,
}

impl<'a> Tpm<'a> {
    /// The TPM at the other end of this line.
    #[must_use]
    pub fn over(line: Box<dyn Line + 'a>) -> Self {
        Self { line }
    }

    /// Seals a KEK to this TPM, and to the values that the PCRs have now.
    ///
    /// # Errors
    /// [`TpmFault`]; nothing is left in the TPM.
    pub fn seal(&mut self, arena: &Arena, kek: &Kek, pcrs: PcrSet) -> Result<Sealed, TpmFault> {
        let values = self.read_pcrs(pcrs)?;
        let parent = StorageKey::make(self)?;
        let made = self.create(arena, &parent, kek, &values);
        self.flush(parent.handle);
        let (private, public) = made?;
        Ok(Sealed { parent: parent.digest, public, private, pcrs: values })
    }

    /// Gives back the KEK that this TPM has sealed.
    ///
    /// # Errors
    /// [`TpmFault::OtherTpm`], [`TpmFault::PcrsChanged`], [`TpmFault::Damaged`], and what goes wrong on the way.
    pub fn unseal(&mut self, arena: &Arena, sealed: &Sealed) -> Result<Kek, TpmFault> {
        let parent = StorageKey::make(self)?;
        let opened = self.open_below(arena, &parent, sealed);
        self.flush(parent.handle);
        opened
    }

    /// Those of the PCRs that have other values now.
    fn changed_pcrs(&mut self, sealed: &[PcrValue]) -> Result<Vec<u8>, TpmFault> {
        let now = self.read_pcrs(PcrSet::of(sealed))?;
        let differs = |value: &&PcrValue| !now.contains(value);
        Ok(sealed.iter().filter(differs).map(|value| value.pcr).collect())
    }

    /// A session, and TPM2_Create in it.
    fn create(
        &mut self,
        arena: &Arena,
        parent: &StorageKey,
        kek: &Kek,
        values: &[PcrValue],
    ) -> Result<(Vec<u8>, Vec<u8>), TpmFault> {
        let mut session = Session::begin(self, arena, parent, Kind::Hmac)?;
        let made = self.create_in(arena, &mut session, parent, kek, values);
        if made.is_err() {
            self.flush(session.handle);
        }
        made
    }

    /// TPM2_Create (part 3 section 12.1): the private and the public area of a new object below the storage key. The KEK
    /// passes in a ciphered parameter.
    fn create_in(
        &mut self,
        arena: &Arena,
        session: &mut Session,
        parent: &StorageKey,
        kek: &Kek,
        values: &[PcrValue],
    ) -> Result<(Vec<u8>, Vec<u8>), TpmFault> {
        let ours = session.next_nonce()?;
        // TPMS_SENSITIVE_CREATE (part 2 section 11.1.15): no password, and 32 bytes of data.
        let sensitive =
            session.key.conceal(arena, (&ours, &session.of_tpm), &[0, 0, 0, 32], kek)?;
        let public = object_template(&pcrs::policy(values));
        let params = Params::default().sized(&sensitive).sized(&public).sized(&[]).u32(0).take();
        let handles = [(parent.handle, &parent.name()[..])];
        let answer = session.run(self, Code::CREATE, &handles, &params, ends::WITH_DECRYPT)?;
        let mut reader = Reader::new(&answer);
        let (private, public) = (reader.sized()?.to_vec(), reader.sized()?.to_vec());
        if private.len() > MAX_AREA || public.len() > MAX_AREA {
            return Err(TpmFault::Garbled("a sealed object that is too large"));
        }
        Ok((private, public))
    }

    fn open_below(
        &mut self,
        arena: &Arena,
        parent: &StorageKey,
        sealed: &Sealed,
    ) -> Result<Kek, TpmFault> {
        if parent.digest != sealed.parent {
            return Err(TpmFault::OtherTpm);
        }
        let changed = self.changed_pcrs(&sealed.pcrs)?;
        if !changed.is_empty() {
            return Err(TpmFault::PcrsChanged(changed));
        }
        let handle = self.load(parent, sealed)?;
        let opened = self.open_loaded(arena, parent, handle, sealed);
        self.flush(handle);
        opened
    }

    /// TPM2_Load (part 3 section 12.2). The storage key has no password.
    fn load(&mut self, parent: &StorageKey, sealed: &Sealed) -> Result<u32, TpmFault> {
        if sealed.private.len() > MAX_AREA || sealed.public.len() > MAX_AREA {
            return Err(TpmFault::Damaged);
        }
        let params = Params::default().sized(&sealed.private).sized(&sealed.public).take();
        let answer = self.run_plainly(Code::LOAD, parent.handle, &params);
        let answer = answer.map_err(TpmFault::of_damaged_area)?;
        let parts = wire::parts(Code::LOAD, &answer)?.after_password()?;
        parts.handle.ok_or(TpmFault::Garbled("an object without a handle"))
    }

    /// A policy session that fulfils the policy, and TPM2_Unseal (part 3 section 12.7) in it. The KEK comes in a ciphered
    /// parameter.
    fn open_loaded(
        &mut self,
        arena: &Arena,
        parent: &StorageKey,
        handle: u32,
        sealed: &Sealed,
    ) -> Result<Kek, TpmFault> {
        let mut session = Session::begin(self, arena, parent, Kind::Policy)?;
        let opened = self.unseal_in(arena, &mut session, handle, sealed);
        if opened.is_err() {
            self.flush(session.handle);
        }
        opened
    }

    fn unseal_in(
        &mut self,
        arena: &Arena,
        session: &mut Session,
        handle: u32,
        sealed: &Sealed,
    ) -> Result<Kek, TpmFault> {
        self.fulfil(session.handle, &sealed.pcrs)?;
        let ours = session.next_nonce()?;
        let name = wire::name_of(&sealed.public);
        let run = session.run(self, Code::UNSEAL, &[(handle, &name)], &[], ends::WITH_ENCRYPT);
        let answer = run.map_err(|fault| fault.of_policy(&sealed.pcrs))?;
        let mut reader = Reader::new(&answer);
        let data = reader.sized()?;
        Ok(session.key.reveal(arena, (&session.of_tpm, &ours), data)?)
    }

    /// TPM2_PolicyCommandCode and TPM2_PolicyPCR (part 3 sections 23.11 and 23.7), as `pcrs::policy` foresees them.
    fn fulfil(&mut self, session: u32, values: &[PcrValue]) -> Result<(), TpmFault> {
        let unseal = Params::default().u32(Code::UNSEAL.0).take();
        self.run(Code::POLICY_COMMAND_CODE, &[session], None, &unseal)?;
        if values.is_empty() {
            return Ok(());
        }
        let selection = PcrSet::of(values).selection();
        let params = Params::default().sized(&pcrs::digest(values)).bytes(&selection).take();
        let done = self.run(Code::POLICY_PCR, &[session], None, &params);
        done.map(drop).map_err(|fault| fault.of_policy(values))
    }

    /// TPM2_PCR_Read (part 3 section 22.4), as often as it takes: an answer has eight values at most.
    fn read_pcrs(&mut self, set: PcrSet) -> Result<Vec<PcrValue>, TpmFault> {
        let mut values = Vec::new();
        let mut left = set;
        while let Some(first) = left.first() {
            let answer = self.run(Code::PCR_READ, &[], None, &left.selection())?;
            let some = pcrs::read(&answer, left)?;
            if some.is_empty() {
                return Err(TpmFault::NoBank(first));
            }
            some.iter().for_each(|value| left.remove(value.pcr));
            values.extend(some);
        }
        values.sort_by_key(|value| value.pcr);
        Ok(values)
    }

    /// Takes a key or session out of the TPM (part 3 section 28.4). Where that fails, the resource manager of the kernel does
    /// it when the line is closed; without one, the next command that needs the room says so.
    fn flush(&mut self, handle: u32) {
        let handle = Params::default().u32(handle).take();
        let _ = self.run(Code::FLUSH_CONTEXT, &[], None, &handle);
    }

    /// A command whose one handle is authorised by an empty password.
    fn run_plainly(&mut self, code: Code, handle: u32, params: &[u8]) -> Result<Vec<u8>, TpmFault> {
        self.run(code, &[handle], Some(&wire::empty_password()), params)
    }

    /// Sends a command, and again when the TPM asks for that. Returns what follows the header.
    fn run(
        &mut self,
        code: Code,
        handles: &[u32],
        authorisation: Option<&[u8]>,
        params: &[u8],
    ) -> Result<Vec<u8>, TpmFault> {
        let command = wire::command(code, handles, authorisation, params)?;
        loop {
            let answer = self.line.exchange(&command)?;
            match wire::answer(&answer, authorisation.is_some())? {
                wire::Answer::Done(body) => return Ok(body.to_vec()),
                wire::Answer::Refused(refusal) if codes::asks_again(refusal) => {
                    self.line.pause()?;
                }
                wire::Answer::Refused(refusal) => return Err(codes::fault(code, refusal)),
            }
        }
    }
}

/// TPMT_PUBLIC (part 2 section 12.2.4) of an object that holds data, under this policy.
fn object_template(policy: &[u8]) -> Vec<u8> {
    let params = Params::default().u16(wire::ALG_KEYEDHASH).u16(wire::ALG_SHA256);
    params.u32(OBJECT_ATTRIBUTES).sized(policy).u16(wire::ALG_NULL).sized(&[]).take()
}

#[cfg(test)]
#[path = "tpm_tests.rs"]
mod tests;
