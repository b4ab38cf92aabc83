//! Copies between home files.
//!
//! Owns one loop; must not know FUSE. Keys and tweaks differ between files and between offsets, so the bytes
//! are decrypted and encrypted again.

use super::error::HomeError;
use super::open::OpenFile;
use super::scratch::{CHUNK, with_copy_buffer};

/// Most bytes copied for one request, so that it does not hold a thread for long; the kernel asks again.
const MOST: u64 = 16 * 1024 * 1024;

/// Copies up to `len` bytes and returns how many; fewer at the end of the source or at the limit.
pub(crate) fn copy(
    from: (&OpenFile, u64),
    to: (&OpenFile, u64),
    len: u64,
) -> Result<u64, HomeError> {
    let target = to.0.for_writing()?;
    let wanted = len.min(MOST);
    let mut done = 0;
    while done < wanted {
        let piece = usize::try_from(wanted - done).unwrap_or(CHUNK).min(CHUNK);
        let copied = with_copy_buffer(piece, |buffer| {
            let got = from.0.file.read(from.1 + done, piece, |plain| {
                buffer[..plain.len()].copy_from_slice(plain);
                plain.len()
            })?;
            target.write(to.1 + done, &buffer[..got])?;
            Ok::<usize, HomeError>(got)
        });
        match copied {
            Ok(0) => break,
            Ok(got) => done += got as u64,
            // What was copied before the fault counts.
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
