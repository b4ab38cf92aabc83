//! A host whose keys come from PyKMIP: trust set up by the verbs, VMs that use its keys, and the server lost and found again.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use tests::binaries::project;
use tests::host::Host;
use tests::{needs, wait};

/// The key server, its certificates, and an authority that signs for clients.
struct KeyServer {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
    port: u16,
    running: Option<Child>,
}

impl KeyServer {
    fn start(folder: &Path) -> Self {
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
        let mut server = Self { folder: folder.to_owned(), issuer, port: 0, running: None };
        server.up();
        server
    }

    /// Runs it, at the port that it had before.
    fn up(&mut self) {
        let path = |name: &str| self.folder.join(name);
        let mut child = Command::new(python())
            .arg(project().join("kms-client/tests/pykmip_server.py"))
            .args(["server.pem", "server.key", "ca.pem"].map(path))
            .args([self.folder.clone(), path("keys.db")])
            .args(["stock", &self.port.to_string()])
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
    fn down(&mut self) {
        if let Some(mut child) = self.running.take() {
            let group = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap());
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = child.wait();
        }
    }

    /// The certificate that answers a request.
    fn sign(&self, request: &str) -> String {
        let request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.signed_by(&self.issuer).unwrap().pem()
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
fn skipped(test: &str) -> bool {
    let found = Command::new(python()).args(["-W", "ignore", "-c", "import kmip"]).output();
    let there = found.is_ok_and(|output| output.status.success());
    if !there {
        let text =
            format!("SKIPPED {test}: needs Python's pykmip (tools/test makes target/venv)\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    }
    !there
}

/// A host that knows the server, but not yet whom to trust, nor has it a certificate.
fn host_of(server: impl FnOnce(&Path) -> KeyServer) -> (Host, KeyServer) {
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    let server = server(&host.scratch().join("kms"));
    host.options.config = format!(
        "[provider.kmip]\ntimeout_seconds = 10\n[[provider.kmip.server]]\nhost = \"127.0.0.1\"\n\
         port = {}\n",
        server.port
    );
    host.write_config();
    host.init();
    host.up();
    (host, server)
}

/// Certificate and trust by the verbs.
fn set_up(host: &Host, server: &KeyServer) {
    let request = host.coffer(&["key", "provider", "csr", "host1"]).ok();
    let signed = host.scratch().join("host1.pem");
    fs::write(&signed, server.sign(&request)).unwrap();
    host.coffer(&["key", "provider", "import", signed.to_str().unwrap()]).ok();
    let shown = host.json(&["key", "provider", "trust", "127.0.0.1"]);
    assert_eq!(shown["pinned"], false);
    let wrong = "00".repeat(32);
    host.coffer(&["key", "provider", "trust", "127.0.0.1", "--pin", &wrong])
        .refused(6, &[shown["sha256"].as_str().unwrap()]);
    let seen = shown["sha256"].as_str().unwrap();
    let pinned = host.json(&["key", "provider", "trust", "127.0.0.1", "--pin", seen]);
    assert_eq!(pinned["pinned"], true);
}

#[test]
fn keys_come_from_a_kmip_server() {
    needs!(Root);
    if skipped("kmip::keys_come_from_a_kmip_server") {
        return;
    }
    let (mut host, mut server) = host_of(KeyServer::start);
    // Nothing is set up yet: no key, and the status says what is missing.
    host.coffer(&["vm", "create", "web01"]).refused(8, &["client certificate", "client.pem"]);
    let status = host.coffer(&["key", "provider", "status"]).ok();
    assert!(status.contains("client.pem"), "{status}");
    host.coffer(&["key", "provider", "trust", "other.example"])
        .refused(4, &["none of the servers"]);
    set_up(&host, &server);

    let status = host.json(&["key", "provider", "status"]);
    let provider = &status[0];
    assert_eq!((&provider["name"], &provider["default"]), (&"kmip".into(), &true.into()));
    assert_eq!(provider["servers"][0]["key_fetched"], true, "{status}");
    assert_eq!(provider["servers"][0]["trusts_us"], true, "{status}");

    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let shown = host.json(&["vm", "show", "web01"]);
    assert!(shown["key_ids"][0].as_str().unwrap().starts_with("kmip/"), "{shown}");

    // The server is lost: the VM runs on, but what needs a key that is not here waits for it.
    server.down();
    let status = host.json(&["key", "provider", "status"]);
    assert_eq!(status[0]["available"], false, "{status}");
    assert_eq!(status[0]["servers"][0]["reason"], "KeyStateClusterUnreachable");
    host.coffer(&["vm", "create", "web02"]).refused(8, &["nobody listens there"]);
    assert_eq!(host.state("web01"), "running");
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.coffer(&["vm", "lock", "web01"]).ok();
    assert_eq!(host.stop(), Some(0));
    host.up();
    host.coffer(&["vm", "unlock", "web01"]).refused(7, &["provider-unavailable"]);

    // It is back, and so is the VM.
    server.up();
    wait::until("the key can be had again", wait::STEP * 2, || {
        (host.coffer(&["vm", "unlock", "web01"]).code == 0).then_some(())
    });
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    host.coffer(&["key", "rotate"]).ok();
}
