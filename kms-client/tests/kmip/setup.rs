//! Setting up trust from nothing, in each of the ways, against a server that then takes us.

use crate::pki::{Authority, now};
use crate::server::Server;
use crate::session::{BUDGETS, node_of, session};
use kms_client::KmsError;
use kms_client::kmip::setup;
use kms_client::kmip::tls::{Identity, TlsFiles, Trust};
use rcgen::CertificateSigningRequestParams;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// A host whose folder for these files does not exist yet.
fn fresh(dir: &Path) -> TlsFiles {
    TlsFiles {
        certificate: dir.join("kmip/client.pem"),
        key: dir.join("kmip/client.key"),
        trust: Trust::Pinned(dir.join("kmip/pinned.pem")),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Looks at the server, pins its certificate, and makes a key.
fn trust_and_use(files: &TlsFiles, server: &Server) {
    let (host, port) = (server.address.ip().to_string(), server.address.port());
    let shown = setup::look(&host, port, None, files, now).unwrap();
    setup::pin(files, &shown).unwrap();
    setup::pin(files, &shown).unwrap();
    let pinned = fs::read_to_string(files.trust.path()).unwrap();
    assert_eq!(pinned, shown.pem, "a certificate is pinned once");
    let node = node_of(Arc::new(Identity::new(files.clone(), now)), server, BUDGETS);
    session(&node).unwrap().create(None).unwrap();
}

#[test]
fn a_request_is_signed_and_imported() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let dir = tempfile::tempdir().unwrap();
    let files = fresh(dir.path());
    let request = setup::request(&files, "coffer-host1").unwrap();
    let waiting = dir.path().join("kmip/client.key.new");
    assert_eq!(mode(&waiting), 0o600);
    assert!(!request.contains("PRIVATE") && !files.key.exists());

    // A certificate for another key is refused, and the waiting key stays.
    let (_, other) = (authority.client("other", 4000), authority.path("other.pem"));
    let other = fs::read_to_string(other).unwrap();
    let error = setup::import(&files, &other, now).unwrap_err();
    assert!(matches!(error, KmsError::Config { .. }), "{error}");
    assert!(error.to_string().contains("is not the key of"), "{error}");
    assert!(waiting.exists() && !files.certificate.exists());

    let signed = authority.sign_request(&request);
    let shown = setup::import(&files, &signed, now).unwrap();
    assert!(shown.days_left.unwrap() > 0);
    assert_eq!((mode(&files.key), mode(&files.certificate)), (0o600, 0o644));
    assert!(!waiting.exists(), "the key has moved");
    trust_and_use(&files, &server);
    let error = setup::import(&files, &signed, now).unwrap_err();
    assert!(error.to_string().contains("no certificate was asked for"), "{error}");
}

#[test]
fn a_self_signed_certificate_can_be_told_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let files = fresh(dir.path());
    let shown = setup::self_signed(&files, "coffer host 1", now).unwrap();
    assert!((3640..=3651).contains(&shown.days_left.unwrap()), "{shown:?}");
    assert_eq!(fs::read_to_string(&files.certificate).unwrap().trim(), shown.pem.trim());
    assert_eq!(mode(&files.key), 0o600);
    // It is replaced as a whole.
    let again = setup::self_signed(&files, "coffer host 1", now).unwrap();
    assert_ne!(again.sha256, shown.sha256);
    for name in ["", "a\nb", &"x".repeat(65)] {
        let error = setup::self_signed(&files, name, now).unwrap_err();
        assert!(error.to_string().contains("cannot be in a certificate"), "{error}");
    }
}

#[test]
fn a_pair_that_the_server_made_is_installed() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let dir = tempfile::tempdir().unwrap();
    let files = fresh(dir.path());
    let (certificate, key) = (authority.path("client.pem"), authority.path("client.key"));
    authority.client("other", 4000);
    let error = setup::install(&files, &certificate, &authority.path("other.key"), now);
    assert!(error.unwrap_err().to_string().contains("is not the key of"));
    assert!(!files.key.exists() && !files.certificate.exists());
    setup::install(&files, &certificate, &key, now).unwrap();
    trust_and_use(&files, &server);
}

/// A path that a caller of the daemon names, which must neither take its memory nor hold it.
#[test]
fn only_plain_files_of_some_size_are_installed() {
    let dir = tempfile::tempdir().unwrap();
    let files = fresh(dir.path());
    let large = dir.path().join("large.pem");
    fs::File::create(&large).unwrap().set_len(2 << 20).unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, problem) in [
        (Path::new("/dev/zero"), "is not a regular file"),
        (&pipe, "is not a regular file"),
        (&large, "has 2097152 bytes"),
        (&dir.path().join("absent"), "cannot be read"),
    ] {
        let error = setup::install(&files, path, Path::new("/dev/null"), now).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
        assert!(!files.key.exists() && !files.certificate.exists());
    }
}

/// Another file, or a pipe that nobody writes to, takes the place of the key again and again: only the key that was
/// looked at is ever installed, and nobody waits for the pipe.
#[test]
fn what_takes_the_place_of_a_file_meanwhile_is_not_installed() {
    const WANTED: usize = 30;
    let authority = Authority::new();
    authority.client("other", 4000);
    let dir = tempfile::tempdir().unwrap();
    let files = fresh(dir.path());
    let (certificate, key) = (authority.path("client.pem"), dir.path().join("swapped.key"));
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let right = fs::read(authority.path("client.key")).unwrap();
    let [fits, other] = ["client.key", "other.key"].map(|name| {
        fs::copy(authority.path(name), dir.path().join(name)).unwrap();
        dir.path().join(name)
    });
    let next = dir.path().join("next");
    let place = key.clone();
    let swap = |path: &Path| {
        fs::hard_link(path, &next).unwrap();
        fs::rename(&next, &place).unwrap();
    };
    swap(&other);
    let (done, ended) = channel();
    std::thread::spawn(move || {
        for _ in 0..WANTED {
            // The others are refused.
            while setup::install(&files, &certificate, &key, now).is_err() {}
            done.send(fs::read(&files.key).unwrap()).unwrap();
        }
    });
    let mut installed = Vec::new();
    let end = Instant::now() + Duration::from_secs(120);
    while installed.len() < WANTED {
        assert!(Instant::now() < end, "installed {} times", installed.len());
        [&fits, &other, &pipe].into_iter().for_each(|path| swap(path));
        installed.extend(ended.try_iter());
    }
    assert!(installed.iter().all(|key| *key == right), "a key of another certificate");
}

#[test]
fn a_certificate_is_looked_at_whatever_is_wrong_with_it() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let files = fresh(dir.path());
    authority.server("odd", &["kms1.example"], 2020);
    let server = Server::with(&authority, "odd", crate::store::Store::shared());
    let shown = setup::look("127.0.0.1", server.address.port(), None, &files, now).unwrap();
    let (chain, _) = authority.pair("odd");
    assert_eq!(shown.sha256, crypto::sha256_hex(&chain[0]));
    assert_eq!(shown.names, ["kms1.example"]);
    assert!(shown.days_left.unwrap() < 0);
    // Authorities and pins are one or the other.
    let by_authority = TlsFiles { trust: Trust::Authority("/ca.pem".into()), ..files };
    let error = setup::pin(&by_authority, &shown).unwrap_err();
    assert!(error.to_string().contains("remove ca of this provider"), "{error}");
}

#[test]
fn a_server_that_shows_nothing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let files = fresh(dir.path());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = setup::look("127.0.0.1", port, None, &files, now).unwrap_err();
    assert!(error.to_string().contains("nobody listens there"), "{error}");
}

impl Authority {
    /// The certificate that answers a request.
    fn sign_request(&self, request: &str) -> String {
        let request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.signed_by(self.issuer()).unwrap().pem()
    }
}
