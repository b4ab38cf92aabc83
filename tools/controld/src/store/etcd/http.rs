//! HTTP/1.1 to the nodes of an etcd cluster, in clear or under TLS.
//!
//! Owns addresses, connections and their deadlines; must not know what is asked. Flow of a request: a connection that is idle, or a
//! new one to the node that answered last, then to the others, until one answers or the time is over.

use super::{EtcdSettings, EtcdTls};
use crate::store::StoreError;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

/// How long a node may take to accept a connection; the next one is asked then.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// Pause before the nodes are asked another time, when none of them could be asked.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// Largest answer in bytes: a page of the largest values in base64.
const MAX_ANSWER: usize = 96 << 20;

/// Most idle connections: as many as requests run at a time in practice.
const MAX_IDLE: usize = 16;

/// A cluster, as far as HTTP knows it.
pub(super) struct Http {
    nodes: Vec<Node>,
    tls: Option<TlsConnector>,
    /// The node that answered last.
    current: AtomicUsize,
    idle: Mutex<Vec<(usize, SendRequest<Full<Bytes>>)>>,
}

struct Node {
    /// As it was written in the configuration.
    url: String,
    /// Name and port for the connection.
    address: String,
    name: Option<ServerName<'static>>,
}

/// How a request ended without an answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// No node has got it.
    Unsent(String),
    /// A node may have got it.
    Sent(String),
}

impl Lost {
    pub(super) fn reason(self) -> String {
        match self {
            Self::Unsent(reason) | Self::Sent(reason) => reason,
        }
    }
}

/// An answer, whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Http {
    /// Reads the files of the settings; connects to nobody yet.
    pub(super) fn new(settings: &EtcdSettings) -> Result<Self, StoreError> {
        if settings.endpoints.is_empty() {
            return Err(refused("no address of an etcd node is configured"));
        }
        let nodes: Result<Vec<_>, _> = settings.endpoints.iter().map(|url| node(url)).collect();
        let nodes = nodes?;
        let wants_tls = nodes.iter().any(|node| node.name.is_some());
        let tls = match &settings.tls {
            Some(files) => Some(connector(files)?),
            None if wants_tls => {
                return Err(refused("an https address of etcd needs the authority that signed it"));
            }
            None => None,
        };
        Ok(Self { nodes, tls, current: AtomicUsize::new(0), idle: Mutex::default() })
    }

    /// Sends a request and waits for the whole answer. A request that no node has got is tried at each of them until `end`; one
    /// that may have arrived is not repeated unless `repeatable`.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &Bytes,
        repeatable: bool,
        end: Instant,
    ) -> Result<Answer, Lost> {
        let mut sent = None;
        let mut earlier = Vec::new();
        loop {
            let mut reasons = Vec::new();
            for _ in 0..self.nodes.len() {
                match self.attempt(path, body, end).await {
                    Ok(answer) => return Ok(answer),
                    Err(Lost::Sent(reason)) if !repeatable => return Err(Lost::Sent(reason)),
                    Err(lost) => {
                        if matches!(lost, Lost::Sent(_)) {
                            sent = Some(());
                        }
                        reasons.push(lost.reason());
                        self.advance();
                    }
                }
                if Instant::now() >= end {
                    break;
                }
            }
            let now = Instant::now();
            // The round that the time cut off says less than the one before.
            if now < end || earlier.is_empty() {
                earlier = reasons;
            }
            if now + ROUND_PAUSE >= end {
                let reasons = earlier.join("; ");
                return Err(sent.map_or(Lost::Unsent(reasons.clone()), |()| Lost::Sent(reasons)));
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// Sends a request whose answer is a stream.
    pub(super) async fn stream(
        &self,
        path: &str,
        body: Bytes,
        end: Instant,
    ) -> Result<Response<Incoming>, Lost> {
        let index = self.index();
        let mut sender = self.connect(index, end).await?;
        let answer = timeout_at(end, sender.send_request(self.request(index, path, body)?)).await;
        let url = &self.nodes[index].url;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(Lost::Sent(format!("{url}: {e}"))),
            Err(_) => Err(Lost::Sent(format!("{url}: no answer in time"))),
        }
    }

    /// The next node is asked first from now on.
    pub(super) fn advance(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    fn index(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.nodes.len()
    }

    /// One node, one try; two when an idle connection turns out to be closed.
    async fn attempt(&self, path: &str, body: &Bytes, end: Instant) -> Result<Answer, Lost> {
        let index = self.index();
        while let Some(sender) = self.take_idle(index) {
            match self.exchange(index, sender, path, body.clone(), end).await {
                Err(Lost::Unsent(_)) => {}
                outcome => return outcome,
            }
        }
        let sender = self.connect(index, end).await?;
        self.exchange(index, sender, path, body.clone(), end).await
    }

    async fn exchange(
        &self,
        index: usize,
        mut sender: SendRequest<Full<Bytes>>,
        path: &str,
        body: Bytes,
        end: Instant,
    ) -> Result<Answer, Lost> {
        let url = &self.nodes[index].url;
        let request = self.request(index, path, body)?;
        let answer = match timeout_at(end, sender.try_send_request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(mut e)) => {
                let is_unsent = e.take_message().is_some();
                let reason = format!("{url}: {}", e.into_error());
                return Err(if is_unsent { Lost::Unsent(reason) } else { Lost::Sent(reason) });
            }
            Err(_) => return Err(Lost::Sent(format!("{url}: no answer in time"))),
        };
        let status = answer.status();
        let body = timeout_at(end, Limited::new(answer.into_body(), MAX_ANSWER).collect()).await;
        match body {
            Ok(Ok(body)) => {
                self.keep_idle(index, sender);
                Ok(Answer { status, body: body.to_bytes() })
            }
            Ok(Err(e)) => Err(Lost::Sent(format!("{url}: its answer broke off: {e}"))),
            Err(_) => Err(Lost::Sent(format!("{url}: no whole answer in time"))),
        }
    }

    fn request(&self, index: usize, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Lost> {
        Request::post(path)
            .header(header::HOST, &self.nodes[index].address)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| Lost::Unsent(format!("{}: {e}", self.nodes[index].url)))
    }

    async fn connect(&self, index: usize, end: Instant) -> Result<SendRequest<Full<Bytes>>, Lost> {
        let node = &self.nodes[index];
        let unsent = |reason: String| Lost::Unsent(format!("{}: {reason}", node.url));
        let end = end.min(Instant::now() + CONNECT_WAIT);
        let connect = async {
            let tcp = TcpStream::connect(&node.address).await.map_err(|e| unsent(e.to_string()))?;
            // Requests are one write each; waiting for more to send only costs time.
            tcp.set_nodelay(true).map_err(|e| unsent(e.to_string()))?;
            match (&node.name, &self.tls) {
                (Some(name), Some(tls)) => {
                    let tls = tls.connect(name.clone(), tcp).await;
                    handshake(tls.map_err(|e| unsent(e.to_string()))?).await
                }
                _ => handshake(tcp).await,
            }
            .map_err(|e| unsent(e.to_string()))
        };
        timeout_at(end, connect)
            .await
            .unwrap_or_else(|_| Err(unsent("no connection in time".into())))
    }

    fn take_idle(&self, index: usize) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, sender)| !sender.is_closed());
        let at = idle.iter().position(|(of, sender)| *of == index && sender.is_ready())?;
        Some(idle.swap_remove(at).1)
    }

    fn keep_idle(&self, index: usize, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push((index, sender));
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself when the sender is dropped; its error comes back through the sender.
    tokio::spawn(connection);
    Ok(sender)
}

fn node(url: &str) -> Result<Node, StoreError> {
    let wrong = |reason: &str| refused(&format!("{url:?} is no address of etcd: {reason}"));
    let (is_tls, address) = if let Some(address) = url.strip_prefix("https://") {
        (true, address)
    } else {
        let address = url.strip_prefix("http://");
        (false, address.ok_or_else(|| wrong("write http://HOST:PORT or https://HOST:PORT"))?)
    };
    let address = address.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("it has no port"))?;
    if port.parse::<u16>().is_err() || host.is_empty() || address.contains('/') {
        return Err(wrong("write http://HOST:PORT or https://HOST:PORT"));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = match is_tls {
        true => Some(ServerName::try_from(bare).map_err(|e| wrong(&e.to_string()))?),
        false => None,
    };
    Ok(Node { url: url.to_owned(), address: address.to_owned(), name })
}

/// TLS with the authority and, where given, the certificate of the settings.
fn connector(files: &EtcdTls) -> Result<TlsConnector, StoreError> {
    let bad = |path: &Path, e: &dyn std::fmt::Display| refused(&format!("{}: {e}", path.display()));
    let mut roots = rustls::RootCertStore::empty();
    let authorities = CertificateDer::pem_file_iter(&files.ca).map_err(|e| bad(&files.ca, &e))?;
    for authority in authorities {
        let authority = authority.map_err(|e| bad(&files.ca, &e))?;
        roots.add(authority).map_err(|e| bad(&files.ca, &e))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&files.ca, &e))?
        .with_root_certificates(roots);
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_file_iter(certificate)
                .and_then(Iterator::collect)
                .map_err(|e| bad(certificate, &e))?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, &e))?;
            builder.with_client_auth_cert(chain, private).map_err(|e| bad(certificate, &e))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn refused(reason: &str) -> StoreError {
    StoreError::Refused { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(endpoint: &str) -> Result<Http, StoreError> {
        let endpoints = vec![endpoint.to_owned()];
        Http::new(&EtcdSettings { endpoints, prefix: String::new(), tls: None })
    }

    #[test]
    fn addresses_are_checked() {
        for good in ["http://10.0.0.1:2379", "http://etcd1:2379/", "http://[::1]:2379"] {
            assert!(http(good).is_ok(), "{good}");
        }
        for bad in [
            "etcd1:2379",
            "http://etcd1",
            "http://:2379",
            "http://a:b",
            "http://a:1/x",
            "https://a b:1",
            "https://a:1",
        ] {
            assert!(matches!(http(bad), Err(StoreError::Refused { .. })), "{bad}");
        }
    }
}
