//! Nothing of a VM is readable at rest: markers written through every door are searched for in every file.

use std::fs;
use std::path::{Path, PathBuf};
use tests::host::Host;
use tests::nbd::Nbd;
use tests::needs;

/// Written into disks, files, and nowhere else.
const MARKER: &[u8] = b"PLAINTEXT-MARKER-4f1c9a72-do-not-find-me";

/// Files below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// Files that hold the marker, or 16 bytes of it at any place.
fn leaks(folder: &Path) -> Vec<PathBuf> {
    let piece = &MARKER[..16];
    let holds = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(piece.len()).any(|window| window == piece)
    };
    files(folder).into_iter().filter(holds).collect()
}

#[test]
fn no_marker_is_found_at_rest() {
    needs!(Root, Fuse, Program("qemu-img"));
    let mut host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    // Through NBD: aligned, and across units.
    host.coffer(&["disk", "create", "web01", "data", "--size", "4M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    nbd.write(0, &MARKER.repeat(200)).unwrap();
    nbd.write((1 << 20) - 17, MARKER).unwrap();
    nbd.flush().unwrap();
    // Through an import.
    let image = host.scratch().join("image.raw");
    fs::write(&image, MARKER.repeat(20_000)).unwrap();
    host.coffer(&["disk", "import", "web01", "root", image.to_str().unwrap()]).ok();
    // Through the home.
    host.coffer(&["vm", "mount", "web01"]).ok();
    fs::write(host.home("web01").join("small"), MARKER).unwrap();
    fs::write(host.home("web01").join("large"), MARKER.repeat(3000)).unwrap();
    let mut appended =
        fs::OpenOptions::new().append(true).open(host.home("web01").join("small")).unwrap();
    std::io::Write::write_all(&mut appended, MARKER).unwrap();
    appended.sync_all().unwrap();
    drop(appended);
    assert!(leaks(host.store()).is_empty(), "while it is served: {:?}", leaks(host.store()));

    assert!(nbd.read((1 << 20) - 17, MARKER.len()).unwrap() == MARKER);
    assert!(fs::read(host.home("web01").join("small")).unwrap() == MARKER.repeat(2));
    drop(nbd);
    host.coffer(&["vm", "lock", "web01", "--force"]).ok();
    assert_eq!(host.stop(), Some(0));
    let stored = files(host.store());
    assert!(stored.len() >= 6, "safe, descriptors, payloads and home files are there: {stored:?}");
    assert!(leaks(host.store()).is_empty(), "at rest: {:?}", leaks(host.store()));
    assert!(leaks(&host.state_dir()).is_empty());
    assert!(!host.log().contains("PLAINTEXT-MARKER"), "in the log");
    // The search finds what is there to find.
    fs::write(host.store().join("proof"), MARKER.repeat(2)).unwrap();
    assert_eq!(leaks(host.store()), [host.store().join("proof")]);
}

#[test]
fn no_key_or_passphrase_is_in_logs_answers_or_the_inventory() {
    needs!(Root);
    let mut host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let answers = [
        host.coffer(&["--json", "key", "status"]).ok(),
        host.coffer(&["--json", "vm", "show", "web01"]).ok(),
        host.coffer(&["--json", "host", "status"]).ok(),
    ];
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    assert_eq!(host.stop(), Some(0));
    // The wrapped keys are public enough to lie on the datastore, and have no business anywhere else.
    let mut secrets = vec![tests::host::PASSPHRASE.to_owned()];
    for file in ["vm.safe", "disks/data.disk"] {
        let text = fs::read_to_string(host.file("web01", file)).unwrap();
        let body: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let wraps = body["wraps"].as_array().unwrap();
        secrets.extend(wraps.iter().map(|wrap| wrap["blob"].as_str().unwrap().to_owned()));
    }
    assert_eq!(secrets.len(), 3);
    for secret in &secrets {
        assert!(!host.log().contains(secret.as_str()), "in the log");
        assert!(!answers.iter().any(|answer| answer.contains(secret.as_str())), "in an answer");
        for path in files(&host.state_dir()) {
            let text = fs::read(&path).unwrap();
            assert!(
                !String::from_utf8_lossy(&text).contains(secret.as_str()),
                "{}",
                path.display()
            );
        }
    }
}
