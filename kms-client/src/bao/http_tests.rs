//! Tests of the framing of answers: every cut of every good answer waits for more, and what is no answer is refused at once.

use super::*;

/// The answer in `text`, given byte by byte and as a whole: both must see the same.
fn parsed(text: &[u8]) -> Result<(u16, bool, Vec<u8>), HttpFault> {
    let mut slowly = Frame::default();
    for length in 1..text.len() {
        assert!(!slowly.advance(&text[..length])?, "whole after {length} of {} bytes", text.len());
    }
    let mut frame = Frame::default();
    assert!(frame.advance(text)? && slowly.advance(text)?);
    let (mut bytes, mut same) = (text.to_vec(), text.to_vec());
    let answer = frame.finish(&mut bytes).unwrap();
    assert_eq!(slowly.finish(&mut same).unwrap(), answer);
    Ok((answer.status, answer.open, bytes[answer.body].to_vec()))
}

fn good(text: &str) -> (u16, bool, String) {
    let (status, open, body) = parsed(text.as_bytes()).unwrap();
    (status, open, String::from_utf8(body).unwrap())
}

#[test]
fn a_length_or_chunks_end_an_answer() {
    let with = |head: &str, body: &str| good(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}"));
    assert_eq!(with("Content-Length: 2", "{}"), (200, true, "{}".into()));
    assert_eq!(with("content-length:  2 ", "{}"), (200, true, "{}".into()));
    assert_eq!(with("Content-Length: 2\r\nContent-Length: 2", "{}").2, "{}");
    assert_eq!(with("Content-Length: 0", ""), (200, true, String::new()));
    assert_eq!(with("Content-Length: 2\r\nConnection: Close", "{}"), (200, false, "{}".into()));
    let chunks = "3\r\n{\"a\r\n0002;x=y\r\n\":\r\n2\r\n1}\r\n0\r\n\r\n";
    assert_eq!(with("Transfer-Encoding: Chunked", chunks).2, "{\"a\":1}");
    assert_eq!(with("Transfer-Encoding: chunked", "0\r\n\r\n").2, "");
    assert_eq!(good("HTTP/1.1 204 No Content\r\nA: b\r\n\r\n"), (204, true, String::new()));
    assert_eq!(good("HTTP/1.0 503 x\r\nContent-Length: 1\r\n\r\n1"), (503, false, "1".into()));
}

#[test]
fn what_is_no_answer_is_refused() {
    let refused = |text: &str| match parsed(text.as_bytes()).unwrap_err() {
        HttpFault::Malformed { what, .. } => what,
        HttpFault::TooLong { .. } => "too long",
    };
    for (text, what) in [
        ("HTTP/2 200 OK\r\n\r\n", "it does not begin as an answer in HTTP/1 does"),
        ("GET / HTTP/1.1\r\n\r\n", "it does not begin as an answer in HTTP/1 does"),
        ("HTTP/1.1 099 x\r\n\r\n", "its status is none of a final answer"),
        ("HTTP/1.1 101 x\r\n\r\n", "its status is none of a final answer"),
        ("HTTP/1.1 200 x\r\n\r\n", "it has no length"),
        ("HTTP/1.1 204 x\r\nContent-Length: 1\r\n\r\nx", "it has a body that its status forbids"),
        ("HTTP/1.1 200 x\r\nContent-Length: +1\r\n\r\nx", "its length is no number"),
        ("HTTP/1.1 200 x\r\nContent-Length: \r\n\r\nx", "its length is no number"),
        (
            "HTTP/1.1 200 x\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "its length is no number",
        ),
        ("HTTP/1.1 200 x\r\nContent-Length: 18446744073709551615\r\n\r\n", "too long"),
        ("HTTP/1.1 200 x\r\nContent-Length: 65536\r\n\r\n", "too long"),
        (
            "HTTP/1.1 200 x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "its transfer encoding is not known",
        ),
        ("HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "too long"),
        (
            "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
            "the length of a part is none",
        ),
        (
            "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n",
            "a part has another length than it says",
        ),
    ] {
        assert_eq!(refused(text), what, "{text}");
    }
    let long = |middle: &str, count: usize| {
        let text = format!("HTTP/1.1 200 x\r\n{}", middle.repeat(count));
        Frame::default().advance(text.as_bytes()).unwrap_err()
    };
    assert_eq!(long("a", MAX_HEAD), HttpFault::TooLong { limit: MAX_HEAD });
    assert!(matches!(long("a: b\r\n", MAX_HEADERS + 1), HttpFault::Malformed { .. }));
    let chunked =
        format!("Transfer-Encoding: chunked\r\n\r\n{}", "1\r\nx\r\n".repeat(MAX_CHUNKS + 1));
    assert!(matches!(
        long(&chunked, 1),
        HttpFault::Malformed { what: "it has too many parts", .. }
    ));
    for end in ["", "\r\n"] {
        let line =
            format!("Transfer-Encoding: chunked\r\n\r\n1;{}{end}", "x".repeat(MAX_CHUNK_LINE));
        assert!(matches!(long(&line, 1), HttpFault::Malformed { .. }));
    }
}

#[test]
fn nothing_is_given_before_the_end() {
    assert_eq!(Frame::default().finish(&mut []), None);
    let mut frame = Frame::default();
    let text = b"HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\n{}x";
    let fault = malformed("it goes on after its end", text.len() - 1);
    assert_eq!(frame.advance(text).unwrap_err(), fault);
}
