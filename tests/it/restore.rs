//! A host is lost, and another one takes over: the datastore, a backup of the keys and the passphrase are all that is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tests::host::{Host, PASSPHRASE, pattern};
use tests::nbd::Nbd;
use tests::needs;

/// What was written before the host was lost.
fn disk_content() -> Vec<u8> {
    pattern(200_000, 11)
}

/// A host that never ran: no key file, no state, another identity, and the datastore of the first.
fn second_machine(first: &Host) -> Host {
    let store = first.store().to_owned();
    let mut host = Host::prepare(|_| store);
    host.options.demo = false;
    host
}

/// A host whose power goes off while it serves a VM with data on its disk and in its home.
fn lose_a_host() -> (Host, PathBuf) {
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    host.options.demo = false;
    host.init();
    host.up();
    let backup = host.scratch().join("keys.backup");
    host.coffer(&["key", "backup", backup.to_str().unwrap()]).ok();
    // Made after the backup: it need not know it.
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    nbd.write(4096, &disk_content()).unwrap();
    nbd.flush().unwrap();
    drop(nbd);
    host.coffer(&["vm", "mount", "web01"]).ok();
    let note = host.home("web01").join("note");
    fs::write(&note, "in the home").unwrap();
    fs::File::open(&note).unwrap().sync_all().unwrap();
    host.kill();
    host.kill_vmds();
    (host, backup)
}

#[test]
fn another_machine_opens_the_vms_with_backup_and_passphrase() {
    needs!(Root, Fuse);
    let (first, backup) = lose_a_host();
    let mut second = second_machine(&first);
    let said = second.restore(&backup).ok();
    assert!(said.contains("native.keys") && said.contains("Start hostd"), "{said}");
    assert_eq!(fs::read(second.key_file()).unwrap(), fs::read(&backup).unwrap());
    let mode = fs::metadata(second.key_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    second.up();
    assert_eq!(second.state("web01"), "unlocked");
    second.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&second.socket("web01", "data"), "data").unwrap();
    assert!(nbd.read(4096, 200_000).unwrap() == disk_content(), "the disk has other content");
    drop(nbd);
    // The lost host had the home, and cannot say that it has stopped.
    second.coffer(&["vm", "mount", "web01"]).refused(6, &["--force"]);
    second.coffer(&["vm", "mount", "web01", "--force"]).ok();
    let note = fs::read_to_string(second.home("web01").join("note")).unwrap();
    assert_eq!(note, "in the home");

    // The copy was taken before it was confirmed, so new keys wait for one more backup.
    second.coffer(&["vm", "create", "web02"]).refused(8, &["coffer key backup"]);
    let again = second.scratch().join("again.backup");
    second.coffer(&["key", "backup", again.to_str().unwrap()]).ok();
    second.coffer(&["vm", "create", "web02"]).ok();
}

#[test]
fn what_does_not_fit_restores_nothing_and_loses_nothing() {
    needs!(Root);
    let mut first = Host::start();
    let backup = first.scratch().join("keys.backup");
    first.coffer(&["key", "backup", backup.to_str().unwrap()]).ok();
    first.coffer(&["vm", "create", "web01"]).ok();
    assert_eq!(first.stop(), Some(0));
    let good = fs::read(&backup).unwrap();

    let mut second = second_machine(&first);
    let no_key_file = |host: &Host| assert!(!host.key_file().exists());
    second.write_passphrase("not the one");
    second.restore(&backup).refused(8, &["passphrase does not open", "keys.backup", "nothing was"]);
    no_key_file(&second);
    second.write_passphrase(PASSPHRASE);
    let cut = second.scratch().join("cut.backup");
    for length in [0, 40, good.len() - 30, good.len() - 1] {
        fs::write(&cut, &good[..length]).unwrap();
        second.restore(&cut).refused(9, &["cut.backup", "take another copy", "nothing was"]);
        no_key_file(&second);
    }
    second
        .restore(&second.scratch().join("nowhere"))
        .refused(4, &["there is no backup", "nowhere"]);
    no_key_file(&second);

    // A host that has keys already keeps them.
    second.init();
    let own = fs::read(second.key_file()).unwrap();
    second.restore(&backup).refused(5, &["native.keys", "exists already", "move the old one"]);
    assert_eq!(fs::read(second.key_file()).unwrap(), own);
    second.up();
    second.restore(&backup).refused(5, &["exists already"]);
    assert_eq!(second.stop(), Some(0));
    assert_eq!(fs::read(&backup).unwrap(), good);

    fs::rename(second.key_file(), second.scratch().join("moved.keys")).unwrap();
    second.restore(&backup).ok();
    second.up();
    second.coffer(&["vm", "unlock", "web01"]).ok();
}
