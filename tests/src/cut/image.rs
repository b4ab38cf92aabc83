//! The content of a disk, kept by pages, so that copies of it share what they have in common.
//!
//! Owns nothing but bytes; pages that are not kept are zero.

use rustix::fs::SeekFrom;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Grain of what is kept, in bytes.
pub const PAGE: usize = 4096;

/// A disk of a fixed size, a multiple of [`PAGE`].
#[derive(Debug, Clone)]
pub struct Image {
    size: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Image {
    /// The content of a file; its holes cost nothing.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let file = File::open(path).expect("a disk image");
        let size = file.metadata().expect("its size").len();
        let mut image = Self { size, pages: BTreeMap::new() };
        let mut at = 0;
        while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
            at = rustix::fs::seek(&file, SeekFrom::Hole(data)).expect("the end of data");
            rustix::fs::seek(&file, SeekFrom::Start(data)).expect("its start");
            let mut bytes = Vec::new();
            (&file).take(at - data).read_to_end(&mut bytes).expect("the data of the image");
            image.write(data, &bytes);
        }
        image
    }

    /// Makes a file hold this image, whatever it held.
    ///
    /// # Errors
    /// Those of the file.
    pub fn save(&self, file: &File) -> io::Result<()> {
        file.set_len(0)?;
        file.set_len(self.size)?;
        self.pages.iter().try_for_each(|(page, bytes)| {
            if **bytes == [0; PAGE] {
                return Ok(());
            }
            file.write_all_at(&bytes[..], page * PAGE as u64)
        })
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What a read of `len` bytes gives.
    #[must_use]
    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (page, inside, part) in parts(at, len) {
            if let Some(there) = self.pages.get(&page) {
                let count = part.len();
                bytes[part].copy_from_slice(&there[inside..inside + count]);
            }
        }
        bytes
    }

    /// Writes bytes.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        for (page, inside, part) in parts(at, bytes.len()) {
            if part.len() == PAGE {
                let mut whole = [0; PAGE];
                whole.copy_from_slice(&bytes[part]);
                self.pages.insert(page, Arc::new(whole));
                continue;
            }
            let kept = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(kept)[inside..inside + part.len()].copy_from_slice(&bytes[part]);
        }
    }
}

/// The pages that a range touches: number, first byte inside, and which part of the range lies there.
fn parts(at: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let place = at + done as u64;
        let inside = usize::try_from(place % PAGE as u64).unwrap_or(0);
        let count = (PAGE - inside).min(len - done);
        let part = done..done + count;
        done += count;
        Some((place / PAGE as u64, inside, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_copies_differ() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        File::create(&path).and_then(|file| file.set_len(1 << 20)).expect("a file");
        let mut image = Image::load(&path);
        image.write(4000, &[7; 9000]);
        let before = image.clone();
        image.write(4096, &[8; 512]);
        assert_eq!(before.read(3999, 3), [0, 7, 7]);
        assert_eq!(image.read(4607, 2), [8, 7]);
        assert_eq!(before.read(4607, 2), [7, 7]);
        let file = File::options().read(true).write(true).open(&path).expect("the file");
        image.save(&file).expect("a save");
        let again = Image::load(&path);
        assert_eq!((again.size(), again.read(0, 20_000)), (1 << 20, image.read(0, 20_000)));
        before.save(&file).expect("a save");
        assert_eq!(Image::load(&path).read(0, 20_000), before.read(0, 20_000));
    }
}
