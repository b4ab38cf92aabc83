//! Hosts that lack something, and configurations that are wrong: refused with the remedy.

use std::fs;
use tests::host::{Host, pattern};
use tests::nbd::Nbd;
use tests::needs;
use tests::wait::until_true;

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn prepared() -> Host {
    let host = Host::prepare(|scratch| scratch.join("store"));
    host.init();
    host
}

#[test]
fn a_memlock_limit_that_is_too_low_stops_hostd_with_advice() {
    needs!(Root, Program("prlimit"), Program("setpriv"));
    let mut host = prepared();
    // Root may lock what it wants; without the capability the limit counts.
    let low = "prlimit --memlock=65536:65536 setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock";
    host.options.wrapper = words(low);
    let said = host.up_refused();
    assert_ne!(said.code, 0, "{said}");
    for word in ["MEMLOCK", "65536"] {
        assert!(said.err.contains(word), "no `{word}`: {said}");
    }
    assert!(!said.err.contains("panicked"), "{said}");
    host.options.wrapper.clear();
    host.up();
}

#[test]
fn without_dev_fuse_homes_are_refused_and_disks_are_served() {
    needs!(Root, Fuse, Program("unshare"));
    let mut host = prepared();
    // A /dev of its own, which no mount of the test may reach.
    let hide = "set -e; mount --make-rprivate /dev || mount --make-rprivate /; mount -t tmpfs dev /dev; \
                mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/zero c 1 5; mknod -m 666 /dev/urandom c 1 9; \
                exec \"$@\"";
    let wrapper = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", hide, "sh"];
    host.options.wrapper = wrapper.map(str::to_owned).to_vec();
    host.up();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["vm", "mount", "web01"]).refused(11, &["/dev/fuse", "modprobe fuse"]);
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
}

#[test]
fn a_wrong_configuration_names_file_key_and_remedy() {
    needs!(Root);
    let mut host = prepared();
    for (line, told) in [
        ("run_dri = \"/x\"", "run_dri"),
        ("on_stop = \"explode\"", "on_stop"),
        ("danger_zone = { allow_unconfined_vmd = true }", "allow_unconfined_vmd"),
        ("danger_zone = { allow_readable_passphrase = true }", "allow_readable_passphrase"),
    ] {
        host.options.config = line.into();
        host.write_config();
        let said = host.up_refused();
        assert_ne!(said.code, 0, "{said}");
        assert!(said.err.contains("hostd.toml") && said.err.contains(told), "{said}");
    }
    host.options.config.clear();
    fs::remove_file(host.config()).unwrap();
    let said = host.up_refused();
    assert!(said.code != 0 && said.err.contains("sample-config"), "{said}");
    host.write_config();
    host.up();
}

#[test]
fn an_insecure_option_needs_two_switches_and_is_reported() {
    needs!(Root);
    let mut host = prepared();
    let passphrase = host.passphrase_file();
    fs::set_permissions(&passphrase, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let said = host.up_refused_or_locked();
    assert!(said.contains("chmod 600"), "{said}");
    host.kill();
    host.options.config =
        "danger_zone = { enabled = true, allow_readable_passphrase = true }".into();
    host.write_config();
    host.up();
    let status = host.json(&["host", "status"]);
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("allow_readable_passphrase"), "{warnings}");
    assert!(warnings.contains("demo"), "demo mode is reported: {warnings}");
}

#[test]
fn without_hostd_coffer_says_how_to_start_it() {
    needs!(Root);
    let host = prepared();
    host.coffer(&["vm", "list"]).refused(3, &["hostd.sock"]);
}

/// All of them are served by one process, which dies once and has them all again.
#[test]
fn a_vm_has_a_hundred_disks() {
    needs!(Root);
    let mut host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    let disks: Vec<String> = (0..100).map(|number| format!("d{number}")).collect();
    for disk in &disks {
        host.coffer(&["disk", "create", "web01", disk, "--size", "1M"]).ok();
        host.coffer(&["disk", "attach", "web01", disk]).ok();
    }
    assert_eq!(host.vmds().len(), 1);
    let open = |disk: &String| Nbd::open(&host.socket("web01", disk), disk).unwrap();
    let mut clients: Vec<Nbd> = disks.iter().map(open).collect();
    for (seed, client) in (0..).zip(&mut clients) {
        client.write(4096, &pattern(8192, seed)).unwrap();
    }
    for (seed, client) in (0..).zip(&mut clients) {
        assert_eq!(client.read(4096, 8192).unwrap(), pattern(8192, seed));
    }
    drop(clients);
    host.kill_vmds();
    until_true("the vmd is back", || host.json(&["vm", "show", "web01"])["vmd_restarts"] == 1);
    for (seed, disk) in (0..).zip(&disks) {
        let mut client = Nbd::open(&host.socket("web01", disk), disk).unwrap();
        assert_eq!(client.read(4096, 8192).unwrap(), pattern(8192, seed), "{disk}");
    }
    let vmds = host.vmds();
    host.kill();
    host.up();
    assert_eq!(host.vmds(), vmds, "adopted with all its disks");
    let shown = host.json(&["disk", "list", "web01"]);
    let states = shown.as_array().unwrap().iter().filter(|disk| disk["state"] == "attached");
    assert_eq!(states.count(), disks.len());
    host.coffer(&["vm", "lock", "web01"]).ok();
}
