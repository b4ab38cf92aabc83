//! PyKMIP on loopback, with an authority that signs for its clients.
//!
//! Owns its processes and certificates. Several servers over one folder have the same keys, as those of a cluster do. Dropping
//! kills them.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use tests::binaries::project;
use tests::wait;

/// Rules by which every client that the server knows has a key, whoever made it.
const POLICY: &str = r#"{"hosts": {"preset": {"SYMMETRIC_KEY": {
    "GET": "ALLOW_ALL", "GET_ATTRIBUTES": "ALLOW_ALL", "LOCATE": "ALLOW_ALL",
    "ACTIVATE": "ALLOW_OWNER", "REVOKE": "ALLOW_OWNER", "DESTROY": "ALLOW_OWNER"}}}}"#;

/// The key server, its certificates, and an authority that signs for clients.
pub(super) struct KeyServer {
    folder: PathBuf,
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
    pub(super) port: u16,
    /// User and password that it wants of its clients, if any.
    account: Option<[String; 2]>,
    running: Option<Child>,
}

impl KeyServer {
    /// A server with its keys and certificates in `folder`, which it makes.
    pub(super) fn start(folder: &Path) -> Self {
        Self::start_for(folder, None)
    }

    /// The same; it wants this user and password beside a certificate.
    pub(super) fn start_for(folder: &Path, account: Option<[String; 2]>) -> Self {
        fs::create_dir(folder).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "key server authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join("server.pem"), certificate.pem()).unwrap();
        fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
        fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        fs::create_dir(folder.join("policies")).unwrap();
        fs::write(folder.join("policies/hosts.json"), POLICY).unwrap();
        let issuer = Arc::new(issuer);
        let folder = folder.to_owned();
        let mut server = Self { folder, issuer, port: 0, account, running: None };
        server.up();
        server
    }

    /// Another server with the same keys.
    pub(super) fn twin(&self) -> Self {
        let (folder, issuer) = (self.folder.clone(), Arc::clone(&self.issuer));
        let account = self.account.clone();
        let mut twin = Self { folder, issuer, port: 0, account, running: None };
        twin.up();
        twin
    }

    /// Runs it, at the port that it had before.
    pub(super) fn up(&mut self) {
        let path = |name: &str| self.folder.join(name);
        let mut child = Command::new(python())
            .arg(project().join("kms-client/tests/pykmip_server.py"))
            .args(["server.pem", "server.key", "ca.pem"].map(path))
            .args([self.folder.clone(), path("keys.db")])
            .args(["stock", &self.port.to_string()])
            .args(self.account.iter().flatten())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        self.running = Some(child);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = receiver.recv_timeout(wait::STEP * 2).unwrap_or_default();
        self.port = line.trim().parse().unwrap();
    }

    /// Kills it, as a crash would.
    pub(super) fn down(&mut self) {
        if let Some(mut child) = self.running.take() {
            let group = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap());
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = child.wait();
        }
    }

    /// The certificate that answers a request.
    pub(super) fn sign(&self, request: &str) -> String {
        let request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.signed_by(&self.issuer).unwrap().pem()
    }

    /// Certificate and private key that the server's side made for a client, as two files.
    pub(super) fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind: &str| self.folder.join(format!("{name}.{kind}"));
        fs::write(path("pem"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        fs::set_permissions(path("key"), fs::Permissions::from_mode(0o600)).unwrap();
        (path("pem"), path("key"))
    }

    /// Has it take clients with this certificate as well; it must be started anew.
    pub(super) fn admit(&mut self, certificate: &str) {
        self.down();
        let trusted = fs::read_to_string(self.folder.join("ca.pem")).unwrap();
        fs::write(self.folder.join("ca.pem"), trusted + "\n" + certificate).unwrap();
        self.up();
    }

    /// Whether its log tells of a client with this name.
    pub(super) fn has_seen(&self, name: &str) -> bool {
        let log = fs::read_to_string(self.folder.join("pykmip.log")).unwrap_or_default();
        log.contains(&format!("Session client identity: {name}"))
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.down();
    }
}

/// Python of target/venv, which tools/test makes, or the one on PATH.
fn python() -> PathBuf {
    let venv = project().join("target/venv/bin/python3");
    if venv.is_file() { venv } else { PathBuf::from("python3") }
}

/// `true`, visibly, when Python lacks PyKMIP.
pub(super) fn skipped(test: &str) -> bool {
    let found = Command::new(python()).args(["-W", "ignore", "-c", "import kmip"]).output();
    let there = found.is_ok_and(|output| output.status.success());
    if !there {
        let text =
            format!("SKIPPED {test}: needs Python's pykmip (tools/test makes target/venv)\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    }
    !there
}
