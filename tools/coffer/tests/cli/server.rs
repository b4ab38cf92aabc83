//! A server on a Unix socket that plays prepared answers and remembers what was asked.

use serde::Deserialize;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

/// One expected request and its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    /// `GET /v1/vms`.
    pub(crate) request: String,
    /// JSON that must be the body of the request.
    #[serde(default)]
    pub(crate) body: Option<String>,
    /// HTTP status of the answer.
    #[serde(default = "ok")]
    pub(crate) status: u16,
    /// JSON of the answer.
    pub(crate) answer: String,
}

fn ok() -> u16 {
    200
}

/// The server; its thread ends with the test process.
#[derive(Debug)]
pub(crate) struct Server {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Listens at `socket` and answers with `exchanges`, each once, in their order.
    pub(crate) fn start(socket: &Path, exchanges: Vec<Exchange>) -> Self {
        let listener = UnixListener::bind(socket).expect("a free socket path");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            let mut exchanges = exchanges.into_iter();
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let (line, body) = read_request(&stream);
                log.lock().expect("no panic").push(line.clone());
                let (status, answer) = match exchanges.next() {
                    None => (599, format!("\"unexpected {line}\"")),
                    Some(next) => judge(&next, &line, &body),
                };
                write_answer(&stream, status, &answer);
            }
        });
        Self { asked }
    }

    /// The request lines so far, without the HTTP version.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

fn judge(next: &Exchange, line: &str, body: &str) -> (u16, String) {
    if next.request != line {
        return (599, format!("\"expected {}\"", next.request));
    }
    if let Some(expected) = &next.body {
        let expected: Value = serde_json::from_str(expected).expect("the test holds JSON");
        let sent: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        if sent != expected {
            return (599, "\"another body was expected\"".to_owned());
        }
    }
    (next.status, next.answer.clone())
}

fn read_request(stream: &UnixStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).expect("a request line");
    let line = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("a header");
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    (line, String::from_utf8(body).expect("text"))
}

fn write_answer(mut stream: &UnixStream, status: u16, answer: &str) {
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{answer}",
        answer.len()
    );
    // A client that was killed by its test takes no answer.
    let _ = stream.write_all(text.as_bytes());
}
