//! The first write of an empty file: size, then header and data together.
//!
//! Owns this short cut, which saves up to eight calls of the storage for each small file; what it leaves is what the
//! long way (`tail`) leaves, byte for byte. Where other hosts may see the file, its lock keeps them from the same
//! header, and it is looked whether they have been there. As on the long way the length changes first and no data
//! write moves the end, so a crash leaves an empty file, zeros of the size, or the file.

use super::error::HomeError;
use super::file::HomeFile;
use super::header::PAGE_LEN;
use super::layout::{SECTOR, SECTOR_LEN, in_memory, physical};
use super::scratch::{CHUNK, with_cipher_buffer};
use super::store::Store;
use super::tail::Tail;
use crypto::Xts;

impl<S: Store> HomeFile<S> {
    /// Writes `data` at `at` as the whole content of the file, if it is empty: says whether it was.
    ///
    /// # Errors
    /// After one the file is empty again. Part of the header may have reached the storage, so it is kept for the next
    /// try.
    pub(super) fn write_first(
        &self,
        tail: &mut Tail,
        at: u64,
        data: &[u8],
    ) -> Result<bool, HomeError> {
        let fits = at == 0 && data.len() <= CHUNK;
        if !fits || !tail.is_empty() || self.cipher.get().is_some() {
            return Ok(false);
        }
        if self.alone {
            return self.write_all(tail, data).map(|()| true);
        }
        self.under_lock(|| match self.length()? {
            0 => self.write_all(tail, data).map(|()| true),
            _ => Ok(false),
        })
    }

    fn write_all(&self, tail: &mut Tail, data: &[u8]) -> Result<(), HomeError> {
        let header = self.next_header(tail)?;
        let size = data.len() as u64;
        let written = self.set_len(physical(size)).and_then(|()| self.write_whole(&header, data));
        if let Err(error) = written {
            // The first fault is the one to report; if this fails too, the next write looks what there is.
            let emptied = self.store.set_len(0).is_ok();
            tail.keep_header(header, emptied);
            return Err(error);
        }
        self.cipher.get_or_init(|| header.1);
        tail.set(size, true);
        Ok(())
    }

    fn write_whole(
        &self,
        (page, cipher): &([u8; PAGE_LEN], Xts),
        data: &[u8],
    ) -> Result<(), HomeError> {
        let sectors = in_memory((data.len() as u64).next_multiple_of(SECTOR));
        with_cipher_buffer(PAGE_LEN + sectors, |out| {
            let (head, stored) = out.split_at_mut(PAGE_LEN);
            head.copy_from_slice(page);
            let whole = data.len() - data.len() % SECTOR_LEN;
            cipher.encrypt_into(0, &data[..whole], &mut stored[..whole])?;
            if whole < sectors {
                let (sector, used) = (&mut stored[whole..], data.len() - whole);
                sector[..used].copy_from_slice(&data[whole..]);
                sector[used..].fill(0);
                cipher.encrypt((whole / SECTOR_LEN) as u64, sector)?;
            }
            let written = self.store.write_at(0, out);
            self.changed();
            written.map_err(HomeError::io("write to a file"))
        })
    }
}
