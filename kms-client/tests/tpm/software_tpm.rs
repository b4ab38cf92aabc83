//! A TPM in software with a state of its own, and what tests do to it behind our back.

use kms_client::native::Keeper;
use kms_client::native::tpm::Address;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long one sealing may take here: the machine may be busy.
pub(crate) const WAIT: Duration = Duration::from_secs(60);

/// swtpm, ended when it is dropped.
pub(crate) struct SoftwareTpm {
    folder: TempDir,
    running: Option<Child>,
}

impl SoftwareTpm {
    /// A new TPM; `None`, said aloud, where there is no swtpm.
    pub(crate) fn start() -> Option<Self> {
        if Command::new("swtpm").arg("--version").output().is_err() {
            let why = b"SKIPPED: needs swtpm (tools/test installs it)\n";
            std::io::stderr().write_all(why).unwrap();
            return None;
        }
        let mut tpm = Self { folder: TempDir::new().unwrap(), running: None };
        tpm.up();
        Some(tpm)
    }

    /// Runs it, with the state that it had.
    fn up(&mut self) {
        let folder = self.folder.path().display();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={folder}"))
            .arg("--server")
            .arg(format!("type=unixio,path={}", self.socket().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.running = Some(child);
        let end = Instant::now() + WAIT;
        while UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < end, "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Off and on again: PCRs are as at the start, seeds are kept.
    pub(crate) fn reboot(&mut self) {
        self.down();
        let _ = std::fs::remove_file(self.socket());
        self.up();
    }

    pub(crate) fn down(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.running.as_ref().unwrap())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    pub(crate) fn keeper(&self) -> Keeper {
        Keeper { address: Address::Socket(self.socket()), wait: WAIT }
    }

    /// One command of a test; its answer must be a success.
    fn command(&self, body: &str) {
        let body = hex::decode(body).unwrap();
        let size = u32::try_from(body.len() + 6).unwrap();
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(&[&[0x80, 0x02][..], &size.to_be_bytes(), &body].concat()).unwrap();
        let mut header = [0; 10];
        stream.read_exact(&mut header).unwrap();
        assert_eq!(header[6..], [0; 4], "{header:02x?}");
        let rest = u32::from_be_bytes(header[2..6].try_into().unwrap()) - 10;
        stream.read_exact(&mut vec![0; usize::try_from(rest).unwrap()]).unwrap();
    }

    /// TPM2_PCR_Extend, by the SHA-256 bank, with an empty password.
    pub(crate) fn extend(&self, pcr: u8) {
        let digest = "5a".repeat(32);
        self.command(&format!("00000182000000{pcr:02x}{NO_PASSWORD}00000001000b{digest}"));
    }

    /// TPM2_DictionaryAttackParameters: no failed authorisation at all, so that it is in lockout from now on.
    pub(crate) fn lock_out(&self) {
        self.command(&format!("0000013a4000000a{NO_PASSWORD}000000000000100000001000"));
    }

    /// TPM2_HierarchyChangeAuth: a password for the owner.
    pub(crate) fn protect_owner(&self) {
        self.command(&format!("0000012940000001{NO_PASSWORD}000411223344"));
    }

    /// TPM2_Clear by the platform: a new seed for the storage hierarchy.
    pub(crate) fn clear(&self) {
        self.command(&format!("000001264000000c{NO_PASSWORD}"));
    }
}

/// Size and authorisation area of an empty password.
const NO_PASSWORD: &str = "00000009400000090000000000";

impl Drop for SoftwareTpm {
    fn drop(&mut self) {
        self.down();
    }
}
