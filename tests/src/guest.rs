//! A real guest: the disk that tools/guest/build makes, and QEMU that runs it without KVM.
//!
//! Owns the QEMU process and the lines of its serial console. Must not know what serves the disk.

use crate::binaries::project;
use crate::wait;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// What every line of the guest's report starts with.
const REPORT: &str = "COFFER-GUEST: ";

/// Seconds for which QEMU tries to reach a server that went away, before a request fails.
const RECONNECT_SECONDS: u32 = 60;

/// The parts of the guest.
#[derive(Debug)]
pub struct Files {
    /// Raw ext4 disk.
    pub disk: PathBuf,
    /// Kernel for QEMU's `-kernel`.
    pub kernel: PathBuf,
    /// Its initrd.
    pub initrd: PathBuf,
}

/// The guest, built when it is not there yet.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let output = Command::new(project().join("tools/guest/build"))
            .output()
            .expect("tools/guest/build runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let folder = PathBuf::from(said.lines().last().expect("it prints the folder"));
        Files {
            disk: folder.join("guest.raw"),
            kernel: folder.join("vmlinuz"),
            initrd: folder.join("initrd.img"),
        }
    })
}

/// QEMU with a running guest. Dropping it ends it by SIGKILL.
#[derive(Debug)]
pub struct Guest {
    qemu: Child,
    serial: Arc<Mutex<String>>,
}

impl Guest {
    /// Boots the guest from the NBD export `disk` at `socket`, with `job` for its init: `coffer.do=... ...`.
    ///
    /// # Panics
    /// When QEMU cannot be started.
    #[must_use]
    pub fn boot(socket: &std::path::Path, disk: &str, job: &str) -> Self {
        let blockdev = format!(
            "driver=nbd,node-name=root,server.type=unix,server.path={},export={disk},reconnect-delay={RECONNECT_SECONDS}",
            socket.display()
        );
        Self::boot_with(&["-blockdev", &blockdev, "-device", "virtio-blk-pci,drive=root"], job)
    }

    /// Boots the guest with a root disk given by QEMU arguments.
    ///
    /// # Panics
    /// When QEMU cannot be started.
    #[must_use]
    pub fn boot_with(disk: &[&str], job: &str) -> Self {
        let files = files();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "512"])
            .args(["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&files.kernel)
            .arg("-initrd")
            .arg(&files.initrd)
            .args([
                "-append",
                &format!("root=/dev/vda console=ttyS0 quiet panic=-1 init=/sbin/coffer-init {job}"),
            ])
            .args(disk);
        let mut qemu = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("qemu");
        let serial = Arc::new(Mutex::new(String::new()));
        collect(qemu.stdout.take().expect("a pipe"), &serial);
        collect(qemu.stderr.take().expect("a pipe"), &serial);
        Self { qemu, serial }
    }

    /// Everything on the console so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.serial.lock().map(|text| text.clone()).unwrap_or_default()
    }

    /// The guest's report so far, one entry a line.
    #[must_use]
    pub fn report(&self) -> Vec<String> {
        let console = self.console();
        // Whole lines only: the last one may still be under way.
        let whole = console.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter_map(|line| line.split_once(REPORT));
        lines.map(|(_, words)| words.trim_end().to_owned()).collect()
    }

    /// Waits until the guest reports a line that starts with `words`, and gives back that line.
    ///
    /// # Panics
    /// When it reports an error, ends, or takes longer than `wait::GUEST`.
    pub fn wait_for(&mut self, words: &str) -> String {
        wait::until(&format!("guest reports `{words}`"), wait::GUEST, || {
            let ended = self.qemu.try_wait().ok().flatten();
            let report = self.report();
            if let Some(line) = report.iter().find(|line| line.starts_with(words)) {
                return Some(line.clone());
            }
            let error = report.iter().find(|line| line.starts_with("error"));
            assert!(error.is_none() && ended.is_none(), "guest ({ended:?}): {}", self.console());
            None
        })
    }

    /// Number of the last file that the load has synced.
    #[must_use]
    pub fn synced(&self) -> u32 {
        let report = self.report();
        let numbers = report.iter().filter_map(|line| line.strip_prefix("synced ")?.parse().ok());
        numbers.max().unwrap_or(0)
    }

    /// Waits until the guest has powered off, and gives back its report.
    ///
    /// # Panics
    /// When it reports an error or does not end.
    pub fn finish(mut self) -> Vec<String> {
        self.wait_for("done");
        wait::until("guest powers off", wait::STEP, || self.qemu.try_wait().ok().flatten());
        self.report()
    }

    /// Ends QEMU by SIGKILL: the power cut of the guest.
    pub fn kill(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        // What was on its way through the pipe is still read.
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn collect(mut pipe: impl Read + Send + 'static, serial: &Arc<Mutex<String>>) {
    let serial = Arc::clone(serial);
    std::thread::spawn(move || {
        let mut buffer = [0_u8; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if let Ok(mut text) = serial.lock() {
                text.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        }
    });
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
