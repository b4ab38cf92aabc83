//! Answers that fit, and every way not to.

use super::super::ttlv::Writer;
use super::*;

/// An item of a response in the making.
#[derive(Clone, Copy)]
struct Said<'a> {
    operation: Option<u32>,
    id: Option<&'a [u8]>,
    status: u32,
}

const ID: &[u8] = b"CFFR\x01\0\0\0";
const OTHER: &[u8] = b"CFFR\x02\0\0\0";
const GET: Said = Said { operation: Some(0x0A), id: Some(ID), status: 0 };

fn message(minor: i32, count: i32, items: &[Said<'_>]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.structure(Tag::RESPONSE_MESSAGE, |w| {
        w.structure(Tag::RESPONSE_HEADER, |w| {
            w.structure(Tag::PROTOCOL_VERSION, |w| {
                w.integer(Tag::PROTOCOL_VERSION_MAJOR, 1);
                w.integer(Tag::PROTOCOL_VERSION_MINOR, minor);
            });
            // A Server Correlation Value, which some servers add where their version has none.
            w.text(Tag(0x42_0106), "7");
            w.integer(Tag::BATCH_COUNT, count);
        });
        for said in items {
            w.structure(Tag::BATCH_ITEM, |w| {
                if let Some(operation) = said.operation {
                    w.enumeration(Tag::OPERATION, operation);
                }
                if let Some(id) = said.id {
                    w.bytes(Tag::UNIQUE_BATCH_ITEM_ID, id);
                }
                w.enumeration(Tag::RESULT_STATUS, said.status);
                if said.status == 1 {
                    w.enumeration(Tag::RESULT_REASON, 0x0C);
                    w.text(Tag::RESULT_MESSAGE, "no\x1b[31m");
                } else {
                    w.structure(Tag::RESPONSE_PAYLOAD, |w| {
                        let id = said.id.unwrap_or_default();
                        w.text(Tag::UNIQUE_IDENTIFIER, &hex::encode(id));
                    });
                }
            });
        }
    });
    writer.finish().unwrap().to_vec()
}

fn asked(id: &[u8]) -> Asked<'_> {
    Asked { operation: Operation::Get, id: Some(id) }
}

/// What the answers say: their id, or the refusal.
fn said(bytes: &[u8], calls: &[Asked<'_>]) -> Result<Vec<Result<String, String>>, String> {
    let answers = read(bytes, Version::V1_1, calls).map_err(|e| e.to_string())?;
    let one = |answer: Answer<'_>| match answer {
        Ok(payload) => {
            Ok(payload.unwrap().required(Tag::UNIQUE_IDENTIFIER).unwrap().text().unwrap().into())
        }
        Err(refusal) => Err(refusal.to_string()),
    };
    Ok(answers.into_iter().map(one).collect())
}

#[test]
fn an_answer_fits_by_id_operation_and_version() {
    let good = message(1, 1, &[GET]);
    assert_eq!(said(&good, &[asked(ID)]), Ok(vec![Ok(hex::encode(ID))]));
    // One answer without an id, or in an older version, is as good.
    let bare = message(0, 1, &[Said { id: None, ..GET }]);
    assert_eq!(said(&bare, &[asked(ID)]), Ok(vec![Ok(String::new())]));
    let refused = message(1, 1, &[Said { status: 1, ..GET }]);
    let no = "Permission Denied (no [31m)".to_owned();
    assert_eq!(said(&refused, &[asked(ID)]), Ok(vec![Err(no.clone())]));
    let unnamed = message(1, 1, &[Said { operation: None, status: 1, ..GET }]);
    assert_eq!(said(&unnamed, &[asked(ID)]), Ok(vec![Err(no)]));
}

#[test]
fn a_changed_order_is_put_right() {
    let second = Said { id: Some(OTHER), ..GET };
    let reordered = message(1, 2, &[second, GET]);
    let answers = said(&reordered, &[asked(ID), asked(OTHER)]).unwrap();
    assert_eq!(answers, [Ok(hex::encode(ID)), Ok(hex::encode(OTHER))]);
}

#[test]
fn a_message_refused_as_a_whole_refuses_every_call() {
    // PyKMIP, asked for three operations of which it has none.
    let all = message(0, 1, &[Said { operation: None, id: None, status: 1 }]);
    let no = Err("Permission Denied (no [31m)".to_owned());
    assert_eq!(said(&all, &[asked(ID), asked(OTHER)]), Ok(vec![no.clone(), no]));
}

#[test]
fn whatever_does_not_fit_is_named() {
    let cases = [
        (message(1, 2, &[GET]), "says 2 answers and has 1"),
        (message(1, 0, &[GET]), "says 0 answers and has 1"),
        (message(1, -1, &[]), "says -1 answers and has 0"),
        (message(1, 0, &[]), "0 answers to 1 calls"),
        (message(1, 2, &[GET, GET]), "2 answers to 1 calls"),
        (message(2, 1, &[GET]), "version 1.2, asked was 1.1"),
        (message(9, 1, &[GET]), "version is unknown"),
        (message(1, 1, &[Said { id: Some(OTHER), ..GET }]), "no answer to Get has its id"),
        (message(1, 1, &[Said { operation: Some(1), ..GET }]), "answers Create, asked was Get"),
        (message(1, 1, &[Said { operation: Some(0x99), ..GET }]), "operation 0x99"),
        (message(1, 1, &[Said { operation: None, ..GET }]), "has no Operation"),
        (message(1, 1, &[Said { status: 2, ..GET }]), "asked again later"),
        (message(1, 1, &[Said { status: 7, ..GET }]), "has the value 7"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\nxxxx".to_vec(), "at byte 0"),
    ];
    for (bytes, reason) in cases {
        let error = said(&bytes, &[asked(ID)]).unwrap_err();
        assert!(error.contains(reason), "{error} is not about {reason}");
    }
}

#[test]
fn one_answer_is_not_taken_for_two_calls() {
    let twice = message(1, 2, &[GET, GET]);
    let error = said(&twice, &[asked(ID), asked(OTHER)]).unwrap_err();
    assert!(error.contains("no answer to Get has its id"), "{error}");
}
