//! Tests of reading answers: what a server says in words is bounded and repeats no key.

use super::*;

fn answer(status: u16, body: &str) -> Answer {
    Answer::new(status, Zeroizing::new(body.as_bytes().to_vec()), 0..body.len())
}

#[test]
fn words_of_a_server_are_shown_in_one_bounded_line() {
    let said = |errors: &str| answer(400, &format!("{{\"errors\":{errors}}}")).message();
    assert_eq!(said(r#"["one\r\n  two","three"]"#), "one two; three");
    assert_eq!(said(r#"["\u001b[31mred"]"#), "[31mred");
    for other in ["[]", "null", "\"text\"", "[1]", "{}"] {
        assert_eq!(said(other), "");
    }
    assert_eq!(answer(400, "no json").message(), "");
    let key = "QUJD".repeat(11);
    assert_eq!(said(&format!("[\"bad:{key}= end\"]")), "(...) end");
    let long = said(&format!("[{:?}]", "word ".repeat(1000)));
    assert!(long.len() < MAX_MESSAGE + 8 && long.ends_with(" ..."));
}

#[test]
fn an_answer_prints_nothing_of_its_body() {
    let text = format!("{:?}", answer(200, "{\"data\":{\"plaintext\":\"QUJD\"}}"));
    assert_eq!(text, "Answer(200)");
}

#[test]
fn a_lease_has_an_end_even_if_the_server_knows_none() {
    let lease = |seconds: u64| {
        let body = format!("{{\"auth\":{{\"client_token\":\"t\",\"lease_duration\":{seconds}}}}}");
        answer(200, &body).login().unwrap().lease
    };
    assert_eq!(lease(60), Duration::from_secs(60));
    assert_eq!(lease(0), MAX_LEASE);
    assert_eq!(lease(u64::MAX), MAX_LEASE);
}
