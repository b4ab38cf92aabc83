//! The JSON of etcd's gateway (etcd 3.4 and later, API v3): what is sent, and what comes back.
//!
//! Owns the shapes and base64; pure. Keys and values are base64 (RFC 4648 section 4), 64-bit numbers are strings, and fields
//! that are zero are left out, as the JSON mapping of protocol buffers has it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};

/// Bytes as base64.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A 64-bit number, which may be a string.
fn number<'de, D: Deserializer<'de>, T>(from: D) -> Result<T, D::Error>
where
    T: std::str::FromStr + TryFrom<i64>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(i64),
    }
    let parsed = match Either::deserialize(from)? {
        Either::Text(text) => text.parse().ok(),
        Either::Number(number) => T::try_from(number).ok(),
    };
    parsed.ok_or_else(|| serde::de::Error::custom("a number is out of range"))
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

#[derive(Debug, Serialize)]
pub(super) struct RangeRequest {
    pub(super) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range_end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) keys_only: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct TxnRequest {
    pub(super) compare: Vec<CompareRequest>,
    pub(super) success: Vec<Operation>,
    pub(super) failure: Vec<Operation>,
}

#[derive(Debug, Serialize)]
pub(super) struct CompareRequest {
    pub(super) key: String,
    pub(super) target: &'static str,
    pub(super) result: &'static str,
    pub(super) mod_revision: String,
}

#[derive(Debug, Serialize)]
pub(super) enum Operation {
    #[serde(rename = "request_put")]
    Put(PutRequest),
    #[serde(rename = "request_delete_range")]
    DeleteRange(RangeRequest),
    #[serde(rename = "request_range")]
    Range(RangeRequest),
}

#[derive(Debug, Serialize)]
pub(super) struct PutRequest {
    pub(super) key: String,
    pub(super) value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lease: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct WatchRequest {
    pub(super) create_request: WatchCreate,
}

#[derive(Debug, Serialize)]
pub(super) struct WatchCreate {
    pub(super) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range_end: Option<String>,
    pub(super) start_revision: String,
}

#[derive(Debug, Serialize)]
pub(super) struct GrantRequest {
    #[serde(rename = "TTL")]
    pub(super) ttl: String,
}

#[derive(Debug, Serialize)]
pub(super) struct LeaseRequest {
    #[serde(rename = "ID")]
    pub(super) id: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    #[serde(default, deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
    #[serde(default, deserialize_with = "number")]
    pub(super) mod_revision: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct RangeAnswer {
    #[serde(default)]
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
    #[serde(default)]
    pub(super) more: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct TxnAnswer {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) succeeded: bool,
    #[serde(default)]
    pub(super) responses: Vec<OperationAnswer>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OperationAnswer {
    #[serde(default)]
    pub(super) response_range: Option<RangeAnswer>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LeaseAnswer {
    #[serde(rename = "ID", default, deserialize_with = "number")]
    pub(super) id: i64,
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    pub(super) ttl: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Nothing {}

/// One line of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct Streamed<T> {
    pub(super) result: Option<T>,
    #[serde(default)]
    pub(super) error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WatchAnswer {
    #[serde(default)]
    pub(super) canceled: bool,
    #[serde(default, deserialize_with = "number")]
    pub(super) compact_revision: u64,
    #[serde(default)]
    pub(super) cancel_reason: String,
    #[serde(default)]
    pub(super) events: Vec<WatchEvent>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WatchEvent {
    #[serde(default, rename = "type")]
    pub(super) kind: WatchKind,
    pub(super) kv: KeyValue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum WatchKind {
    #[default]
    Put,
    Delete,
}

/// The body of an answer that is no 200.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorAnswer {
    #[serde(default)]
    pub(super) error: String,
    /// A status code of gRPC.
    #[serde(default)]
    pub(super) code: u32,
}

/// Codes of gRPC that are told apart.
pub(super) mod code {
    /// Cancelled, unknown, deadline exceeded, aborted, internal, unavailable: whether it was done is not said. etcd's gateway
    /// sends `unknown` when it gave up waiting itself.
    pub(in crate::store::etcd) const UNSAID: [u32; 6] = [1, 2, 4, 10, 13, 14];
    pub(in crate::store::etcd) const NOT_FOUND: u32 = 5;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_etcd_writes_them() {
        let text = r#"{"header":{"cluster_id":"14841639068965178418","member_id":"10276657743932975437","revision":"7",
            "raft_term":"2"},"kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"7","version":"3","value":"YmFy"},
            {"key":"Zm8=","mod_revision":"4"}],"more":true,"count":"9"}"#;
        let answer: RangeAnswer = serde_json::from_str(text).unwrap();
        assert_eq!((answer.header.revision, answer.more), (7, true));
        assert_eq!(
            (answer.kvs[0].key.as_slice(), answer.kvs[0].value.as_slice()),
            (&b"foo"[..], &b"bar"[..])
        );
        assert_eq!((answer.kvs[1].mod_revision, answer.kvs[1].value.len()), (4, 0));
        let text = r#"{"result":{"header":{"revision":"5"},"events":[{"kv":{"key":"YQ==","mod_revision":"5"}},
            {"type":"DELETE","kv":{"key":"YQ==","mod_revision":"6"}}]}}"#;
        let line: Streamed<WatchAnswer> = serde_json::from_str(text).unwrap();
        let kinds: Vec<_> = line.result.unwrap().events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [WatchKind::Put, WatchKind::Delete]);
        let text =
            r#"{"result":{"header":{},"watch_id":"0","canceled":true,"compact_revision":"12"}}"#;
        let line: Streamed<WatchAnswer> = serde_json::from_str(text).unwrap();
        let answer = line.result.unwrap();
        assert_eq!((answer.canceled, answer.compact_revision), (true, 12));
        let lease: LeaseAnswer =
            serde_json::from_str(r#"{"header":{},"ID":"7587862094898364933"}"#).unwrap();
        assert_eq!((lease.id, lease.ttl), (7_587_862_094_898_364_933, 0));
    }

    #[test]
    fn wrong_answers_are_errors() {
        for text in [
            r#"{"kvs":[{"key":"***"}]}"#,
            r#"{"kvs":[{"key":"YQ==","mod_revision":"-1"}]}"#,
            r#"{"kvs":[{"key":"YQ==","mod_revision":"99999999999999999999"}]}"#,
            r#"{"kvs":[{}]}"#,
            "[1]",
        ] {
            assert!(serde_json::from_str::<RangeAnswer>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn requests_leave_out_what_is_not_set() {
        let range =
            RangeRequest { key: encode(b"a"), range_end: None, limit: None, keys_only: false };
        assert_eq!(serde_json::to_string(&range).unwrap(), r#"{"key":"YQ=="}"#);
        let put = PutRequest { key: encode(b"a"), value: encode(b"b"), lease: Some("5".into()) };
        assert_eq!(
            serde_json::to_string(&Operation::Put(put)).unwrap(),
            r#"{"request_put":{"key":"YQ==","value":"Yg==","lease":"5"}}"#
        );
    }
}
