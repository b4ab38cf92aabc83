//! The real program: set up, started, asked over TLS, stopped, and started again.

use controld::pki::{JoinToken, new_request};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take; a loaded machine is slow.
const WAIT: Duration = Duration::from_secs(60);

struct Site {
    dir: tempfile::TempDir,
}

/// A running controld, ended with it.
struct Running {
    child: Child,
    address: String,
}

/// Certificate and key, PEM.
type Pair = (String, String);

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_controld")).args(arguments).output().unwrap()
}

impl Site {
    fn new() -> Self {
        Self::with("ctl1", "")
    }

    /// With another name, and more in the configuration.
    fn with(name: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let text = format!(
            "site = \"main\"\nname = {name:?}\nnames = [\"localhost\", \"127.0.0.1\"]\nlisten = \"127.0.0.1:0\"\nstate_dir = {state:?}\n{more}"
        );
        std::fs::write(dir.path().join("controld.toml"), text).unwrap();
        Self { dir }
    }

    fn config(&self) -> String {
        self.dir.path().join("controld.toml").to_str().unwrap().to_owned()
    }

    fn state(&self, file: &str) -> PathBuf {
        self.dir.path().join("state").join(file)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.state(file)).unwrap()
    }

    fn init(&self) -> Output {
        program(&["init", "--config", &self.config(), "--admin", "anna"])
    }

    fn admin(&self) -> Pair {
        (self.read("anna.pem"), self.read("anna.key"))
    }

    fn start(&self) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_controld"))
            .args(["--config", &self.config()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut all = String::new();
        let address = loop {
            let mut line = String::new();
            let read = said.read_line(&mut line).unwrap();
            assert!(read > 0, "controld ended: {all}");
            all.push_str(&line);
            if let Some((_, address)) = line.split_once("ready on ") {
                break address.trim().to_owned();
            }
        };
        // Read on, so that it never waits for a full pipe.
        std::thread::spawn(move || said.lines().for_each(drop));
        Running { child, address }
    }
}

impl Running {
    /// One request on a connection of its own.
    fn ask(&self, ca: &str, pair: Option<&Pair>, head: &str, body: &Value) -> (u16, Value) {
        let answer = self.try_ask(ca, pair, head, body).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn try_ask(
        &self,
        ca: &str,
        pair: Option<&Pair>,
        head: &str,
        body: &Value,
    ) -> std::io::Result<String> {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = rustls::ClientConnection::new(client(ca, pair), name).unwrap();
        let socket = TcpStream::connect(&self.address)?;
        socket.set_read_timeout(Some(WAIT))?;
        let mut stream = rustls::StreamOwned::new(tls, socket);
        let body = body.to_string();
        let length = body.len();
        let (request, headers) = head.split_once('\n').unwrap_or((head, ""));
        let headers: String = headers.lines().map(|line| format!("{line}\r\n")).collect();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: c\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(e) if answer.is_empty() => Err(e),
            _ => Ok(String::from_utf8(answer).unwrap()),
        }
    }

    fn stop(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn client(ca: &str, pair: Option<&Pair>) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match pair {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_site_is_set_up_and_hosts_join_it_over_tls() {
    let site = Site::new();
    let made = site.init();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let again = site.init();
    assert!(!again.status.success(), "nothing is made twice");
    let (ca, admin) = (site.read("ca.pem"), site.admin());
    let running = site.start();
    // Nobody, a token that is none, and the administrator.
    let hosts = |pair, headers: &str| {
        running.ask(&ca, pair, &format!("GET /v1/hosts{headers}"), &json!({}))
    };
    let nobody = hosts(None, "");
    assert_eq!((nobody.0, &nobody.1["code"]), (403, &json!("denied")));
    assert_eq!(hosts(None, "\nauthorization: Bearer coffer-token.x.y").0, 403);
    assert_eq!(hosts(Some(&admin), "").0, 200);
    assert_eq!(running.ask(&ca, None, "GET /v1/openapi.json", &json!({})).0, 200);
    assert_eq!(running.ask(&ca, Some(&admin), "PUT /v1/clusters/berlin", &json!({})).0, 200);
    // A host joins: it knows the authority by the token before it sends anything.
    let invite = "POST /v1/clusters/berlin/join-tokens\ncoffer-why: new rack";
    let (status, made) = running.ask(&ca, Some(&admin), invite, &json!({ "host": "h1" }));
    assert_eq!(status, 200, "{made}");
    let token: JoinToken = made["token"].as_str().unwrap().parse().unwrap();
    let der = CertificateDer::from_pem_slice(ca.as_bytes()).unwrap();
    assert_eq!(token.ca, controld::pki::fingerprint(&der));
    let request = new_request().unwrap();
    let body = json!({ "secret": token.secret(), "request": request.certificate });
    let (status, joined) = running.ask(&ca, None, "POST /v1/join", &body);
    assert_eq!(status, 200, "{joined}");
    assert_eq!(running.ask(&ca, None, "POST /v1/join", &body).0, 403, "once");
    let host = (joined["certificate"].as_str().unwrap().to_owned(), request.key.to_string());
    let publish =
        |pair| running.ask(&ca, pair, "POST /v1/host/publish", &json!({ "hpke_key": "ab" }));
    assert_eq!(publish(Some(&host)).0, 200);
    assert_eq!(publish(Some(&admin)).0, 403, "an administrator is no host");
    assert_eq!(hosts(Some(&host), "").0, 403, "a host is no administrator");
    // A certificate of another authority does not get in at all.
    let other = Site::new();
    assert!(other.init().status.success());
    let foreign = running.try_ask(&ca, Some(&other.admin()), "GET /v1/hosts", &json!({}));
    assert!(foreign.is_err(), "{foreign:?}");
    let wrong = running.try_ask(&other.read("ca.pem"), None, "GET /v1/hosts", &json!({}));
    assert!(wrong.is_err(), "a client notices another server");
    assert!(running.stop());
    let checked = program(&["audit-verify", site.state("audit").to_str().unwrap()]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains(" hold. The last one is "));
    let log = lines(&site.state("audit"));
    assert!(log.contains("\"why\":\"new rack\"") && log.contains("\"host.join\""));
    for secret in [token.secret(), request.key.as_str(), &admin.1] {
        assert!(!log.contains(secret), "no secret is in the log");
    }
}

fn lines(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn a_kill_loses_nothing_and_a_changed_log_is_noticed() {
    let site = Site::new();
    assert!(site.init().status.success());
    let (ca, admin) = (site.read("ca.pem"), site.admin());
    let running = site.start();
    for number in 0..5 {
        let put = format!("PUT /v1/clusters/c{number}");
        assert_eq!(running.ask(&ca, Some(&admin), &put, &json!({})).0, 200);
    }
    running.kill();
    let running = site.start();
    let (_, list) = running.ask(&ca, Some(&admin), "GET /v1/clusters", &json!({}));
    assert_eq!(list["items"].as_array().unwrap().len(), 5);
    let (_, report) = running.ask(&ca, Some(&admin), "GET /v1/audit/verify", &json!({}));
    assert_eq!((&report["holds"], &report["report"]["last"]["seq"]), (&json!(true), &json!(10)));
    let head = format!("10:{}", report["report"]["last"]["hash"].as_str().unwrap());
    assert!(running.stop());
    // The last line is taken away: the chain holds, the head does not.
    let path = site.state("audit").join(format!("{:016x}.jsonl", 1));
    let whole = std::fs::read_to_string(&path).unwrap();
    let cut: String = whole.lines().take(9).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, &cut).unwrap();
    let folder = site.state("audit");
    let verify = |more: &[&str]| {
        let mut all = vec!["audit-verify", folder.to_str().unwrap()];
        all.extend(more);
        program(&all)
    };
    assert!(verify(&[]).status.success());
    let told = verify(&["--head", &head]);
    assert_eq!(told.status.code(), Some(9));
    assert!(text(&told.stderr).contains("its end is missing"), "{}", text(&told.stderr));
    let refused = program(&["--config", &site.config()]);
    assert_eq!(refused.status.code(), Some(9), "{}", text(&refused.stderr));
    std::fs::write(&path, whole.replace("\"c3\"", "\"c4\"").replace("cluster c3", "cluster c4"))
        .unwrap();
    let told = verify(&[]);
    assert!(text(&told.stderr).contains("was changed"), "{}", text(&told.stderr));
    std::fs::write(&path, &whole).unwrap();
    assert!(verify(&["--head", &head]).status.success());
    assert!(site.start().stop());
}

#[test]
fn a_certificate_that_ends_or_does_not_fit_is_made_anew() {
    let site = Site::new();
    assert!(site.init().status.success());
    let before = site.read("controld.pem");
    assert!(site.start().stop());
    assert_eq!(site.read("controld.pem"), before);
    // As after a crash between the two files.
    let other = Site::new();
    assert!(other.init().status.success());
    std::fs::copy(other.state("controld.key"), site.state("controld.key")).unwrap();
    let running = site.start();
    let (ca, admin) = (site.read("ca.pem"), site.admin());
    assert_eq!(running.ask(&ca, Some(&admin), "GET /v1/hosts", &json!({})).0, 200);
    assert_ne!(site.read("controld.pem"), before);
    assert!(running.stop());
}

/// Two programs, one authority, one etcd of three nodes, one of which is killed.
#[test]
fn two_controlds_share_the_work_in_etcd() {
    if !crate::etcd::is_there() {
        return;
    }
    let mut cluster = crate::etcd::Cluster::start(3, None);
    let leader = cluster.leader();
    let etcd = format!("[etcd]\nendpoints = {:?}\n", cluster.urls());
    let first = Site::with("ctl1", &etcd);
    assert!(first.init().status.success());
    let files = format!(
        "[ca]\ncertificate = {:?}\nkey = {:?}\n",
        first.state("ca.pem"),
        first.state("ca.key")
    );
    let second = Site::with("ctl2", &format!("{files}{etcd}"));
    let made = second.init();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let (ca, admin) = (first.read("ca.pem"), first.admin());
    let (one, two) = (first.start(), second.start());
    assert_eq!(one.ask(&ca, Some(&admin), "PUT /v1/clusters/berlin", &json!({})).0, 200);
    let invite = "POST /v1/clusters/berlin/join-tokens";
    let (_, made) = one.ask(&ca, Some(&admin), invite, &json!({ "host": "h1" }));
    let token: JoinToken = made["token"].as_str().unwrap().parse().unwrap();
    cluster.kill(leader);
    cluster.leader();
    // The token was made at one, is used at the other, and is used at both.
    let request = new_request().unwrap().certificate;
    let body = json!({ "secret": token.secret(), "request": request });
    assert_eq!(two.ask(&ca, None, "POST /v1/join", &body).0, 200);
    assert_eq!(one.ask(&ca, None, "POST /v1/join", &body).0, 403);
    let (_, hosts) = one.ask(&ca, Some(&admin), "GET /v1/hosts", &json!({}));
    assert_eq!(hosts["items"][0]["record"]["name"], "h1");
    assert!(one.stop() && two.stop());
    for site in [&first, &second] {
        let checked = program(&["audit-verify", site.state("audit").to_str().unwrap()]);
        assert!(checked.status.success(), "each has a log of its own");
    }
}

#[test]
fn the_program_says_what_is_wrong() {
    let site = Site::new();
    let refused = program(&["--config", &site.config()]);
    assert!(!refused.status.success());
    let missing = program(&["--config", "/nonexistent/controld.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("/nonexistent/controld.toml"));
    assert!(program(&["check-config", "--config", &site.config()]).status.success());
    assert!(text(&program(&["sample-config"]).stdout).contains("[limits]"));
    let document: Value = serde_json::from_slice(&program(&["openapi"]).stdout).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let wrong = program(&["audit-verify", "/nonexistent", "--head", "x"]);
    assert_eq!(wrong.status.code(), Some(2));
}
