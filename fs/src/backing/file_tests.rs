use super::*;

const KIB: u64 = 1024;

fn file(len: u64) -> FileBacking {
    let backing = FileBacking::from(tempfile::tempfile().unwrap());
    backing.set_len(len).unwrap();
    backing
}

fn content(backing: &FileBacking, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xEE; len];
    backing.read_at(offset, &mut buf).unwrap();
    buf
}

#[test]
fn reads_back_what_was_written() {
    let backing = file(64 * KIB);
    backing.write_at(1000, &[7; 5000]).unwrap();
    backing.flush().unwrap();
    assert_eq!(content(&backing, 999, 2), [0, 7]);
    assert_eq!(content(&backing, 5999, 2), [7, 0]);
    assert_eq!(backing.len().unwrap(), 64 * KIB);
    assert!(!backing.is_empty().unwrap());
}

#[test]
fn a_read_past_the_end_is_an_error() {
    let backing = file(1000);
    let error = backing.read_at(999, &mut [0; 2]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn punch_and_zero_range_read_as_zero_and_keep_the_length() {
    let backing = file(256 * KIB);
    backing.write_at(0, &vec![0xAA; 256 * 1024]).unwrap();
    // Not aligned to the blocks of any file system; the last range ends at the end of the file.
    for (offset, len) in [(4096 + 512, 20 * KIB), (200 * KIB, 56 * KIB)] {
        match backing.punch(offset, len) {
            Ok(()) => {
                let size = usize::try_from(len).unwrap();
                assert_eq!(content(&backing, offset, size), vec![0; size]);
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
    }
    backing.zero_range(100 * KIB + 512, 40 * KIB).unwrap();
    assert_eq!(content(&backing, 100 * KIB + 512, 40 * 1024), vec![0; 40 * 1024]);
    assert_eq!(content(&backing, 100 * KIB + 511, 1), [0xAA]);
    assert_eq!(content(&backing, 140 * KIB + 512, 1), [0xAA]);
    assert_eq!(content(&backing, 4096 + 511, 1), [0xAA]);
    assert_eq!(backing.len().unwrap(), 256 * KIB);
    backing.punch(0, 0).unwrap();
    backing.zero_range(0, 0).unwrap();
}

#[test]
fn zeros_are_written_where_there_is_no_call() {
    let backing = file(100 * KIB);
    backing.write_at(0, &vec![1; 100 * 1024]).unwrap();
    backing.can_zero.missing.store(true, Ordering::Relaxed);
    backing.can_punch.missing.store(true, Ordering::Relaxed);
    backing.zero_range(10, 90 * KIB).unwrap();
    let size = 90 * 1024;
    assert_eq!(content(&backing, 10, size), vec![0; size]);
    assert_eq!(content(&backing, 9, 1), [1]);
    assert_eq!(content(&backing, 10 + 90 * KIB, 1), [1]);
    assert_eq!(backing.punch(0, 512).unwrap_err().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn holes_never_cover_data() {
    let backing = file(1024 * KIB);
    backing.write_at(512 * KIB, &[1; 4096]).unwrap();
    let data = backing.next_data(0).unwrap().unwrap();
    assert!(data <= 512 * KIB);
    let hole = backing.next_hole(512 * KIB).unwrap();
    assert!((516 * KIB..=1024 * KIB).contains(&hole));
    assert_eq!(backing.next_hole(1024 * KIB).unwrap(), 1024 * KIB);
    assert_eq!(backing.next_data(1024 * KIB).unwrap(), None);
}

#[test]
fn errors_of_the_kernel_come_through() {
    let read_only = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(read_only.path(), [0; 512]).unwrap();
    let backing = FileBacking::from(File::open(read_only.path()).unwrap());
    assert_eq!(backing.write_at(0, &[1]).unwrap_err().raw_os_error(), Some(9), "EBADF");
    assert_eq!(backing.punch(0, 512).unwrap_err().raw_os_error(), Some(9), "EBADF");
}

#[test]
fn the_probe_for_holes_changes_nothing_and_tells_the_truth() {
    let backing = file(100 * KIB + 1);
    backing.write_at(0, &vec![3; 100 * 1024 + 1]).unwrap();
    let can = backing.can_punch();
    assert_eq!(backing.len().unwrap(), 100 * KIB + 1);
    assert_eq!(content(&backing, 0, 100 * 1024 + 1), vec![3; 100 * 1024 + 1]);
    assert_eq!(backing.punch(0, 4096).is_ok(), can);
    backing.can_punch.missing.store(true, Ordering::Relaxed);
    assert!(!backing.can_punch());
}

#[test]
fn zeros_that_would_be_written_one_by_one_are_refused_when_speed_is_asked_for() {
    let backing = file(64 * KIB);
    backing.write_at(0, &[4; 65536]).unwrap();
    backing.can_zero.missing.store(true, Ordering::Relaxed);
    let refused = backing.zero_range_fast(0, 4096).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    assert_eq!(content(&backing, 0, 4096), [4; 4096]);
}

#[test]
fn advice_changes_nothing() {
    let backing = file(64 * KIB);
    backing.write_at(0, &[5; 65536]).unwrap();
    for (offset, len) in [(0, 64 * KIB), (1, 1), (0, 0), (u64::MAX, u64::MAX)] {
        backing.prefetch(offset, len);
    }
    assert_eq!(content(&backing, 0, 65536), [5; 65536]);
    assert_eq!(backing.len().unwrap(), 64 * KIB);
}
