//! Response codes of a TPM, and what they mean to a person.
//!
//! Owns the numbers (TPM 2.0 Library, part 2 section 6.6). It must not know what was to be achieved by a command.

use super::fault::TpmFault;
use super::wire::Code;

/// Codes with this bit name a handle, parameter or session in other bits ("format one").
const FORMAT_ONE: u32 = 1 << 7;

/// Format one without what it names.
const FORMAT_ONE_ERROR: u32 = FORMAT_ONE | 0x3f;

const INITIALIZE: u32 = 0x100;
const FAILURE: u32 = 0x101;
pub(super) const PCR_CHANGED: u32 = 0x128;
const OBJECT_MEMORY: u32 = 0x902;
const SESSION_MEMORY: u32 = 0x903;
const MEMORY: u32 = 0x904;
const OBJECT_HANDLES: u32 = 0x906;
const SESSION_HANDLES: u32 = 0x905;
const YIELDED: u32 = 0x908;
const TESTING: u32 = 0x90a;
const LOCKOUT: u32 = 0x921;
const RETRY: u32 = 0x922;

pub(super) const VALUE: u32 = 0x084;
const AUTH_FAIL: u32 = 0x08e;
pub(super) const POLICY_FAIL: u32 = 0x09d;
const BAD_AUTH: u32 = 0x0a2;

/// A code without what it names.
pub(super) fn error(code: u32) -> u32 {
    if is_format_one(code) { code & FORMAT_ONE_ERROR } else { code }
}

/// Whether the code is about something in the command itself.
pub(super) fn is_format_one(code: u32) -> bool {
    code & FORMAT_ONE != 0
}

/// Whether the same command is to be sent again.
pub(super) fn asks_again(code: u32) -> bool {
    matches!(code, RETRY | YIELDED | TESTING)
}

/// The fault that a refusal is.
pub(super) fn fault(command: Code, code: u32) -> TpmFault {
    match error(code) {
        LOCKOUT => TpmFault::Lockout,
        INITIALIZE => TpmFault::NotStarted,
        FAILURE => TpmFault::Broken,
        OBJECT_MEMORY | SESSION_MEMORY | MEMORY | OBJECT_HANDLES | SESSION_HANDLES => {
            TpmFault::Full
        }
        AUTH_FAIL | BAD_AUTH if command == Code::CREATE_PRIMARY => TpmFault::OwnerPassword,
        _ => TpmFault::Refused { command: command.name(), code },
    }
}
