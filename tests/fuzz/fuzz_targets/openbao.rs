//! Answers of OpenBao: any bytes are refused, wait for more, or are an answer whose end does not depend on how they came; and what is in
//! it is a token, a wrap, a key or an error. The walk over JSON takes nothing that another parser refuses.

#![no_main]

use crypto::Arena;
use kms_client::bao::answer::{Answer, Asked};
use kms_client::bao::http::{Frame, MAX_ANSWER};
use kms_client::bao::json::Object;
use kms_client::bao::wrapped::Shape;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static ARENA: LazyLock<Arena> = LazyLock::new(|| Arena::new(64 * 1024).expect("locked memory"));

/// Reads everything that is ever read out of an answer.
fn read(status: u16, bytes: &[u8], body: std::ops::Range<usize>) {
    let whole = || Answer::new(status, bytes.to_vec().into(), body.clone());
    let asked = Asked { mount: "transit", name: "k", needed: "update on transit/decrypt/k" };
    if let Err(fault) = whole().checked(&asked) {
        assert!(fault.to_string().len() < 2048);
    }
    let answer = whole();
    assert!(answer.message().len() < 400);
    if let Ok(login) = answer.login() {
        assert!(login.token.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    let _ = answer.key("k");
    for length in [32, 64] {
        if let Ok((wrapped, shape)) = answer.ciphertext(length) {
            assert_eq!(Shape::of_wrapped(&wrapped), Some(shape));
            assert_eq!(shape.key_len, length);
        }
        if let Ok(key) = answer.plaintext(length, &ARENA) {
            assert_eq!(key.key_len(), length);
        }
    }
    assert_eq!(ARENA.usage().used, 0, "a key that nobody took is gone");
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(object) = Object::of(bytes) {
        assert!(serde_json::from_slice::<serde_json::Value>(bytes).is_ok() || odd(bytes));
        for name in ["data", "auth", "errors", "x"] {
            if let Err(fault) = object.field(name) {
                assert!(fault.at < bytes.len());
            }
        }
    }
    read(200, bytes, 0..bytes.len());
    read(400, bytes, 0..bytes.len());
    if bytes.len() > MAX_ANSWER {
        return;
    }
    // As a whole, and in two parts: the first byte of the text says where it is cut.
    let mut whole = Frame::default();
    let ended = whole.advance(bytes);
    let cut = bytes.first().map_or(0, |first| usize::from(*first) % (bytes.len() + 1));
    let mut parts = Frame::default();
    match parts.advance(&bytes[..cut]) {
        Ok(false) => assert_eq!(parts.advance(bytes), ended),
        // It ends there, or cannot be an answer: with more bytes even less.
        Ok(true) => assert!(cut == bytes.len() || ended.is_err()),
        Err(_) => assert!(ended.is_err()),
    }
    if ended == Ok(true) {
        let mut room = bytes.to_vec();
        let answer = whole.finish(&mut room).expect("an answer that has ended");
        assert!(answer.body.end <= room.len() && (200..=599).contains(&answer.status));
        read(answer.status, &room, answer.body);
    }
});

/// What the other parser refuses beyond the rules: numbers out of range, escapes of half a character, and text that is not UTF-8.
fn odd(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err()
        || bytes.windows(2).any(|two| two == b"\\u")
        || bytes.windows(2).any(|two| two[0].is_ascii_digit() && matches!(two[1], b'e' | b'E'))
        || bytes.iter().filter(|byte| byte.is_ascii_digit()).count() > 300
}
