//! tools/recover.py, which shares no code with Coffer, sees what guests and users see.

use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::binaries::project;
use tests::command::{Said, run_command};
use tests::guest::{self, Guest};
use tests::host::{Host, pattern};
use tests::nbd::Nbd;
use tests::{command, needs, wait};

/// A host in demo mode with a backup and a VM.
struct Case {
    host: Host,
    backup: PathBuf,
}

impl Case {
    fn new() -> Self {
        Self::with_names("plain")
    }

    fn with_names(names: &str) -> Self {
        let host = Host::start();
        let backup = host.scratch().join("keys.backup");
        host.coffer(&["key", "backup", backup.to_str().unwrap()]).ok();
        host.coffer(&["vm", "create", "web01", "--names", names]).ok();
        Self { host, backup }
    }

    /// Runs recover.py on the VM folder.
    fn recover(&self, verb: &str, more: &[&Path]) -> Said {
        let mut python = Command::new(python());
        python
            .arg(project().join("tools/recover.py"))
            .arg(verb)
            .arg(self.host.store().join("web01"));
        python.args(more).arg("--backup").arg(&self.backup);
        python.arg("--passphrase-file").arg(self.host.passphrase_file());
        run_command(python, None, wait::STEP * 4)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.host.scratch().join(name)
    }
}

/// Python with the package `cryptography`: target/venv, which tools/test makes, or the one on PATH.
fn python() -> PathBuf {
    let venv = project().join("target/venv/bin/python3");
    if venv.is_file() { venv } else { PathBuf::from("python3") }
}

/// `true`, visibly, when Python lacks `cryptography`.
fn skipped(test: &str) -> bool {
    let code = "from cryptography.hazmat.primitives.kdf.argon2 import Argon2id";
    let mut python = Command::new(python());
    python.args(["-c", code]);
    let there = python.output().is_ok_and(|output| output.status.success());
    if !there {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!(
                "SKIPPED {test}: needs Python's cryptography >= 44 (tools/test makes target/venv)\n"
            )
            .as_bytes(),
        );
    }
    !there
}

#[test]
fn it_opens_backup_safe_and_descriptors() {
    needs!(Root);
    if skipped("recover info") {
        return;
    }
    let case = Case::new();
    case.host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    let key = case.host.json(&["vm", "show", "web01"])["key_ids"][0].as_str().unwrap().to_owned();
    let said = case.recover("info", &[]).ok();
    assert!(said.contains("web01") && said.contains("data") && said.contains(&key), "{said}");
    case.host.write_passphrase("wrong");
    case.recover("info", &[]).refused(8, &["passphrase"]);
}

#[test]
fn its_raw_disk_equals_what_nbd_serves() {
    needs!(Root, Program("nbdcopy"));
    if skipped("recover disk") {
        return;
    }
    let case = Case::new();
    for (disk, size) in [("big", "5M"), ("odd", "1049088")] {
        case.host.coffer(&["disk", "create", "web01", disk, "--size", size]).ok();
        case.host.coffer(&["disk", "attach", "web01", disk]).ok();
        let mut nbd = Nbd::open(&case.host.socket("web01", disk), disk).unwrap();
        nbd.write(0, &pattern(300_000, 1)).unwrap();
        nbd.write(700_001, &pattern(5000, 2)).unwrap();
        nbd.flush().unwrap();
        let served = case.out(&format!("{disk}.nbd"));
        command::ok("nbdcopy", &[&case.host.uri("web01", disk), served.to_str().unwrap()]);
        drop(nbd);
        case.host.coffer(&["disk", "detach", "web01", disk]).ok();
        let raw = case.out(&format!("{disk}.raw"));
        case.recover("disk", &[Path::new(disk), &raw]).ok();
        assert!(fs::read(&raw).unwrap() == fs::read(&served).unwrap(), "{disk} differs");
    }
}

#[test]
fn a_payload_that_it_writes_is_served() {
    needs!(Root);
    if skipped("recover encrypt") {
        return;
    }
    let case = Case::new();
    case.host.coffer(&["disk", "create", "web01", "data", "--size", "2M"]).ok();
    let plain = case.out("plain.raw");
    let mut bytes = pattern(1_000_000, 8);
    bytes.resize(2 << 20, 0);
    fs::write(&plain, &bytes).unwrap();
    case.recover("encrypt", &[Path::new("data"), &plain]).ok();
    case.host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&case.host.socket("web01", "data"), "data").unwrap();
    assert!(nbd.read(0, 2 << 20).unwrap() == bytes, "what is served differs");
}

/// Content of files and targets of links below `folder`, by relative path.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(base: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(base).unwrap().to_owned();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                found.insert(name, b"folder".to_vec());
                walk(base, &path, found);
            } else if kind.is_symlink() {
                found.insert(
                    name,
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                );
            } else {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

/// Folders inside each other.
const DEPTH: usize = 200;

/// A list that lets the user 1234 read (acl(5); `linux/posix_acl_xattr.h`).
const ACL: (&str, [u8; 44]) = (
    "system.posix_acl_access",
    [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xd2, 4, 0, 0, 4, 0, 4, 0, 255,
        255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
    ],
);

#[test]
fn its_home_tree_equals_the_mounted_one() {
    needs!(Root, Fuse);
    if skipped("recover home") {
        return;
    }
    recovers_a_home(&Case::new());
    recovers_a_home(&Case::with_names("encrypted"));
}

fn recovers_a_home(case: &Case) {
    case.host.coffer(&["vm", "mount", "web01"]).ok();
    let home = case.host.home("web01");
    fs::create_dir_all(home.join("a/b")).unwrap();
    for size in [0, 1, 511, 512, 4095, 4096, 4097, 100_000] {
        fs::write(home.join(format!("a/f{size}")), pattern(size, 3)).unwrap();
    }
    let holes = fs::File::create(home.join("a/b/holes")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, b"behind a hole", 50_000).unwrap();
    drop(holes);
    symlink("a/f512", home.join("link")).unwrap();
    let odd = OsStr::from_bytes(b"a/\xff\n any bytes");
    fs::write(home.join(odd), b"odd").unwrap();
    // So deep that the stored path, with names of 24 bytes, is longer than any path in Linux.
    let deep = home.join("d/".repeat(DEPTH));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), b"deep").unwrap();
    setxattr(&deep, "user.deep", b"x", XattrFlags::empty()).unwrap();
    let attributes = [("a", "user.folder"), ("a/f1", "user.comment"), ("a/f1", "trusted.note")];
    for (place, name) in attributes {
        setxattr(home.join(place), name, b"its value", XattrFlags::empty()).unwrap();
    }
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(home.join("a/f1"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    setxattr(home.join("a/f511"), ACL.0, &ACL.1, XattrFlags::empty()).unwrap();
    let seen = tree(&home);
    assert_eq!(seen.len(), 14 + DEPTH, "{:?}", seen.keys());
    case.host.coffer(&["vm", "umount", "web01"]).ok();
    let out = case.out("home");
    case.recover("info", &[]).ok();
    case.recover("home", &[&out]).ok();
    let recovered = tree(&out);
    assert_eq!(recovered.keys().collect::<Vec<_>>(), seen.keys().collect::<Vec<_>>());
    for (name, content) in &seen {
        assert!(recovered[name] == *content, "{} differs", name.display());
    }
    let value = |place: &str, name: &str| {
        let mut room = [0_u8; 100];
        getxattr(out.join(place), name, &mut room[..]).map(|len| room[..len].to_vec())
    };
    for (place, name) in attributes {
        assert_eq!(value(place, name).unwrap(), b"its value", "{place} {name}");
    }
    assert_eq!(value("a/f511", ACL.0).unwrap(), ACL.1);
    assert_eq!(value(&"d/".repeat(DEPTH), "user.deep").unwrap(), b"x");
    assert_eq!(
        value("a/f1", "security.capability"),
        Err(Errno::NODATA),
        "it says not of which file"
    );
}

/// Content has a proof of its own, so that a name which does not open costs the name alone.
#[test]
fn what_lost_its_encrypted_name_comes_out_under_the_stored_one() {
    needs!(Root, Fuse);
    if skipped("recover names") {
        return;
    }
    let case = Case::with_names("encrypted");
    case.host.coffer(&["vm", "mount", "web01"]).ok();
    let home = case.host.home("web01");
    for folder in ["good", "lost"] {
        fs::create_dir(home.join(folder)).unwrap();
    }
    fs::write(home.join("lost/file"), b"content").unwrap();
    let below = case.host.store().join("web01/home");
    let stored = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let lost = stored(&below).into_iter().find(|folder| !stored(folder).is_empty()).unwrap();
    symlink("good", home.join("link")).unwrap();
    case.host.coffer(&["vm", "umount", "web01"]).ok();
    fs::rename(&lost, below.join("renamed")).unwrap();
    fs::write(below.join("planted"), [b'x'; 10_000]).unwrap();
    let link = stored(&below).into_iter().find(|path| path.is_symlink()).unwrap();
    let mut target = fs::read_link(&link).unwrap().into_os_string().into_string().unwrap();
    fs::remove_file(&link).unwrap();
    target.push('A');
    symlink(target, &link).unwrap();

    let bad = [
        "renamed has a name that was not made",
        "planted has a name that was not made",
        "planted: not the header",
        "is a link that was not made",
    ];
    case.recover("info", &[]).refused(9, &bad);
    let out = case.out("home");
    case.recover("home", &[&out]).refused(9, &bad);
    let names: Vec<_> = tree(&out).into_iter().collect();
    let expected = [("good", &b"folder"[..]), ("renamed", b"folder"), ("renamed/file", b"content")];
    let expected = expected.map(|(name, content)| (PathBuf::from(name), content.to_vec()));
    assert_eq!(names, expected);
}

#[test]
fn what_was_planted_in_the_storage_stays_out() {
    needs!(Root, Fuse);
    if skipped("recover planted") {
        return;
    }
    let case = Case::new();
    case.host.coffer(&["vm", "mount", "web01"]).ok();
    let home = case.host.home("web01");
    fs::write(home.join("good"), b"content").unwrap();
    fs::write(home.join("wiped"), b"content").unwrap();
    symlink("good", home.join("link")).unwrap();
    symlink("good", home.join("edited")).unwrap();
    case.host.coffer(&["vm", "umount", "web01"]).ok();
    let below = case.host.store().join("web01/home");
    symlink("/etc", below.join("planted")).unwrap();
    let stored = fs::read_link(below.join("edited")).unwrap().into_os_string();
    fs::remove_file(below.join("edited")).unwrap();
    let mut edited = stored.into_string().unwrap();
    edited.push_str("/../../etc/shadow");
    symlink(edited, below.join("edited")).unwrap();
    let wiped = fs::OpenOptions::new().write(true).open(below.join("wiped")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&wiped, &[0; 4096], 0).unwrap();

    let bad = ["planted is damaged", "edited is damaged", "wiped is damaged"];
    case.recover("info", &[]).refused(9, &bad);
    let out = case.out("home");
    case.recover("home", &[&out]).refused(9, &bad);
    let names: Vec<_> = tree(&out).into_iter().collect();
    let expected = [("good", b"content".to_vec()), ("link", b"good".to_vec())];
    assert_eq!(names, expected.map(|(name, content)| (PathBuf::from(name), content)));
}

#[test]
fn links_in_the_place_of_its_files_are_not_followed() {
    needs!(Root);
    if skipped("recover links") {
        return;
    }
    let case = Case::new();
    case.host.coffer(&["disk", "create", "web01", "data", "--size", "1M"]).ok();
    let plain = case.out("plain");
    fs::write(&plain, pattern(1 << 20, 5)).unwrap();
    let folder = case.host.store().join("web01");
    let (lock, payload) = (folder.join(".lock"), folder.join("disks/data.data"));
    let elsewhere = case.out("elsewhere");
    let _ = fs::remove_file(&lock);
    symlink(&elsewhere, &lock).unwrap();
    let said = case.recover("encrypt", &[Path::new("data"), &plain]);
    assert_eq!(said.code, 10, "{said}");
    assert!(!elsewhere.exists(), "the link was followed");
    fs::remove_file(&lock).unwrap();

    fs::rename(&payload, case.out("payload")).unwrap();
    symlink(case.out("payload"), &payload).unwrap();
    let not_ours = ["data.data is not a regular file"];
    case.recover("encrypt", &[Path::new("data"), &plain]).refused(9, &not_ours);
    case.recover("disk", &[Path::new("data"), &case.out("raw")]).refused(9, &not_ours);
    case.recover("info", &[]).refused(9, &not_ours);
    fs::remove_file(&payload).unwrap();
    fs::rename(case.out("payload"), &payload).unwrap();
    fs::set_permissions(&payload, std::os::unix::fs::PermissionsExt::from_mode(0o4640)).unwrap();
    case.recover("encrypt", &[Path::new("data"), &plain]).ok();
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&payload).unwrap());
    assert_eq!(mode & 0o7777, 0o640, "a payload needs no further bits");
}

#[test]
fn it_recovers_what_a_guest_wrote() {
    needs!(Root, Program("qemu-system-x86_64"), Program("debugfs"));
    if skipped("recover guest") {
        return;
    }
    let case = Case::new();
    let disk = guest::files().disk.to_str().unwrap();
    case.host.coffer(&["disk", "import", "web01", "root", disk]).ok();
    case.host.coffer(&["disk", "attach", "web01", "root"]).ok();
    let socket = case.host.socket("web01", "root");
    Guest::boot(&socket, "root", "coffer.do=write-marker coffer.marker=seen-by-the-guest").finish();
    case.host.coffer(&["disk", "detach", "web01", "root"]).ok();
    let raw = case.out("root.raw");
    case.recover("disk", &[Path::new("root"), &raw]).ok();
    let seen = command::ok("debugfs", &["-R", "cat /var/coffer/marker", raw.to_str().unwrap()]);
    assert_eq!(seen.trim(), "seen-by-the-guest");
    let said = command::run("e2fsck", &["-f", "-n", raw.to_str().unwrap()], wait::STEP * 2);
    assert_eq!(said.code, 0, "{said}");
}
