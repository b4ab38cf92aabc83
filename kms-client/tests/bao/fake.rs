//! A server that does as OpenBao does, as far as Coffer asks, until it is told to lie.
//!
//! Owns TLS, HTTP and the ways to misbehave. Its keys wrap by remembering: a wrap has the form of a real one and is a number inside.

use crate::pki::Authority;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest that a server waits for anything, so that every test ends.
const PATIENCE: Duration = Duration::from_secs(60);

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// What happens instead of the answer.
#[derive(Clone)]
pub(crate) enum Act {
    /// This status and body.
    Say(u16, String),
    /// These bytes.
    Raw(Vec<u8>),
    /// The body of the answer, changed.
    Edit(Arc<dyn Fn(String) -> String + Send + Sync>),
    /// The answer in parts of this size (RFC 9112 section 7.1).
    Chunked(usize),
    /// Nothing, and the connection stays open.
    Silent,
    /// The answer byte by byte with this pause.
    Drip(Duration),
    /// The connection is closed.
    Close,
    /// It says that it will send no more, and goes on listening.
    HalfClose,
    /// So many bytes of the answer, then the end.
    Truncate(usize),
}

/// What it knows.
#[derive(Default)]
pub(crate) struct State {
    /// Versions of keys.
    pub(crate) keys: BTreeMap<String, u64>,
    /// What was wrapped: plaintext and associated data.
    wraps: Vec<(String, String)>,
    /// Acts by the part of a path that they are for.
    script: Vec<(String, Act, bool)>,
    /// Requests, as method and path.
    pub(crate) asked: Vec<String>,
    pub(crate) logins: usize,
    /// Tokens of log-ins up to this one are taken no more.
    pub(crate) revoked: usize,
}

/// A running server; ends when dropped.
pub(crate) struct Fake {
    pub(crate) port: u16,
    pub(crate) state: Arc<Mutex<State>>,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn start(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let (chain, key) = authority.pair("server");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (shared, ends) = (state.clone(), stopping.clone());
        let accepting = std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let (config, state) = (config.clone(), shared.clone());
                std::thread::spawn(move || serve(socket, config, &state));
            }
        });
        Self { port, state, stopping, accepting: Some(accepting) }
    }

    /// The next request whose path has this part is answered so.
    pub(crate) fn once(&self, part: &str, act: Act) {
        self.state.lock().unwrap().script.push((part.to_owned(), act, true));
    }

    /// Every request whose path has this part is answered so.
    pub(crate) fn always(&self, part: &str, act: Act) {
        self.state.lock().unwrap().script.push((part.to_owned(), act, false));
    }

    /// From now on everything is as it should be.
    pub(crate) fn behave(&self) {
        self.state.lock().unwrap().script.clear();
    }

    /// How often a path with this part was asked for.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|asked| asked.contains(part)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.accepting.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(socket: TcpStream, config: Arc<ServerConfig>, state: &Mutex<State>) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let session = ServerConnection::new(config).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    while let Some((asked, token, body)) = receive(&mut stream) {
        let (act, answer) = {
            let mut state = state.lock().unwrap();
            state.asked.push(asked.clone());
            let at = state.script.iter().position(|(part, ..)| asked.contains(part.as_str()));
            let act = at.map(|at| match state.script[at].2 {
                true => state.script.remove(at).1,
                false => state.script[at].1.clone(),
            });
            (act, state.answer(&asked, &token, &body))
        };
        if !send(&mut stream, act, answer) {
            return;
        }
    }
}

/// Method and path, the token, and the body of a request.
fn receive(stream: &mut Stream) -> Option<(String, String, serde_json::Value)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let mut body = vec![0; field("Content-Length:").parse().unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let asked = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    Some((asked, field("X-Vault-Token:"), body))
}

impl State {
    fn answer(&mut self, asked: &str, token: &str, body: &serde_json::Value) -> (u16, String) {
        let error = |status, text: &str| (status, format!("{{\"errors\":[{text:?}]}}"));
        let (method, path) = asked.split_once(" /v1/").unwrap();
        if path.starts_with("sys/health") {
            return (200, "{}".to_owned());
        }
        if path.ends_with("/login") {
            self.logins += 1;
            let count = self.logins;
            let auth = format!("{{\"client_token\":\"s.{count}\",\"lease_duration\":3600}}");
            return (200, format!("{{\"data\":null,\"auth\":{auth}}}"));
        }
        let login = token.strip_prefix("s.").and_then(|count| count.parse().ok()).unwrap_or(0);
        if login <= self.revoked {
            return error(403, "permission denied");
        }
        let mut parts = path.split('/').skip(1);
        let (verb, name) = (parts.next().unwrap(), parts.next().unwrap().to_owned());
        let rotates = parts.next() == Some("rotate");
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        match (method, verb) {
            ("POST", "keys") if !rotates => {
                self.keys.entry(name).or_insert(1);
                (204, String::new())
            }
            ("GET" | "POST", "keys") => {
                let Some(version) = self.keys.get_mut(&name) else {
                    return (404, "{\"errors\":[]}".to_owned());
                };
                *version += u64::from(rotates);
                let data = format!("{{\"type\":\"aes256-gcm96\",\"latest_version\":{version}}}");
                (200, format!("{{\"data\":{data}}}"))
            }
            (_, "encrypt") => {
                let (plaintext, bound) = (text("plaintext"), text("associated_data"));
                let length = plaintext.trim_end_matches('=').len() * 3 / 4 + 28;
                self.wraps.push((plaintext, bound));
                let width = length.div_ceil(3) * 4;
                let (version, number) = (self.keys[&name], self.wraps.len() - 1);
                let wrap = format!("vault:v{version}:{number:0width$}");
                (
                    200,
                    format!("{{\"data\":{{\"ciphertext\":\"{wrap}\",\"key_version\":{version}}}}}"),
                )
            }
            _ => {
                if !self.keys.contains_key(&name) {
                    return error(400, "encryption key not found");
                }
                let wrap = text("ciphertext");
                let number: usize = wrap.rsplit(':').next().unwrap().parse().unwrap();
                let found = self.wraps.get(number).filter(|(_, b)| *b == text("associated_data"));
                let Some((plaintext, _)) = found else {
                    return error(400, "cipher: message authentication failed");
                };
                (200, format!("{{\"data\":{{\"plaintext\":{plaintext:?}}}}}"))
            }
        }
    }
}

/// Sends an answer; `false` when the connection is to be closed.
fn send(stream: &mut Stream, act: Option<Act>, (mut status, mut body): (u16, String)) -> bool {
    let mut put = |bytes: &[u8]| stream.write_all(bytes).and_then(|()| stream.flush()).is_ok();
    match act.clone() {
        Some(Act::Say(other, text)) => (status, body) = (other, text),
        Some(Act::Edit(edit)) => body = edit(body),
        _ => {}
    }
    let head = format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\n");
    let length = body.len();
    let whole = format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes();
    match act {
        None | Some(Act::Say(..) | Act::Edit(_)) => put(&whole),
        Some(Act::Raw(bytes)) => put(&bytes),
        Some(Act::Chunked(size)) => {
            let part =
                |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
            let parts: Vec<u8> = body.as_bytes().chunks(size).flat_map(part).collect();
            put(&[head.as_bytes(), b"Transfer-Encoding: chunked\r\n\r\n", &parts, b"0\r\n\r\n"]
                .concat())
        }
        Some(Act::Drip(pause)) => whole.iter().all(|byte| {
            std::thread::sleep(pause);
            put(&[*byte])
        }),
        Some(Act::Silent) => {
            let _ = stream.read(&mut [0; 1]);
            false
        }
        Some(Act::Close) => false,
        Some(Act::HalfClose) => {
            stream.sock.shutdown(Shutdown::Write).unwrap();
            let _ = stream.sock.read(&mut [0; 1]);
            false
        }
        Some(Act::Truncate(length)) => {
            put(&whole[..length]);
            false
        }
    }
}
