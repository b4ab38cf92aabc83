//! `PostgreSQL`: hundreds of files, a log that is synced at each commit, and recovery from it.

use super::{MODES, crash, host_with_home, remount, sized};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tests::command::{Said, run_command};
use tests::host::Host;
use tests::process::{self, Signal};
use tests::skip::postgres;
use tests::talker::Talker;
use tests::{needs, wait};

/// User and group `nobody`: the server refuses root, and a user without a name.
const NOBODY: u32 = 65_534;

/// Most commits that the writer is given; it is killed long before.
const COMMITS: u32 = 20_000;

/// A cluster in the home, with its socket in a folder outside of it.
struct Cluster {
    data: PathBuf,
    sockets: PathBuf,
    server: Option<Child>,
}

impl Cluster {
    fn make(host: &Host) -> Self {
        // A home is root's alone until root says otherwise.
        fs::set_permissions(host.home("web01"), fs::Permissions::from_mode(0o711)).unwrap();
        let data = host.home("web01").join("pg");
        let sockets = host.scratch().join("sockets");
        for folder in [&data, &sockets] {
            fs::create_dir(folder).unwrap();
            chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut cluster = Self { data, sockets, server: None };
        let options = ["--no-locale", "-E", "UTF8", "-A", "trust", "-U", "t", "--data-checksums"];
        cluster.run("initdb", &options).ok();
        cluster.start();
        cluster.run("createdb", &["t"]).ok();
        cluster.run("pgbench", &["-q", "-i", "-s", "1", "t"]).ok();
        cluster.sql("CREATE TABLE told(n INT PRIMARY KEY); CREATE EXTENSION amcheck;");
        cluster
    }

    /// A program of `PostgreSQL` as `nobody`; root's group lets it into the folder of the VM.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--groups=0", "--"]);
        command.arg(postgres().unwrap().join(name)).current_dir("/");
        command.env("PGDATA", &self.data).env("PGHOST", &self.sockets).env("PGUSER", "t");
        command.env_remove("PGPORT");
        command
    }

    fn run(&self, name: &str, args: &[&str]) -> Said {
        let mut command = self.command(name);
        command.args(args);
        run_command(command, None, wait::PROGRAM)
    }

    fn sql(&self, statements: &str) -> String {
        self.run("psql", &["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements, "t"]).ok()
    }

    /// The server as a child of the test: `PostgreSQL` takes a dead one that nobody has waited for to be alive.
    fn start(&mut self) {
        let log = self.sockets.join("log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = self.command("postgres");
        command
            .args(["-c", "listen_addresses=", "-c", "autovacuum_naptime=1", "-k"])
            .arg(&self.sockets);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        self.server = Some(command.spawn().unwrap());
        wait::until("the server answers", wait::PROGRAM, || {
            let ended = self.server.as_mut().and_then(|server| server.try_wait().ok().flatten());
            assert!(ended.is_none(), "{ended:?}: {}", fs::read_to_string(&log).unwrap());
            (self.run("pg_isready", &["-q", "-d", "t"]).code == 0).then_some(())
        });
    }

    fn stop(&mut self) {
        self.run("pg_ctl", &["-w", "-t", "240", "-m", "fast", "stop"]).ok();
        self.server.take().unwrap().wait().unwrap();
    }

    /// Ends every process of the server by SIGKILL.
    fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let first = i32::try_from(server.id()).unwrap();
        // Stopped, it makes no more of them.
        process::send(first, Signal::STOP);
        let others = process::children(first);
        others.iter().for_each(|pid| process::send(*pid, Signal::KILL));
        server.kill().unwrap();
        server.wait().unwrap();
        wait::until_true("the server is gone", || {
            !others.iter().any(|pid| process::is_alive(*pid))
        });
    }

    /// A client that says each number once it is committed.
    fn writer(&self, first: u32) -> Talker {
        let mut statements = String::new();
        for n in first..first + COMMITS {
            writeln!(statements, "INSERT INTO told VALUES ({n}) RETURNING n;").unwrap();
        }
        let mut command = self.command("psql");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "t"]);
        Talker::start(command, statements)
    }

    /// Transactions that move amounts, in the background.
    fn load(&self) -> Talker {
        let mut command = self.command("pgbench");
        command.args(["-n", "-c", "3", "-j", "1", "-T", "250", "t"]);
        Talker::start(command, String::new())
    }

    /// Every number that was told is there, amounts add up, and indexes agree with their tables.
    fn check(&self, told: &[u32], when: &str) {
        let found = self.sql("SELECT n FROM told ORDER BY n");
        let found: Vec<u32> = found.lines().filter_map(|line| line.parse().ok()).collect();
        for n in told {
            assert!(found.binary_search(n).is_ok(), "{when}: {n} was told and is gone");
        }
        let sums = self.sql(
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches) \
             AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers) \
             AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)",
        );
        assert_eq!(sums, "t\n", "{when}: amounts");
        let said = self.run("pg_amcheck", &["--heapallindexed", "t"]);
        assert_eq!((said.code, said.out.as_str()), (0, ""), "{when}: {said}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn postgres_recovers_every_commit_after_its_death_and_that_of_the_vmd() {
    needs!(Root, Fuse, Postgres, Program("setpriv"));
    for mode in MODES {
        let host = host_with_home(mode);
        let mut cluster = Cluster::make(&host);
        let mut told = Vec::new();
        for round in 0..sized(2, 6) {
            let load = cluster.load();
            let mut writer = cluster.writer(round * COMMITS);
            writer.says_more(usize::try_from(sized(40, 2000)).unwrap());
            let killed_vmd = round % 2 == 1;
            if killed_vmd {
                crash(&host);
            }
            cluster.kill();
            told.extend(writer.ended().iter().filter_map(|line| line.parse::<u32>().ok()));
            drop(load);
            cluster.start();
            cluster.check(&told, &format!("{mode}, round {round}, vmd killed: {killed_vmd}"));
        }
        for rewrite in ["VACUUM FULL", "REINDEX DATABASE t", "CHECKPOINT"] {
            cluster.sql(rewrite);
        }
        cluster.stop();
        remount(&host, mode);
        cluster.run("pg_checksums", &["--check"]).ok();
        cluster.start();
        cluster.check(&told, &format!("{mode}, after a remount"));
        cluster.stop();
    }
}
