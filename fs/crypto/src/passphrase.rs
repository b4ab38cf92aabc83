//! Owns passphrases and their stretching with Argon2id (RFC 9106).
//!
//! It must not know where a passphrase comes from or what its key opens. Flow: read it into the
//! arena, cut one line end, stretch it into an arena slot with bounded parameters.

use std::io::{self, Read};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::arena::{Arena, Slot};
use crate::stack::wiping_stack;
use crate::{KeyError, PassphraseError, random_array};

/// Longest passphrase. Well above any typed or generated one; bounds what is read from a pipe.
pub const MAX_PASSPHRASE_BYTES: usize = 1024;

/// Bounds on use, so that an edited file cannot make a host work for hours or eat its memory.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// A passphrase, in the arena.
pub struct Passphrase {
    slot: Slot,
    len: usize,
}

/// How Argon2id stretches a passphrase. Public; stored beside what it opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argon2Params {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes (degree of parallelism; the result depends on it).
    pub lanes: u32,
    /// The salt, hex in serialised form.
    #[serde(with = "hex")]
    pub salt: [u8; 16],
}

impl Passphrase {
    /// Reads to the end of `source`; one trailing `\n` or `\r\n` is not part of the passphrase.
    ///
    /// # Errors
    /// [`PassphraseError::Empty`], [`PassphraseError::TooLong`], a read error, or no memory.
    pub fn read(arena: &Arena, mut source: impl Read) -> Result<Self, PassphraseError> {
        // Room for the longest passphrase, its line end, and one byte that shows it is longer.
        let mut slot = arena.slot(MAX_PASSPHRASE_BYTES + 3)?;
        let mut filled = 0;
        while let Some(room @ [_, ..]) = slot.bytes_mut().get_mut(filled..) {
            match source.read(room) {
                Ok(0) => break,
                Ok(got) => filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PassphraseError::Read(error)),
            }
        }
        let len = without_line_end(slot.bytes().get(..filled).unwrap_or_default());
        match len {
            0 => Err(PassphraseError::Empty),
            1..=MAX_PASSPHRASE_BYTES => Ok(Self { slot, len }),
            _ => Err(PassphraseError::TooLong { max: MAX_PASSPHRASE_BYTES }),
        }
    }

    /// Takes a typed text; the same rules as for [`Self::read`].
    ///
    /// # Errors
    /// As [`Self::read`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "taking the text makes sure it is wiped here"
    )]
    pub fn from_text(arena: &Arena, text: Zeroizing<String>) -> Result<Self, PassphraseError> {
        Self::read(arena, text.as_bytes())
    }

    /// Argon2id of the passphrase into `out`; working memory and stack are wiped. The working memory
    /// is too large for the arena: it is ordinary heap, which is locked when the process is
    /// ([`crate::lock_process_memory`]) and else could be swapped out while Argon2id runs.
    pub(crate) fn stretch(&self, params: &Argon2Params, out: &mut [u8]) -> Result<(), KeyError> {
        let argon2 = params.checked(out.len())?;
        let mut memory = params.working_memory(argon2.params().block_count())?;
        let text = self.slot.bytes().get(..self.len).unwrap_or_default();
        let result = wiping_stack(|| {
            argon2.hash_password_into_with_memory(text, &params.salt, out, &mut *memory)
        });
        memory.zeroize();
        result.map_err(|_| KeyError::Primitive("Argon2id"))
    }
}

impl Argon2Params {
    /// RFC 9106 section 4, second recommended choice (64 MiB, 3 passes, 4 lanes), a random salt.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn recommended() -> Result<Self, KeyError> {
        Ok(Self { memory_kib: 64 * 1024, passes: 3, lanes: 4, salt: random_array()? })
    }

    fn checked(&self, out_len: usize) -> Result<Argon2<'static>, KeyError> {
        within("lanes", self.lanes, 1, MAX_LANES)?;
        within("passes", self.passes, 1, MAX_PASSES)?;
        // RFC 9106 section 3.1: at least 8 KiB a lane.
        within("memory_kib", self.memory_kib, 8 * self.lanes, MAX_MEMORY_KIB)?;
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(out_len))
            .map_err(|_| KeyError::Primitive("Argon2id"))?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }

    fn working_memory(&self, blocks: usize) -> Result<Vec<Block>, KeyError> {
        let mut memory = Vec::new();
        memory
            .try_reserve_exact(blocks)
            .map_err(|_| KeyError::Argon2Memory { kib: self.memory_kib })?;
        memory.resize(blocks, Block::default());
        Ok(memory)
    }
}

fn within(name: &'static str, value: u32, min: u32, max: u32) -> Result<(), KeyError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(KeyError::Argon2Bounds { name, value, min, max })
}

/// The length of `text` without one line end.
fn without_line_end(text: &[u8]) -> usize {
    match text {
        [head @ .., b'\r', b'\n'] | [head @ .., b'\n'] => head.len(),
        _ => text.len(),
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(secret)")
    }
}

#[cfg(test)]
#[path = "passphrase_tests.rs"]
mod tests;
