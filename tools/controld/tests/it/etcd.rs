//! Real etcd nodes on loopback, for a test and no longer.
//!
//! Owns their processes, folders and ports; must not know what is tested. Dropping a [`Cluster`] kills its nodes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a cluster may take to have a leader; a loaded machine needs more than etcd does.
const READY_WAIT: Duration = Duration::from_secs(60);

/// Whether the program is installed; says so when it is not.
pub(crate) fn is_there() -> bool {
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        // Past the capture of the test runner: a skipped test is told in its log.
        let said = b"SKIPPED: no program etcd (Debian package etcd-server)\n";
        std::io::Write::write_all(&mut std::io::stderr(), said).unwrap();
    }
    found
}

/// PEM files of a node and of its clients.
pub(crate) struct NodeTls {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

struct Node {
    child: Option<Child>,
    name: String,
    client: u16,
    peer: u16,
}

/// Nodes that form one cluster.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    dir: tempfile::TempDir,
    tls: Option<NodeTls>,
}

impl Cluster {
    /// Starts so many nodes, and waits until each of them answers.
    pub(crate) fn start(count: usize, tls: Option<NodeTls>) -> Self {
        let ports = free_ports(count * 2);
        let nodes = (0..count).map(|n| Node {
            child: None,
            name: format!("n{n}"),
            client: ports[n * 2],
            peer: ports[n * 2 + 1],
        });
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { nodes: nodes.collect(), dir, tls };
        (0..count).for_each(|n| cluster.start_node(n));
        cluster
    }

    /// Starts a node that does not run, with what it had on disk.
    pub(crate) fn start_node(&mut self, index: usize) {
        let all: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("{}=http://127.0.0.1:{}", node.name, node.peer))
            .collect();
        let node = &self.nodes[index];
        let client = self.url(index);
        let peer = format!("http://127.0.0.1:{}", node.peer);
        let folder = self.dir.path().join(&node.name);
        let log = std::fs::File::create(self.dir.path().join(format!("{}.log", node.name)));
        let mut command = Command::new("etcd");
        command
            .args(["--name", &node.name, "--data-dir", folder.to_str().unwrap()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
            .args(["--heartbeat-interval", "100", "--election-timeout", "1000"])
            .args(["--logger", "zap", "--log-level", "warn"]);
        if let Some(tls) = &self.tls {
            let path = |path: &Path| path.to_str().unwrap().to_owned();
            command
                .args(["--cert-file", &path(&tls.certificate), "--key-file", &path(&tls.key)])
                .args(["--trusted-ca-file", &path(&tls.ca), "--client-cert-auth"]);
        }
        let child = command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        self.nodes[index].child = Some(child);
    }

    /// Kills a node, as a power cut does.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.nodes[index].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn url(&self, index: usize) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.nodes[index].client)
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        (0..self.nodes.len()).map(|n| self.url(n)).collect()
    }

    /// The node that leads, once there is one and the nodes that run agree. Only without TLS.
    pub(crate) fn leader(&self) -> usize {
        let end = Instant::now() + READY_WAIT;
        loop {
            let found: Vec<_> = (0..self.nodes.len())
                .filter(|n| self.nodes[*n].child.is_some())
                .map(|n| self.status(n))
                .collect();
            if let Some(Some((_, leader))) = found.first()
                && leader != "0"
                && found.iter().flatten().filter(|(_, l)| l == leader).count() == found.len()
            {
                let leads = |n: &usize| self.status(*n).is_some_and(|(id, _)| id == *leader);
                if let Some(n) = (0..self.nodes.len()).find(leads) {
                    return n;
                }
            }
            assert!(Instant::now() < end, "no leader; {}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Id of the node, and of whom it takes for the leader.
    fn status(&self, index: usize) -> Option<(String, String)> {
        let answer = post(self.nodes[index].client, "/v3/maintenance/status").ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let body: serde_json::Value = serde_json::from_str(body).ok()?;
        let leader = body["leader"].as_str().unwrap_or("0").to_owned();
        Some((body["header"]["member_id"].as_str()?.to_owned(), leader))
    }

    /// What the nodes said.
    pub(crate) fn logs(&self) -> String {
        let logs = self.nodes.iter().map(|node| {
            let path = self.dir.path().join(format!("{}.log", node.name));
            std::fs::read_to_string(path).unwrap_or_default()
        });
        logs.collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|n| self.kill(n));
    }
}

fn post(port: u16, path: &str) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "POST {path} HTTP/1.0\r\nContent-Length: 2\r\n\r\n{{}}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Ports that were free a moment ago; all are held until the last one is known.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
}
