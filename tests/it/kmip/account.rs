//! A key server that wants a user name and a password beside the certificate.

use super::server::{KeyServer, skipped};
use super::{config, set_up};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tests::host::Host;
use tests::needs;

const PASSWORD: &str = "open-sesame-4711";

/// Writes a password file.
fn write(path: &Path, password: &str, mode: u32) {
    fs::write(path, format!("{password}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// No log, argument or answer has the password.
fn is_secret(host: &Host, server: &KeyServer) {
    assert!(!host.log().contains(PASSWORD), "the password is in the log");
    let pid = host.pid().unwrap();
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!arguments.contains(PASSWORD), "{arguments}");
    for verb in [&["key", "provider", "status"][..], &["host", "status"], &["key", "status"]] {
        assert!(!host.coffer(verb).ok().contains(PASSWORD), "the password is shown by {verb:?}");
    }
    assert!(server.has_seen("Fred"), "the server did not take the user's name");
}

#[test]
fn a_password_comes_from_a_file_or_a_credential() {
    needs!(Root);
    if skipped("kmip::account::a_password_comes_from_a_file_or_a_credential") {
        return;
    }
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    let account = Some(["Fred".to_owned(), PASSWORD.to_owned()]);
    let server = KeyServer::start_for(&host.scratch().join("kms"), account);
    let file = host.scratch().join("password");
    host.options.config = config(&[&server], &format!("user = \"Fred\"\npassword_file = {file:?}"));
    host.write_config();
    host.init();
    host.up();
    // There is no such file yet; then others can read it; then it is the wrong one.
    set_up(&host, &server, "host1");
    host.coffer(&["vm", "create", "web01"]).refused(8, &["password", "cannot be read"]);
    write(&file, PASSWORD, 0o644);
    host.coffer(&["vm", "create", "web01"]).refused(8, &["can be used by group or others"]);
    write(&file, "wrong", 0o600);
    host.coffer(&["vm", "create", "web01"]).refused(12, &["Authentication Not Successful"]);
    let status = host.json(&["key", "provider", "status"]);
    assert_eq!(status[0]["servers"][0]["reason"], "NoPermissionToAccessKeyProvider", "{status}");
    assert_eq!(status[0]["servers"][0]["trusts_us"], false, "{status}");
    // The right one counts without a restart.
    write(&file, PASSWORD, 0o600);
    host.coffer(&["vm", "create", "web01"]).ok();
    is_secret(&host, &server);

    // The same as systemd passes it, where the mode of the file is systemd's.
    assert_eq!(host.stop(), Some(0));
    let credentials = host.scratch().join("credentials");
    fs::create_dir(&credentials).unwrap();
    write(&credentials.join("kms"), PASSWORD, 0o440);
    let by_credential = "user = \"Fred\"\npassword_credential = \"kms\"";
    host.options.config = config(&[&server], by_credential);
    host.write_config();
    host.up_refused().refused(8, &["credential kms", "CREDENTIALS_DIRECTORY"]);
    host.options.wrapper =
        vec!["env".into(), format!("CREDENTIALS_DIRECTORY={}", credentials.display())];
    host.up();
    host.coffer(&["vm", "unlock", "web01"]).ok();
    is_secret(&host, &server);
}
