//! KMIP messages: any bytes are refused, or are what their own items encode to; and whoever walks a message that was taken
//! sees every byte of it once. The same bytes as the answer to a request give a result and a key, or an error.

#![no_main]

use crypto::Arena;
use kms_client::kmip::key_block;
use kms_client::kmip::response::{Asked, read};
use kms_client::kmip::ttlv::{
    HEADER, Item, MAX_DEPTH, MAX_ITEMS, Tag, Value, Writer, frame_length,
};
use kms_client::kmip::values::{Operation, Version};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static ARENA: LazyLock<Arena> = LazyLock::new(|| Arena::new(64 * 1024).expect("locked memory"));

/// Takes the bytes for the answer to one Get, and to two calls with ids.
fn answer(bytes: &[u8]) {
    let get = Asked { operation: Operation::Get, id: None };
    if let Ok(answers) = read(bytes, Version::V1_4, &[get]) {
        assert_eq!(answers.len(), 1);
        if let Some(Ok(Some(payload))) = answers.first() {
            let _ = key_block::read(payload, "16c7a2e4", &ARENA);
        }
    }
    let two = [b"1", b"2"].map(|id| Asked { operation: Operation::AddAttribute, id: Some(id) });
    if let Ok(answers) = read(bytes, Version::V1_1, &two) {
        assert_eq!(answers.len(), 2);
    }
    assert_eq!(ARENA.usage().used, 0, "a key that nobody took is gone");
}

/// Items of a tree, and bytes that they stand for.
fn walk(item: &Item<'_>, depth: usize) -> (usize, usize) {
    assert!(depth <= MAX_DEPTH);
    let mut sum = (1, HEADER);
    for child in item.children() {
        let (items, bytes) = walk(&child, depth + 1);
        sum = (sum.0 + items, sum.1 + bytes);
    }
    sum.1 += match item.value() {
        Value::Structure(()) => 0,
        Value::TextString(text) => text.len().next_multiple_of(8),
        Value::ByteString(bytes) | Value::BigInteger(bytes) => bytes.len().next_multiple_of(8),
        _ => 8,
    };
    sum
}

fuzz_target!(|bytes: &[u8]| {
    answer(bytes);
    let framed = bytes
        .first_chunk::<HEADER>()
        .and_then(|header| frame_length(header, Tag::RESPONSE_MESSAGE).ok());
    match Item::parse(bytes) {
        Ok(root) => {
            let (items, length) = walk(&root, 0);
            assert!(items <= MAX_ITEMS && length == bytes.len());
            let mut again = Writer::default();
            again.copy(&root);
            assert!(again.finish().expect("as large as before")[..] == *bytes);
            if root.tag() == Tag::RESPONSE_MESSAGE && matches!(root.value(), Value::Structure(())) {
                assert_eq!(framed, Some(bytes.len()), "a good message has a good header");
            }
            for tag in [Tag::BATCH_ITEM, Tag::UNIQUE_IDENTIFIER] {
                let _ = root.required(tag).and_then(|item| item.text());
            }
        }
        Err(fault) => assert!(fault.offset <= bytes.len()),
    }
});
