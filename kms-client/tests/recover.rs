//! `tools/recover.py`, which shares no code with us, opens the key files that we write.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use crypto::{Arena, Argon2Params, Passphrase};
use kms_client::KeyProvider;
use kms_client::native::NativeProvider;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Exit code of the script where Python's `cryptography` is missing or has no Argon2id.
const NO_LIBRARY: i32 = 13;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/recover.py")
}

/// `python3 [flags] recover.py [args]`; `None` where there is no Python.
fn python(flags: &[&str], args: &[&str]) -> Option<Output> {
    Command::new("python3").args(flags).arg(script()).args(args).output().ok()
}

/// Runs `recover.py keys` on a key file of this text; `None`, said aloud, where it cannot work.
fn keys(folder: &Path, text: &str, passphrase: &str) -> Option<(i32, String, String)> {
    let (backup, secret) = (folder.join("backup"), folder.join("passphrase"));
    fs::write(&backup, text).unwrap();
    fs::write(&secret, passphrase).unwrap();
    let (backup, secret) = (backup.to_str().unwrap(), secret.to_str().unwrap());
    let output = python(&[], &["keys", "--backup", backup, "--passphrase-file", secret]);
    match output.map(|o| (o.status.code().unwrap(), o.stdout, o.stderr)) {
        None | Some((NO_LIBRARY, ..)) => {
            skipped("needs python3 with `cryptography` 44 or later");
            None
        }
        Some((code, out, err)) => {
            Some((code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap()))
        }
    }
}

/// Past the capture of test output, so that a skipped test is seen.
fn skipped(why: &str) {
    std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes()).unwrap();
}

#[test]
fn the_script_derives_the_same_keys() {
    let folder = tempfile::tempdir().unwrap();
    let golden = include_str!("golden/keys-v1.keys");
    let Some((code, out, err)) = keys(folder.path(), golden, "golden key file of version 1\n")
    else {
        return;
    };
    assert_eq!(code, 0, "{err}");
    for line in [
        "native/0bff9539-6256-42d2-a215-3868128499b8  check bed65f5ece0dcdbe",
        "native/cd6e69f2-dc6d-4f17-a5c0-8e15090c0c0a  check 95f6b264fe00b9be",
    ] {
        assert!(out.contains(line), "{out}");
    }
}

#[test]
fn the_script_opens_a_file_made_now_and_refuses_a_changed_one() {
    let folder = tempfile::tempdir().unwrap();
    let arena = Arena::new(64 << 10).unwrap();
    let path = folder.path().join("native.keys");
    // A passphrase that is not ASCII, and ends in a space that belongs to it.
    let secret = "gr\u{fc}n \u{1f511} ";
    let passphrase = || Passphrase::read(&arena, secret.as_bytes()).unwrap();
    let params = Argon2Params { memory_kib: 64, passes: 2, lanes: 2, salt: [9; 16] };
    NativeProvider::init(&path, &passphrase(), "site-b", params, &arena).unwrap();
    let provider =
        NativeProvider::open(&path, &passphrase(), "site-b", true, || 3, &arena).unwrap();
    let key = provider.create_key().unwrap();
    let check = provider.fetch(&key, &arena).unwrap().check_value();
    let text = provider.backup();

    let Some((code, out, err)) = keys(folder.path(), &text, &format!("{secret}\r\n")) else {
        return;
    };
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("{key}  check {check}")), "{out}");

    let changed = text.replacen("\"sequence\":2", "\"sequence\":3", 1);
    let later = text.replacen("\"version\":1", "\"version\":2", 1);
    let feature = text.replacen("\"features\":[]", "\"features\":[\"tpm\"]", 1);
    let costly = text.replacen("\"memory_kib\":64", "\"memory_kib\":4000000000", 1);
    let cut = text[..text.len() - 40].to_owned();
    for (text, secret, wanted, needle) in [
        (&text, "another", 8, "passphrase does not open"),
        (&text, "\n", 2, "1 to 1024 bytes"),
        (&changed, secret, 9, "MAC does not match"),
        (&later, secret, 9, "version 2"),
        (&feature, secret, 9, "tpm"),
        (&costly, secret, 9, "out of bounds"),
        (&cut, secret, 9, "damaged"),
        (&"not a key file\n".to_owned(), secret, 9, "damaged"),
    ] {
        let (code, _, err) = keys(folder.path(), text, secret).unwrap();
        assert_eq!(code, wanted, "{err}");
        assert!(err.contains(needle) && !err.contains("Traceback"), "{err}");
    }
}

#[test]
fn help_needs_no_library_and_everything_else_says_what_to_install() {
    // -I -S: without the folders where packages are installed.
    let Some(help) = python(&["-I", "-S"], &["--help"]) else {
        skipped("needs python3");
        return;
    };
    assert!(help.status.success());
    assert!(String::from_utf8(help.stdout).unwrap().contains("exit codes"));
    let bare = python(&["-I", "-S"], &["keys", "--backup", "/nonexistent"]).unwrap();
    assert_eq!(bare.status.code(), Some(NO_LIBRARY));
    assert!(String::from_utf8(bare.stderr).unwrap().contains("pip install cryptography"));
}
