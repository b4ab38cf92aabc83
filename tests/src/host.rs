//! One host of a test: a hostd with folders of its own, and `coffer` talking to it.
//!
//! Owns the daemon and everything that it starts. Dropping a `Host` ends hostd and its vmd processes by SIGKILL and
//! unmounts what they left; after a panic it prints the end of hostd's log first.

use crate::binaries::program;
use crate::command::{Said, run_command};
use crate::process;
use crate::scratch::Scratch;
use crate::wait;
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The passphrase of the key file of every test host.
pub const PASSPHRASE: &str = "correct horse battery staple test";

/// How long one `coffer` command may take: imports and exports of a guest disk among them.
const COFFER: Duration = Duration::from_secs(120);

/// How hostd is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Start with `--demo`: keys are made without a backup.
    pub demo: bool,
    /// A command that starts hostd, such as `prlimit --memlock=65536`.
    pub wrapper: Vec<String>,
    /// More lines for the top of the configuration.
    pub config: String,
    /// More lines for `[provider.native]`.
    pub native: String,
    /// No source of the passphrase is configured.
    pub without_passphrase: bool,
}

/// A test host.
#[derive(Debug)]
pub struct Host {
    /// How hostd is started next time.
    pub options: Options,
    scratch: Scratch,
    store: PathBuf,
    daemon: Option<Child>,
}

impl Host {
    /// A running host in demo mode with an empty datastore.
    ///
    /// # Panics
    /// When hostd does not come up.
    #[must_use]
    pub fn start() -> Self {
        let mut host = Self::prepare(|scratch| scratch.join("store"));
        host.init();
        host.up();
        host
    }

    /// A host that has no key file yet and does not run; `store` chooses the folder of its datastore.
    ///
    /// # Panics
    /// When its folders cannot be made.
    #[must_use]
    pub fn prepare(store: impl FnOnce(&Scratch) -> PathBuf) -> Self {
        let scratch = Scratch::new();
        let store = store(&scratch);
        fs::create_dir_all(&store).expect("a datastore folder");
        fs::create_dir_all(scratch.join("state")).expect("a state folder");
        let options = Options { demo: true, ..Options::default() };
        let host = Self { options, scratch, store, daemon: None };
        host.write_passphrase(PASSPHRASE);
        host.write_config();
        host
    }

    /// Makes the key file.
    ///
    /// # Panics
    /// When that fails.
    pub fn init(&self) {
        let mut command = Command::new(program("hostd"));
        command.arg("init").arg("--config").arg(self.config());
        run_command(command, None, wait::STEP).ok();
    }

    /// Makes a backup the key file of this host.
    #[must_use]
    pub fn restore(&self, backup: &Path) -> Said {
        let mut command = Command::new(program("hostd"));
        command.arg("restore").arg(backup).arg("--config").arg(self.config());
        run_command(command, None, wait::STEP)
    }

    /// Replaces the passphrase that hostd is given.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_passphrase(&self, words: &str) {
        let path = self.passphrase_file();
        fs::write(&path, format!("{words}\n")).expect("a passphrase file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    }

    /// Writes the configuration anew from the options.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_config(&self) {
        let passphrase = match self.options.without_passphrase {
            true => String::new(),
            false => format!("passphrase_file = {:?}\n", self.passphrase_file()),
        };
        let text = format!(
            "run_dir = {:?}\nstate_dir = {:?}\n{}\n[[datastore]]\nname = \"local\"\npath = {:?}\n\
             [provider.native]\n{passphrase}{}\n",
            self.run_dir(),
            self.state_dir(),
            self.options.config,
            self.store,
            self.options.native,
        );
        fs::write(self.config(), text).expect("a configuration");
    }

    /// Starts hostd and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn up(&mut self) {
        let child = self.spawn();
        self.daemon = Some(child);
        wait::until("hostd answers", wait::STEP, || {
            let ended = self.daemon.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "hostd ended with {ended:?}:\n{}", self.log());
            (self.coffer(&["host", "status"]).code == 0).then_some(())
        });
    }

    /// Starts hostd when it is expected to refuse, and gives back what it said.
    ///
    /// # Panics
    /// When it neither ends within a step nor can be started.
    #[must_use]
    pub fn up_refused(&self) -> Said {
        run_command(self.daemon_command(), None, wait::STEP)
    }

    /// Starts hostd when its keys cannot be had. It may refuse to start, or run with all VMs locked; gives back
    /// what it says about them: its log, and the status of host and keys when it runs.
    ///
    /// # Panics
    /// When it neither ends nor answers within a step.
    #[must_use]
    pub fn up_refused_or_locked(&mut self) -> String {
        let mut daemon = self.spawn();
        let ended = wait::until("hostd ends or answers", wait::STEP, || {
            if let Some(status) = daemon.try_wait().ok().flatten() {
                return Some(Some(status));
            }
            (self.coffer(&["host", "status"]).code == 0).then_some(None)
        });
        if let Some(status) = ended {
            assert!(!status.success(), "hostd ended without an error:\n{}", self.log());
            return self.log();
        }
        self.daemon = Some(daemon);
        let status = self.coffer(&["host", "status"]).ok() + &self.coffer(&["key", "status"]).ok();
        self.log() + &status
    }

    fn spawn(&self) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file());
        let log = log.expect("a log file");
        let mut command = self.daemon_command();
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a copy")).stderr(log);
        command.spawn().expect("hostd starts")
    }

    fn daemon_command(&self) -> Command {
        let hostd = program("hostd");
        let _ = program("vmd");
        let mut command = match self.options.wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(hostd);
                command
            }
            None => Command::new(hostd),
        };
        command.arg("--config").arg(self.config());
        if self.options.demo {
            command.arg("--demo");
        }
        command
    }

    /// Ends hostd by SIGKILL; its vmd processes go on.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Asks hostd to end, waits for it, and gives back its exit code.
    ///
    /// # Panics
    /// When it does not end within a step.
    pub fn stop(&mut self) -> Option<i32> {
        let mut daemon = self.daemon.take()?;
        process::send(i32::try_from(daemon.id()).expect("a pid"), Signal::TERM);
        let status = wait::until("hostd ends", wait::STEP, || daemon.try_wait().ok().flatten());
        status.code()
    }

    /// Process id of hostd, when it runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.daemon.as_ref().and_then(|daemon| i32::try_from(daemon.id()).ok())
    }

    /// Process ids of the vmd processes of this host.
    #[must_use]
    pub fn vmds(&self) -> Vec<i32> {
        process::of_folder("vmd", self.scratch.path(), self.pid())
    }

    /// Ends every vmd of this host by SIGKILL, and waits until they are gone.
    ///
    /// # Panics
    /// When one stays.
    pub fn kill_vmds(&self) {
        let vmds = self.vmds();
        vmds.iter().for_each(|pid| process::kill(*pid));
        wait::until_true("killed vmds end", || !vmds.iter().any(|pid| process::is_alive(*pid)));
    }

    /// Runs `coffer` against this host.
    #[must_use]
    pub fn coffer(&self, args: &[&str]) -> Said {
        let mut command = Command::new(program("coffer"));
        command.env("COFFER_SOCKET", self.run_dir().join("hostd.sock")).args(args);
        run_command(command, None, COFFER)
    }

    /// Starts `coffer` against this host, for a test that does not wait for its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn_coffer(&self, args: &[&str]) -> Child {
        let mut command = Command::new(program("coffer"));
        command.env("COFFER_SOCKET", self.run_dir().join("hostd.sock")).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("coffer starts")
    }

    /// Runs `coffer --json` and reads what it says.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        self.coffer(&all).json()
    }

    /// State of a VM, as `vm show` names it.
    ///
    /// # Panics
    /// When it cannot be shown.
    #[track_caller]
    #[must_use]
    pub fn state(&self, vm: &str) -> String {
        self.json(&["vm", "show", vm])["state"].as_str().expect("a state").to_owned()
    }

    /// NBD URI of an attached disk.
    ///
    /// # Panics
    /// When it is not attached.
    #[must_use]
    pub fn uri(&self, vm: &str, disk: &str) -> String {
        format!("nbd+unix:///{disk}?socket={}", self.socket(vm, disk).display())
    }

    /// Path of the NBD socket of a disk.
    #[must_use]
    pub fn socket(&self, vm: &str, disk: &str) -> PathBuf {
        self.run_dir().join("vm").join(vm).join(format!("{disk}.sock"))
    }

    /// Where the home of a VM is mounted.
    #[must_use]
    pub fn home(&self, vm: &str) -> PathBuf {
        self.run_dir().join("vm").join(vm).join("home")
    }

    /// Folder of the datastore.
    #[must_use]
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// A file of a VM folder, `vm.safe` or `disks/root.disk`.
    #[must_use]
    pub fn file(&self, vm: &str, name: &str) -> PathBuf {
        self.store.join(vm).join(name)
    }

    /// The scratch folder of this host.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.scratch.join("hostd.toml")
    }

    /// Folder of the sockets.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.scratch.join("run")
    }

    /// Folder of the key file and the inventory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.scratch.join("state")
    }

    /// Key file of the native provider.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.state_dir().join("native.keys")
    }

    /// File with the passphrase of the key file.
    #[must_use]
    pub fn passphrase_file(&self) -> PathBuf {
        self.scratch.join("passphrase")
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.join("hostd.log")
    }

    /// What hostd and its vmd processes have logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("-- end of hostd's log:");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        let mut vmds = self.vmds();
        self.kill();
        vmds.extend(self.vmds());
        vmds.iter().for_each(|pid| process::kill(*pid));
        // The folder goes only when nobody writes to it any more.
        for _ in 0..250 {
            if !vmds.iter().any(|pid| process::is_alive(*pid)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Makes a file of `size` bytes whose every 8 bytes differ: the seed and their number.
///
/// # Panics
/// When it cannot be written.
pub fn write_pattern(path: &Path, size: usize, seed: u32) {
    fs::write(path, pattern(size, seed)).expect("a pattern file");
}

/// `size` bytes whose every 8 bytes differ: the seed and their number.
#[must_use]
pub fn pattern(size: usize, seed: u32) -> Vec<u8> {
    let words = (0_u32..).flat_map(|number| [seed.to_le_bytes(), number.to_le_bytes()].concat());
    words.take(size).collect()
}

/// Content of a file of at most 1 GiB.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Cuts a file, or makes it longer by zeros.
///
/// # Panics
/// When it cannot be done.
pub fn set_length(path: &Path, length: u64) {
    let file = File::options().write(true).open(path);
    file.and_then(|file| file.set_len(length))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
