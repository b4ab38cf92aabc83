//! What a crash may show: nothing but bytes that were in the file since the last sync.

use super::disk::Disk;
use crate::backing::Backing;
use crate::home::error::HomeError;
use crate::home::file::HomeFile;
use crate::home::keys::HomeKeys;
use crate::home::layout::{HEADER, UNIT, in_memory, physical};
use std::sync::Arc;

/// Contents that the file had, oldest first: the last synced one, then one after every change, the last one
/// perhaps only in part.
pub(super) struct Window<'a> {
    pub(super) contents: &'a [Vec<u8>],
}

impl Window<'_> {
    /// Sizes that may show. A shrink to another unit passes through the size rounded up to the unit.
    fn size_is_sane(&self, size: usize) -> bool {
        let unit = in_memory(UNIT);
        self.contents.iter().any(|content| {
            content.len() == size
                || (content.len() < size && content.len().next_multiple_of(unit) == size)
        })
    }

    /// The first byte that was never there, if any. A byte reads as zero where the file once ended before
    /// it: the growth persisted, the data did not.
    fn garbage(&self, visible: &[u8]) -> Option<usize> {
        let step = 512;
        for (index, chunk) in visible.chunks(step).enumerate() {
            let at = index * step;
            let seen = |content: &Vec<u8>| content.get(at..at + chunk.len()) == Some(chunk);
            if self.contents.iter().rev().any(seen) {
                continue;
            }
            let wrong = chunk.iter().enumerate().find(|&(offset, &byte)| {
                !self.contents.iter().any(|content| match content.get(at + offset) {
                    Some(&there) => there == byte,
                    None => byte == 0,
                })
            });
            if let Some((offset, _)) = wrong {
                return Some(at + offset);
            }
        }
        None
    }
}

/// Opens an image as after a restart and returns what is visible; `None` when the file never had a durable
/// header and is refused for want of one.
pub(super) fn judge(
    image: &[u8],
    keys: &Arc<HomeKeys>,
    window: &Window<'_>,
    header_was_synced: bool,
    grow_by: u64,
) -> Option<Vec<u8>> {
    let disk = Disk::of(image.to_vec());
    let file = match HomeFile::open(
        Arc::clone(&disk),
        disk.len().unwrap(),
        Arc::clone(keys),
        "model".into(),
    ) {
        Ok(file) => file,
        Err(HomeError::Damaged { .. }) if !header_was_synced => return None,
        Err(error) => panic!("the file does not open after a crash: {error}"),
    };
    let visible = content(&file);
    assert!(window.size_is_sane(visible.len()), "size {} was never there", visible.len());
    if let Some(at) = window.garbage(&visible) {
        panic!("byte {at} of {} shows what was never written", visible.len());
    }
    grown_reads_zero(&file, &visible, grow_by);
    Some(visible)
}

/// Growth after the crash must not show what lies in pad or carrier.
fn grown_reads_zero(file: &HomeFile<Arc<Disk>>, before: &[u8], by: u64) {
    let size = before.len() as u64 + by;
    file.truncate(size).unwrap();
    let after = content(file);
    assert_eq!(after.len() as u64, size);
    assert!(after[..before.len()] == *before, "growth changed old bytes");
    let stale = after[before.len()..].iter().position(|&byte| byte != 0);
    assert_eq!(stale, None, "growth from {} to {size} shows old bytes", before.len());
}

pub(super) fn content(file: &HomeFile<Arc<Disk>>) -> Vec<u8> {
    let size = in_memory(file.size());
    let bytes = file.read(0, size, <[u8]>::to_vec).unwrap();
    assert_eq!(bytes.len(), size);
    bytes
}

/// The bytes whose only content is their number.
fn carrier(image: &[u8]) -> &[u8] {
    let units = (image.len().saturating_sub(in_memory(HEADER))) / in_memory(UNIT);
    image.get(in_memory(HEADER) + units * in_memory(UNIT)..).unwrap_or_default()
}

/// The carrier is zero, or as the last crash left it (`start`) because the size never changed since.
pub(super) fn carrier_is_sound(image: &[u8], start: &[u8]) -> bool {
    let untouched = image.len() == start.len() && carrier(image) == carrier(start);
    untouched || carrier(image).iter().all(|&byte| byte == 0)
}

/// What holds between calls without a crash.
pub(super) fn live_is_sound(
    disk: &Disk,
    file: &HomeFile<Arc<Disk>>,
    expected: &[u8],
    start: &[u8],
) {
    assert!(content(file) == expected, "the file does not hold what was written");
    let image = disk.live();
    if file.size() > 0 {
        assert_eq!(image.len() as u64, physical(expected.len() as u64));
    }
    assert!(carrier_is_sound(&image, start), "the carrier is not zero");
}
