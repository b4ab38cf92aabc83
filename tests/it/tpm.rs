//! A host whose key file is sealed to a TPM (swtpm): it starts without the passphrase, and with it when the TPM refuses.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tests::host::Host;
use tests::nbd::Nbd;
use tests::{needs, wait};

/// A TPM in software, with a state of its own.
struct SoftwareTpm {
    folder: PathBuf,
    running: Option<Child>,
}

impl SoftwareTpm {
    fn start(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        let mut tpm = Self { folder, running: None };
        tpm.up();
        tpm
    }

    fn up(&mut self) {
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", self.folder.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", self.socket().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.running = Some(child);
        wait::until_true("swtpm listens", || UnixStream::connect(self.socket()).is_ok());
    }

    fn down(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(self.socket());
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("sock")
    }

    /// TPM2_PCR_Extend (TPM 2.0 Library, part 3 section 22.2) by the bank of SHA-256, with an empty password.
    fn extend(&self, pcr: u8) {
        let mut command = vec![0x80, 2, 0, 0, 0, 65, 0, 0, 1, 0x82, 0, 0, 0, pcr];
        command.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x0b]);
        command.extend([0x5a; 32]);
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(wait::STEP)).unwrap();
        stream.write_all(&command).unwrap();
        let mut answer = [0; 19];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[6..10], [0; 4], "{answer:02x?}");
    }
}

impl Drop for SoftwareTpm {
    fn drop(&mut self) {
        self.down();
    }
}

/// A host with this TPM, its VM, and 8 KiB on the disk of it.
fn host_with(tpm: &SoftwareTpm) -> Host {
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    host.options.native = format!("tpm = \"unix:{}\"\n", tpm.socket().display());
    host.write_config();
    host.init();
    host.up();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    nbd.write(4096, &[0x51; 8192]).unwrap();
    nbd.flush().unwrap();
    host
}

/// Stops hostd and its VM, and starts it again, with or without a source of the passphrase.
fn restart(host: &mut Host, with_passphrase: bool) {
    assert_eq!(host.stop(), Some(0));
    host.kill_vmds();
    host.options.without_passphrase = !with_passphrase;
    host.write_config();
    host.up();
}

#[track_caller]
fn data_is_there(host: &Host) {
    host.coffer(&["vm", "unlock", "web01"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    assert!(nbd.read(4096, 8192).unwrap() == [0x51; 8192], "the disk has other content");
}

/// The VM is locked, and this is said of it where people look.
#[track_caller]
fn locked_because(host: &Host, words: &[&str]) {
    host.coffer(&["disk", "attach", "web01", "data"]).refused(7, &["provider-unavailable"]);
    let status = host.json(&["key", "tpm", "status"]);
    assert_eq!((&status["opens"], &status["opened_by"]), (&false.into(), &().into()), "{status}");
    let keys = host.coffer(&["key", "status"]).ok();
    let (log, warnings) = (host.log(), host.coffer(&["host", "status"]).ok());
    for word in words {
        for text in [&status["detail"].to_string(), &keys, &log, &warnings] {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
    }
}

fn tpm_of(name: &str, scratch: &Path) -> SoftwareTpm {
    SoftwareTpm::start(scratch.join(name))
}

/// Where TPMs keep their state: it outlives the hosts.
fn shelf() -> tests::scratch::Scratch {
    tests::scratch::Scratch::new()
}

#[test]
fn a_sealed_host_starts_without_its_passphrase() {
    needs!(Root, Program("swtpm"));
    let shelf = shelf();
    let mut tpm = tpm_of("tpm", shelf.path());
    let mut host = host_with(&tpm);
    let before = host.json(&["key", "tpm", "status"]);
    assert_eq!((&before["sealed"], &before["opened_by"]), (&false.into(), &"passphrase".into()));
    let key_file = fs::read(host.key_file()).unwrap();
    let sealed = host.json(&["key", "tpm", "seal", "--pcrs", "7,16"]);
    assert_eq!((&sealed["opens"], &sealed["pcrs"]), (&true.into(), &serde_json::json!([7, 16])));
    assert_eq!(fs::read(host.key_file()).unwrap(), key_file, "the key file stays as it is");

    // The machine is switched off and on.
    tpm.down();
    tpm.up();
    restart(&mut host, false);
    data_is_there(&host);
    let status = host.json(&["key", "tpm", "status"]);
    assert_eq!((&status["opens"], &status["opened_by"]), (&true.into(), &"tpm".into()), "{status}");
    // All that needs the root key works: another VM, another key, another seal.
    host.coffer(&["vm", "create", "web02"]).ok();
    host.coffer(&["key", "rotate", "--vm", "web02"]).ok();
    host.coffer(&["key", "tpm", "seal"]).ok();

    host.coffer(&["key", "tpm", "remove"]).ok();
    let status = host.coffer(&["key", "tpm", "status"]).ok();
    assert!(status.contains("leaves the provider closed"), "{status}");
    host.coffer(&["key", "tpm", "remove"]).refused(4, &["there is no TPM seal"]);
    restart(&mut host, false);
    host.coffer(&["disk", "attach", "web01", "data"]).refused(7, &["provider-unavailable"]);
    restart(&mut host, true);
    data_is_there(&host);
}

#[test]
fn changed_pcrs_lock_the_vms_until_the_passphrase_is_given() {
    needs!(Root, Program("swtpm"));
    let shelf = shelf();
    let tpm = tpm_of("tpm", shelf.path());
    let mut host = host_with(&tpm);
    host.coffer(&["key", "tpm", "seal", "--pcrs", "16"]).ok();
    tpm.extend(16);
    restart(&mut host, false);
    let why = ["PCR 16 is not what it was", "passphrase still opens", "coffer key tpm seal --pcrs"];
    locked_because(&host, &why);
    host.coffer(&["key", "tpm", "seal", "--pcrs", "16"]).refused(8, &["not open"]);
    // The passphrase opens it all the same, and the warning stays until it is sealed again.
    restart(&mut host, true);
    data_is_there(&host);
    let warnings = host.coffer(&["host", "status"]).ok();
    assert!(warnings.contains("PCR 16 is not what it was"), "{warnings}");
    host.coffer(&["key", "tpm", "seal", "--pcrs", "16"]).ok();
    let warnings = host.coffer(&["host", "status"]).ok();
    assert!(!warnings.contains("PCR 16"), "{warnings}");
    restart(&mut host, false);
    data_is_there(&host);
}

#[test]
fn another_machine_needs_the_passphrase() {
    needs!(Root, Program("swtpm"));
    let shelf = shelf();
    let (mut tpm, other) = (tpm_of("tpm", shelf.path()), tpm_of("other", shelf.path()));
    let mut host = host_with(&tpm);
    host.coffer(&["key", "tpm", "seal"]).ok();
    // Key file and seal move to a machine with another TPM, then to one without.
    host.options.native = format!("tpm = \"unix:{}\"\n", other.socket().display());
    restart(&mut host, false);
    locked_because(&host, &["sealed for another TPM", "passphrase still opens"]);
    host.options.native = "tpm = \"/dev/no-tpm-here\"\n".into();
    restart(&mut host, false);
    locked_because(&host, &["there is no TPM", "passphrase still opens"]);
    host.coffer(&["key", "tpm", "seal"]).refused(8, &["not open"]);
    restart(&mut host, true);
    data_is_there(&host);
    host.coffer(&["key", "tpm", "seal"]).refused(8, &["/dev/no-tpm-here", "there is no TPM"]);

    // A damaged seal: nothing but the passphrase.
    host.options.native = format!("tpm = \"unix:{}\"\n", tpm.socket().display());
    let seal = host.state_dir().join("native.keys.tpm");
    let good = fs::read_to_string(&seal).unwrap();
    fs::write(&seal, good.replacen("\"private\":\"", "\"private\":\"00", 1)).unwrap();
    restart(&mut host, false);
    locked_because(&host, &["native.keys.tpm", "damaged", "passphrase still opens"]);
    host.coffer(&["key", "tpm", "remove"]).ok();
    assert!(!seal.exists(), "a seal goes also while the provider is closed");
    tpm.down();
    restart(&mut host, true);
    data_is_there(&host);
}

#[test]
fn a_backup_of_a_sealed_host_is_restored_on_a_machine_without_a_tpm() {
    needs!(Root, Program("swtpm"));
    let shelf = shelf();
    let tpm = tpm_of("tpm", shelf.path());
    let mut first = host_with(&tpm);
    first.coffer(&["key", "tpm", "seal", "--pcrs", "7"]).ok();
    let backup = shelf.join("keys.backup");
    first.coffer(&["key", "backup", backup.to_str().unwrap()]).ok();
    assert!(!fs::read_to_string(&backup).unwrap().contains("tpm"), "nothing of one machine in it");
    assert_eq!(first.stop(), Some(0));
    first.kill_vmds();
    let store = first.store().to_owned();
    let mut second = Host::prepare(|_| store);
    second.restore(&backup).ok();
    second.up();
    data_is_there(&second);
    second.coffer(&["key", "tpm", "status"]).ok();
}
