//! The port on loopback: who is let in, what each who is not is told, and how long anybody may take.

use super::*;
use crate::control::plane_router;
use crate::testing::TestHost;
use crate::testing::pki::Authority;
use cluster::{CallError, HostClient, TlsFiles};
use hostd_api::control::{MAX_PUSHED_AT_ONCE, PushKeys, SealedKey};
use hostd_api::error::ApiError;
use rustls::pki_types::ServerName;
use std::io::{Read, Write};
use std::net::TcpStream as Socket;
use uuid::Uuid;

const CONTROLD: &str = "coffer://prod/controld/c1";

/// A host h1 of the cluster prod whose port is served until the end of the test.
struct Served {
    t: TestHost,
    authority: Authority,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

fn served(times: Times) -> Served {
    let (t, authority) = TestHost::with_authority();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let routes = plane_router(Arc::clone(&t.host));
    let plane = t.host.plane.as_ref().unwrap();
    let port = runtime.block_on(Port::bind(plane, routes, times)).unwrap();
    let address = port.address().unwrap();
    runtime.spawn(port.serve(std::future::pending::<()>()));
    Served { t, authority, address, _runtime: runtime }
}

/// Times of which all but the one that is tried are long.
fn short(set: impl FnOnce(&mut Times, Duration)) -> Times {
    let long = Duration::from_secs(60);
    let mut times = Times { handshake: long, head: long, whole: long, ..Times::default() };
    set(&mut times, Duration::from_millis(300));
    times
}

impl Served {
    fn client(&self, files: TlsFiles) -> HostClient {
        self.client_of(files, Role::Controld, "h1")
    }

    fn client_of(&self, files: TlsFiles, role: Role, host: &str) -> HostClient {
        let identity = Identity::load(files, role, crate::keys::now).unwrap();
        HostClient::new(&self.address.to_string(), Some(host), Arc::new(identity))
    }

    fn controld(&self) -> HostClient {
        self.client(self.authority.member(Some(CONTROLD)))
    }

    fn connect(&self) -> Socket {
        let socket = Socket::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
        socket
    }

    /// A connection under TLS with the certificate of a control plane, to write anything to.
    fn speaker(&self) -> rustls::StreamOwned<rustls::ClientConnection, Socket> {
        let files = self.authority.member(Some(CONTROLD));
        let identity = Identity::load(files, Role::Controld, crate::keys::now).unwrap();
        let config = identity.now().client_of_host(None).unwrap();
        let name = ServerName::try_from("hostd").unwrap();
        let session = rustls::ClientConnection::new(config, name).unwrap();
        rustls::StreamOwned::new(session, self.connect())
    }
}

fn denied_to(client: &HostClient) -> ApiError {
    match client.identity() {
        Err(CallError::Api { status: 403, error, .. }) => {
            assert_eq!(error.code, ErrorCode::Denied);
            *error
        }
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn a_control_plane_of_the_cluster_is_answered() {
    let s = served(Times::default());
    let client = s.controld();
    let identity = client.identity().unwrap();
    assert_eq!((identity.cluster.as_str(), identity.name.as_str()), ("prod", "h1"));
    assert_eq!(identity.host_id, s.t.host.state.host());
    assert!(client.vms().unwrap().is_empty());
}

#[test]
fn each_other_client_is_told_why_it_is_not() {
    let s = served(Times::default());
    let of = |role, uri: &str| s.client_of(s.authority.member(Some(uri)), role, "h1");
    // A client of another cluster looks for a host of its own cluster, and finds none.
    let other = of(Role::Controld, "coffer://test/controld/c1").identity().unwrap_err();
    assert!(matches!(&other, CallError::NotTrusted { .. }), "{other}");
    assert!(other.to_string().contains("is of the cluster prod, not of test"), "{other}");
    let host = denied_to(&of(Role::Host, "coffer://prod/host/h2"));
    assert!(host.message.contains("has the role host, not controld"), "{}", host.message);
    assert!(host.remedy.contains("coffer://CLUSTER/controld/NAME"));
    let user = raw_request(&s, &s.authority.member(Some("coffer://prod/user/anna")));
    assert!(user.contains("has the role user, not controld"), "{user}");

    let elsewhere = s.t.dir.path().join("elsewhere");
    let mut files = Authority::new(&elsewhere).member(Some(CONTROLD));
    let not_ours = s.client(files.clone()).identity().unwrap_err();
    assert!(not_ours.to_string().contains("no authority of our cluster"), "{not_ours}");
    // One that trusts the host is not trusted by it for that.
    files.ca = s.t.dir.path().join("pki/ca.pem");
    let refused = s.client(files).identity().unwrap_err();
    assert!(matches!(&refused, CallError::Refused { .. }), "{refused:?}");

    let name = s.client_of(s.authority.member(Some(CONTROLD)), Role::Controld, "h2");
    let name = name.identity().unwrap_err().to_string();
    assert!(name.contains("coffer://prod/host/h1 is not h2"), "{name}");
}

/// What a client of the right authority gets that cannot be made by our own client: no role, another cluster.
#[test]
fn a_certificate_without_a_role_or_of_another_cluster_has_its_own_error() {
    let s = served(Times::default());
    for (uri, why) in [
        (None, "no name of the form coffer://CLUSTER/ROLE/NAME"),
        (Some("https://example.org/"), "no name of the form"),
        (Some("coffer://test/controld/c1"), "is of the cluster test, not of prod"),
    ] {
        let answer = raw_request(&s, &s.authority.member(uri));
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("\"denied\"") && answer.contains(why), "{answer}");
    }
}

/// One request with whatever certificate; the server is not looked at.
fn raw_request(s: &Served, files: &TlsFiles) -> String {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
    let own = CertificateDer::from_pem_file(&files.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own], key)
        .unwrap();
    let trusting = s.authority.member(Some(CONTROLD));
    let identity = Identity::load(trusting, Role::Controld, crate::keys::now).unwrap();
    let verifier = identity.now().host_verifier(None);
    config.dangerous().set_certificate_verifier(verifier);
    let name = ServerName::try_from("hostd").unwrap();
    let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(session, s.connect());
    stream
        .write_all(b"GET /v1/control/identity HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _end = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn wrong_requests_get_an_api_error() {
    let s = served(Times::default());
    let ask = |head: &str, body: &[u8]| {
        let mut stream = s.speaker();
        let head = format!(
            "{head} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let _early = stream.write_all(body);
        let mut answer = Vec::new();
        let _end = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let large = ask("POST /v1/control/keys", &vec![b' '; MAX_BODY + 1]);
    assert!(large.starts_with("HTTP/1.1 400") && large.contains("the limit is"), "{large}");
    let empty = ask("POST /v1/control/keys", b"");
    assert!(empty.starts_with("HTTP/1.1 400") && empty.contains("host_id"), "{empty}");
    let local = ask("GET /v1/vms", b"");
    assert!(local.starts_with("HTTP/1.1 404"), "the other routes are not here: {local}");
    let query = ask("DELETE /v1/control/keys/vault/a?force=true", b"");
    assert!(query.starts_with("HTTP/1.1 400") && query.contains("generation"), "{query}");
}

#[test]
fn the_largest_push_fits_and_is_judged() {
    let s = served(Times::default());
    let key = |number: usize| {
        let id = format!("{}/{number:0>128}", "p".repeat(64));
        SealedKey { id, sealed: "0".repeat(160) }
    };
    let keys: Vec<SealedKey> = (0..MAX_PUSHED_AT_ONCE).map(key).collect();
    let (host_id, boot_id) = (Uuid::nil(), Uuid::nil());
    let error = s.controld().push(&PushKeys { host_id, boot_id, generation: 1, keys }).unwrap_err();
    let CallError::Api { error, .. } = error else { panic!("{error}") };
    assert_eq!(error.code, ErrorCode::StalePush);
}

#[test]
fn what_is_no_tls_is_hung_up_on() {
    let s = served(Times::default());
    for garbage in [
        &b"GET /v1/control/identity HTTP/1.1\r\nHost: h\r\n\r\n"[..],
        &[0xff; 2000],
        b"\x16\x03\x01\xff\xff",
    ] {
        let mut socket = s.connect();
        socket.write_all(garbage).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _end = socket.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(s.controld().identity().is_ok(), "it still answers");
}

/// More connections than there are places, silent at different points: each is cut, and a control plane gets in.
#[test]
fn silent_connections_give_their_places_up() {
    let s = served(short(|times, short| times.handshake = short));
    let silent: Vec<Socket> = (0..MAX_CONNECTIONS + 3)
        .map(|number| {
            let mut socket = s.connect();
            if number % 2 == 1 {
                // The beginning of a record with a handshake message.
                socket.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
            }
            socket
        })
        .collect();
    assert!(s.controld().identity().is_ok());
    for mut socket in silent {
        assert_eq!(socket.read(&mut [0; 16]).unwrap_or(0), 0, "it was closed");
    }
}

#[test]
fn a_head_or_an_answer_that_takes_too_long_ends_the_connection() {
    for times in
        [short(|times, short| times.head = short), short(|times, short| times.whole = short)]
    {
        let s = served(times);
        let mut stream = s.speaker();
        stream.write_all(b"GET /v1/control/identity HTTP/1.1\r\n").unwrap();
        let mut rest = Vec::new();
        let _end = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    }
}
