//! Answers, errors and silence of a server that plays hostd.

use super::*;
use crate::error::ErrorCode;
use crate::types::Force;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

/// Serves one connection with `answer` and returns what it was asked.
fn serve(answer: &'static str) -> (Client, thread::JoinHandle<String>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0u8; 4096];
        let n = stream.read(&mut asked).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&asked[..n]).into_owned()
    });
    (Client::new(&path), server, dir)
}

#[test]
fn a_post_sends_json_and_reads_json() {
    let (client, server, _dir) =
        serve("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"force\":true}");
    let got: Force = client.post("/v1/vms/a/lock", &Force { force: true }).unwrap();
    assert!(got.force);
    let asked = server.join().unwrap();
    assert!(asked.starts_with("POST /v1/vms/a/lock HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("content-type: application/json"), "{asked}");
}

#[test]
fn an_error_body_becomes_an_api_error() {
    let (client, server, _dir) = serve(concat!(
        "HTTP/1.1 404 Not Found\r\ncontent-length: 66\r\n\r\n",
        r#"{"code":"not-found","message":"no VM 'a'","remedy":"coffer list"}"#
    ));
    // 66 is one more than is sent: a cut body is no valid answer.
    assert!(matches!(client.get::<Force>("/v1/vms/a"), Err(ClientError::Protocol(_))));
    server.join().unwrap();
    let (client, server, _dir) = serve(concat!(
        "HTTP/1.1 404 Not Found\r\ncontent-length: 65\r\n\r\n",
        r#"{"code":"not-found","message":"no VM 'a'","remedy":"coffer list"}"#
    ));
    let Err(ClientError::Api { status, error }) = client.get::<Force>("/v1/vms/a") else {
        panic!("an API error was expected");
    };
    assert_eq!((status, error.code), (404, ErrorCode::NotFound));
    server.join().unwrap();
}

#[test]
fn nobody_there_names_the_socket() {
    let client = Client::new(Path::new("/nonexistent/hostd.sock"));
    let error = client.get::<Force>("/v1/host").unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }));
    assert!(error.to_string().contains("/nonexistent/hostd.sock"));
}

#[test]
fn a_closed_connection_is_no_answer() {
    let (client, server, _dir) = serve("");
    assert!(matches!(client.get::<Force>("/v1/host"), Err(ClientError::Protocol(_))));
    server.join().unwrap();
}
