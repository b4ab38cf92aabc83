//! Home files: header pages that differ from a good one are refused, and the arithmetic of lengths and spans holds
//! for every number.

#![no_main]

use cryptfs::home::header::{self, Header, MAC_INFO, NONCE_LEN, PAGE_LEN};
use cryptfs::home::layout::{self, HEADER, MAX_SIZE, SECTOR, Span, Stored, UNIT};
use crypto::{Arena, HomeKey, MacKey};
use fuzz::edit::Edit;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use uuid::Uuid;

const VM: Uuid = Uuid::from_u128(7);

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Page(&'a [u8]),
    Edited { nonce: [u8; NONCE_LEN], edits: Vec<Edit> },
    Length(u64),
    Range(u64, u64),
}

static MAC: LazyLock<MacKey> = LazyLock::new(|| {
    let arena = Arena::new(64 * 1024).expect("locked memory");
    let home = HomeKey::generate(&arena).expect("a key");
    MacKey::derive(&home, &arena, MAC_INFO).expect("a MAC key")
});

/// The bytes as a page, with zeros where there are too few.
fn page(bytes: &[u8]) -> [u8; PAGE_LEN] {
    let mut page = [0; PAGE_LEN];
    page.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    page
}

fn check_page(page: &[u8; PAGE_LEN]) {
    match header::decode(page, VM, &MAC) {
        Ok(Header::Blank) => assert!(page.iter().all(|byte| *byte == 0)),
        Ok(Header::Nonce(nonce)) => assert!(*page == header::encode(&nonce, VM, &MAC)),
        Err(_) => assert!(page.iter().any(|byte| *byte != 0)),
    }
}

fn check_edited(nonce: &[u8; NONCE_LEN], edits: &[Edit]) {
    let good = header::encode(nonce, VM, &MAC);
    let mut bytes = good.to_vec();
    edits.iter().for_each(|edit| edit.apply(&mut bytes));
    let changed = page(&bytes);
    check_page(&changed);
    let taken = header::decode(&changed, VM, &MAC);
    assert_eq!(taken == Ok(Header::Nonce(*nonce)), changed == good);
}

fn check_length(number: u64) {
    let size = number % (MAX_SIZE + 1);
    assert_eq!(layout::decode(layout::physical(size)), Stored::Sized(size));
    let (start, used) = layout::tail(size);
    assert!(start.is_multiple_of(UNIT) && used < UNIT && start + used == size);
    // As the length of a stored file, any number means something.
    match layout::decode(number) {
        Stored::Virgin => assert!(number < HEADER),
        Stored::Broken => assert!((HEADER + 1..HEADER + UNIT).contains(&number)),
        Stored::Sized(size) if size <= MAX_SIZE => assert_eq!(layout::physical(size), number),
        Stored::Sized(_) => {}
    }
}

fn check_range(a: u64, b: u64) {
    let (a, b) = (a % (MAX_SIZE + 1), b % (MAX_SIZE + 1));
    let span = Span::new(a.min(b), a.max(b));
    assert!(span.from <= span.at && span.at <= span.end && span.end <= span.to);
    assert!(span.at - span.from < SECTOR && span.to - span.end < SECTOR);
    assert_eq!(span.sector() * SECTOR, span.from);
    let body = span.body();
    if !body.is_empty() {
        assert!(span.at <= body.start && body.end <= span.end);
        assert!(body.start.is_multiple_of(SECTOR) && body.end.is_multiple_of(SECTOR));
        assert!(body.start - span.from <= SECTOR && span.to - body.end <= SECTOR);
    }
    if span.at < span.end {
        assert_eq!(span.ragged_tail(), span.end != span.to);
        let whole = span.at == span.from && span.end == span.to;
        assert_eq!(whole, !span.ragged_head() && !span.ragged_tail());
    }
}

fuzz_target!(|input: Input| {
    match input {
        Input::Page(bytes) => check_page(&page(bytes)),
        Input::Edited { nonce, edits } => check_edited(&nonce, &edits),
        Input::Length(number) => check_length(number),
        Input::Range(a, b) => check_range(a, b),
    }
});
