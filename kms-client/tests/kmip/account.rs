//! User name and password beside the certificate.

use crate::cluster::settings;
use crate::pki::{Authority, now, private};
use crate::pykmip::{PyKmip, Suite};
use crate::server::Server;
use crate::session::arena;
use kms_client::kmip::credential::Account;
use kms_client::kmip::values::Version;
use kms_client::kmip::{KmipProvider, KmipSettings};
use kms_client::{Health, KeyProvider, KmsError};
use std::net::SocketAddr;

/// Settings with this password of Fred's, which is in a file.
fn fred(authority: &Authority, server: SocketAddr, password: &str) -> KmipSettings {
    let path = authority.path("password");
    private(&path, password);
    let account = Account { user: "Fred".into(), password: path, sheltered: false };
    KmipSettings { account: Some(account), ..settings(authority, &[server]) }
}

/// Everything that a provider does, with an account; nothing with the wrong one, and the password is never told.
fn whole_use(authority: &Authority, server: SocketAddr) {
    let arena = arena();
    let open = |settings| KmipProvider::open(settings, now, &arena).unwrap();
    let provider = open(fred(authority, server, "password1\n"));
    let id = provider.create_key().unwrap();
    let value = provider.fetch(&id, &arena).unwrap().check_value();
    // Over the connection that was left open as well.
    assert_eq!(provider.fetch(&id, &arena).unwrap().check_value(), value);
    provider.check();
    assert_eq!(provider.status().health, Health::Ready, "{:?}", provider.status());

    for wrong in ["secret-and-wrong", ""] {
        private(&authority.path("password"), wrong);
        provider.check();
        let status = provider.status();
        assert_eq!(status.health, Health::Unavailable, "{status:?}");
        assert!(!format!("{status:?}").contains("secret"), "{status:?}");
        let error = provider.fetch(&id, &arena).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let without = KmipSettings { account: None, ..settings(authority, &[server]) };
    let without = open(without);
    let error = without.fetch(&id, &arena).unwrap_err();
    assert!(matches!(error, KmsError::Denied { .. }), "{error}");
    without.check();
    let status = without.status();
    assert_eq!(status.servers[0].reason, Some("NoPermissionToAccessKeyProvider"), "{status:?}");
    assert_eq!(status.servers[0].trusts_us, Some(false));
    // The right one again counts without a restart, in the version that was wanted.
    private(&authority.path("password"), "password1");
    assert_eq!(provider.fetch(&id, &arena).unwrap().check_value(), value);
    let other = KmipSettings { version: Version::V1_4, ..fred(authority, server, "password1") };
    assert_eq!(open(other).fetch(&id, &arena).unwrap().check_value(), value);
    assert_eq!(arena.usage().used, 0);
}

#[test]
fn a_server_that_wants_a_user_and_a_password_gets_them_with_every_request() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    server.store.lock().unwrap().account = Some(("Fred".into(), "password1".into()));
    whole_use(&authority, server.address);
}

#[test]
fn pykmip_reads_the_user_and_the_password() {
    let authority = Authority::new();
    let database = authority.path("keys.db");
    let account = Some(["Fred", "password1"]);
    let server = PyKmip::start_for(&authority, "server", &database, Suite::Modern, account);
    let Some(server) = server else { return };
    whole_use(&authority, ([127, 0, 0, 1], server.port).into());
    let log = std::fs::read_to_string(authority.path("pykmip.log")).unwrap();
    assert!(log.contains("Session client identity: Fred"), "{log}");
}
