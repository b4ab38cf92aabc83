//! What can go wrong with a TPM, named by what a person has to do about it.

use super::codes;
use super::pcrs::PcrValue;
use crypto::KeyError;
use std::io;

/// Why a TPM did not seal or unseal. The caller says which TPM it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TpmFault {
    /// Nothing is there.
    #[error(
        "there is no TPM ({0}): switch it on in the settings of the firmware, or name the right one as `tpm` in [provider.native]"
    )]
    Missing(io::Error),
    /// We may not use it.
    #[error(
        "the TPM may not be used ({0}): the unit of hostd needs DeviceAllow=/dev/tpmrm0 rw, and hostd has to run as root"
    )]
    Denied(io::Error),
    /// The kernel failed to carry a command or an answer.
    #[error("the TPM cannot be talked to: {0}")]
    Line(io::Error),
    /// It did not answer in time.
    #[error(
        "the TPM did not answer within {0} s: end the program that keeps it busy, or restart what provides it"
    )]
    Silent(u64),
    /// What it answers is not of the standard.
    #[error("the TPM gives an answer that makes no sense: {0}")]
    Garbled(&'static str),
    /// An answer is not from the TPM whose storage key it shows.
    #[error(
        "an answer was not given by the TPM itself: something between it and the processor changes what passes"
    )]
    NotAuthentic,
    /// Too many wrong passwords.
    #[error(
        "the TPM is in lockout after too many failed authorisations by some program: wait until that is over, or end it with `tpm2_dictionarylockout --clear-lockout`"
    )]
    Lockout,
    /// The owner hierarchy is protected.
    #[error(
        "the owner hierarchy of the TPM has a password: take it away with `tpm2_changeauth -c owner`, or do without the TPM"
    )]
    OwnerPassword,
    /// TPM2_Startup was not done.
    #[error("the TPM was not started by the firmware: restart the host, or what provides the TPM")]
    NotStarted,
    /// It failed its self test.
    #[error("the TPM is in failure mode: restart the host; if that does not help, it is broken")]
    Broken,
    /// No room for a key or session.
    #[error(
        "the TPM has no room for another key or session: use /dev/tpmrm0, or flush what other programs left (`tpm2_flushcontext -t`)"
    )]
    Full,
    /// Another refusal.
    #[error("the TPM refuses {command} with the code {code:#05x}")]
    Refused {
        /// Name of the command.
        command: &'static str,
        /// Response code (part 2 section 6.6).
        code: u32,
    },
    /// PCRs without SHA-256.
    #[error(
        "the TPM has no SHA-256 value of PCR {0}: switch that bank on in the settings of the firmware, or choose other PCRs"
    )]
    NoBank(u8),
    /// The host was started otherwise than when the key was sealed.
    #[error("{} not what it was when the key was sealed, so the host was started by other firmware, settings or programs than then", are(.0))]
    PcrsChanged(Vec<u8>),
    /// The storage key is another one.
    #[error("the key was sealed for another TPM, or this one was cleared since")]
    OtherTpm,
    /// The sealed object is not what a TPM made.
    #[error("the TPM does not take the sealed object back, it is damaged or was edited")]
    Damaged,
    /// Key memory is short, or a primitive failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl TpmFault {
    /// A refusal of an area that was stored.
    pub(super) fn of_damaged_area(self) -> Self {
        match self {
            Self::Refused { code, .. } if codes::is_format_one(code) => Self::Damaged,
            other => other,
        }
    }

    /// A refusal of a policy; the PCRs were compared before.
    pub(super) fn of_policy(self, values: &[PcrValue]) -> Self {
        let Self::Refused { code, .. } = self else { return self };
        match codes::error(code) {
            // Extended since they were compared.
            codes::PCR_CHANGED | codes::VALUE if !values.is_empty() => {
                Self::PcrsChanged(values.iter().map(|value| value.pcr).collect())
            }
            codes::POLICY_FAIL => Self::Damaged,
            _ => self,
        }
    }
}

/// "PCR 7 is", "PCRs 4, 7 are".
fn are(pcrs: &[u8]) -> String {
    let list: Vec<String> = pcrs.iter().map(u8::to_string).collect();
    let (name, verb) = if pcrs.len() == 1 { ("PCR", "is") } else { ("PCRs", "are") };
    format!("{name} {} {verb}", list.join(", "))
}
