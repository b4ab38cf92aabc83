//! One real server: the life of a key, and every right that a host may lack.

use crate::servers::{POLICY, Servers};
use crate::support::{BUDGETS, arena, id, key, provider, says, settings};
use kms_client::bao::KeyChoice;
use kms_client::kmip::Budgets;
use kms_client::{Health, KeyProvider, KmsError};
use serde_json::json;
use std::time::Duration;

fn version(wrapped: &crypto::Wrapped) -> String {
    let text = String::from_utf8(wrapped.blob.clone()).unwrap();
    text.split(':').nth(1).unwrap().to_owned()
}

#[test]
fn a_key_lives_in_a_real_server() {
    let Some(servers) = Servers::start(1, true) else { return };
    let mut settings = settings(&servers.authority, &servers.ports());
    settings.budgets = Budgets { operation: Duration::from_secs(60), ..BUDGETS };
    let (provider, arena) = (provider(settings.clone()), arena());
    let made = provider.create_key().unwrap();
    assert!(made.uid().starts_with("coffer-"), "{made}");
    assert_ne!(provider.create_key().unwrap(), made, "a key for each VM");
    let read = servers.does(0, &format!("GET transit/keys/{}", made.uid()), json!({}));
    assert_eq!(read["data"]["type"], "aes256-gcm96");
    assert_eq!(read["data"]["exportable"], false);

    // Both kinds of data keys; an old version opens after a rotation, and the same key is wrapped anew by the new one.
    for length in [32, 64] {
        let data = key(length, &arena);
        let value = data.check_value().unwrap();
        let opens = |wrapped: &crypto::Wrapped| {
            provider.unwrap(&made, wrapped, "disk 1", &arena).unwrap().check_value().unwrap()
        };
        let first = provider.wrap(&made, &data, "disk 1", &arena).unwrap();
        assert_eq!(opens(&first), value);
        assert!(provider.renew(&made).unwrap());
        assert_eq!(opens(&first), value);
        let second = provider.wrap(&made, &data, "disk 1", &arena).unwrap();
        assert_eq!(opens(&second), value);
        assert_ne!(version(&first), version(&second));
        let error = provider.unwrap(&made, &second, "disk 2", &arena).map(drop).unwrap_err();
        assert!(matches!(error, KmsError::BadKey { .. }), "{error}");
        says(&error, &["does not open by key", "belongs to something else"]);
    }
    assert_eq!(arena.usage().used, 0, "no key is left behind");

    provider.check();
    let status = provider.status();
    assert_eq!(status.health, Health::Ready, "{status:?}");
    let server = &status.servers[0];
    assert_eq!((server.up, server.trusted, server.trusts_us), (Some(true), Some(true), Some(true)));
    assert_eq!((server.key_fetched, server.reason), (Some(true), None));
    assert!(server.latency_ms.is_some() && server.certificate_days.is_some());

    old_versions_and_deleted_keys(&servers, &provider, &made);
    what_the_policy_leaves_out(&servers, &made);
    rights(&servers, &settings);
    a_key_of_the_administrator(&servers, &settings);
    sealed(&servers, &provider, &made);
}

/// What an administrator takes away.
fn old_versions_and_deleted_keys(
    servers: &Servers,
    provider: &kms_client::bao::BaoProvider,
    made: &crypto::KeyId,
) {
    let arena = arena();
    let data = key(32, &arena);
    let old = provider.wrap(made, &data, "vm", &arena).unwrap();
    provider.renew(made).unwrap();
    let new = provider.wrap(made, &data, "vm", &arena).unwrap();
    let newest: u64 = version(&new)[1..].parse().unwrap();
    let config = format!("POST transit/keys/{}/config", made.uid());
    servers.does(0, &config, json!({"min_decryption_version": newest}));
    let error = provider.unwrap(made, &old, "vm", &arena).map(drop).unwrap_err();
    says(&error, &["does not open so old a version any more", "min_decryption_version"]);
    provider.unwrap(made, &new, "vm", &arena).unwrap();
    servers.does(0, &config, json!({"min_decryption_version": 1}));

    let gone = provider.create_key().unwrap();
    let wrapped = provider.wrap(&gone, &data, "vm", &arena).unwrap();
    servers.does(
        0,
        &format!("POST transit/keys/{}/config", gone.uid()),
        json!({"deletion_allowed": true}),
    );
    servers.does(0, &format!("DELETE transit/keys/{}", gone.uid()), json!({}));
    let error = provider.unwrap(&gone, &wrapped, "vm", &arena).map(drop).unwrap_err();
    assert!(matches!(error, KmsError::NotFound { .. }), "{error}");
    let error = provider.wrap(&gone, &data, "vm", &arena).unwrap_err();
    assert!(matches!(error, KmsError::NotFound { .. }), "{error}");
    servers.does(0, "POST transit/keys/coffer-other", json!({"type": "chacha20-poly1305"}));
    let error = provider.wrap(&id("coffer-other"), &data, "vm", &arena).unwrap_err();
    says(&error, &["coffer-other is of type chacha20-poly1305", "aes256-gcm96"]);
}

/// A host that is taken over can neither carry a key away nor destroy one.
fn what_the_policy_leaves_out(servers: &Servers, made: &crypto::KeyId) {
    let name = made.uid();
    assert_eq!(servers.as_a_host(&format!("GET transit/keys/{name}"), &json!({})), 200);
    for (asked, body) in [
        ("POST transit/keys/KEY/config", json!({"deletion_allowed": true})),
        ("POST transit/keys/KEY/config", json!({"exportable": true})),
        ("POST transit/keys/KEY/trim", json!({"min_available_version": 1})),
        ("POST transit/keys/KEY/soft-delete", json!({})),
        ("DELETE transit/keys/KEY", json!({})),
        ("GET transit/export/encryption-key/KEY", json!({})),
        ("GET transit/backup/KEY", json!({})),
        ("POST transit/keys/leaves", json!({"type": "aes256-gcm96", "exportable": true})),
        ("LIST transit/keys", json!({})),
        ("GET sys/policies/acl/coffer", json!({})),
    ] {
        assert_eq!(servers.as_a_host(&asked.replace("KEY", name), &body), 403, "{asked} {body}");
    }
}

/// Rights that a policy or a role lacks.
fn rights(servers: &Servers, settings: &kms_client::bao::BaoSettings) {
    let arena = arena();
    let data = key(32, &arena);
    let ours = provider(settings.clone());
    let made = ours.create_key().unwrap();
    let wrapped = ours.wrap(&made, &data, "vm", &arena).unwrap();
    for (lacks, part) in [("decrypt", "decrypt"), ("encrypt", "encrypt"), ("keys", "keys")] {
        let policy: Vec<_> = POLICY.lines().filter(|line| !line.contains(lacks)).collect();
        servers.policy(&policy.join("\n"));
        let error = ours.wrap(&made, &data, "vm", &arena).unwrap_err();
        assert!(matches!(error, KmsError::Denied { .. }), "{error}");
        let needed = format!("on transit/{part}/{}", made.uid());
        says(
            &error,
            &["permission denied (status 403)", "a policy of our role must allow", &needed],
        );
        ours.check();
        let server = ours.status().servers.remove(0);
        assert_eq!(server.reason, Some("NoPermissionToAccessKeyProvider"), "{server:?}");
    }
    servers.policy(POLICY);
    ours.unwrap(&made, &wrapped, "vm", &arena).unwrap();

    // A role that does not know the certificate, and one that does not exist.
    servers.authority.client("stranger", 4000);
    for (tls, role) in [
        (servers.authority.files("stranger"), Some("coffer")),
        (servers.authority.files("stranger"), None),
        (servers.authority.files("client"), Some("nobody")),
    ] {
        let role = role.map(ToOwned::to_owned);
        let theirs = provider(kms_client::bao::BaoSettings { tls, role, ..settings.clone() });
        let error = theirs.create_key().unwrap_err();
        assert!(matches!(error, KmsError::Denied { .. }), "{error}");
        says(
            &error,
            &["log-in by certificate: it gives no token for our certificate", "auth/cert"],
        );
        theirs.check();
        let server = theirs.status().servers.remove(0);
        assert_eq!((server.up, server.trusts_us), (Some(true), Some(false)), "{server:?}");
        assert_eq!(server.reason, Some("NoPermissionToAccessKeyProvider"));
    }
    let elsewhere = kms_client::bao::BaoSettings { mount: "nowhere".into(), ..settings.clone() };
    let error = provider(elsewhere).create_key().unwrap_err();
    says(&error, &["OpenBao server 127.0.0.1:", "nowhere"]);
    let elsewhere =
        kms_client::bao::BaoSettings { auth_mount: "nowhere".into(), ..settings.clone() };
    let error = provider(elsewhere).create_key().unwrap_err();
    says(&error, &["log-in by certificate", "nowhere"]);
}

/// A named key, with rights on nothing else.
fn a_key_of_the_administrator(servers: &Servers, settings: &kms_client::bao::BaoSettings) {
    servers.policy(
        "path \"transit/keys/hosts\" { capabilities = [\"read\"] }\n\
         path \"transit/encrypt/hosts\" { capabilities = [\"update\"] }\n\
         path \"transit/decrypt/hosts\" { capabilities = [\"update\"] }",
    );
    let keys = KeyChoice::Named("hosts".into());
    let ours = provider(kms_client::bao::BaoSettings { keys, ..settings.clone() });
    let error = ours.create_key().unwrap_err();
    says(&error, &["it has no key hosts"]);
    servers.does(0, "POST transit/keys/hosts", json!({"type": "aes256-gcm96"}));
    assert_eq!(ours.create_key().unwrap(), id("hosts"));
    let arena = arena();
    let data = key(64, &arena);
    let wrapped = ours.wrap(&id("hosts"), &data, "vm", &arena).unwrap();
    ours.unwrap(&id("hosts"), &wrapped, "vm", &arena).unwrap();
    ours.check();
    assert_eq!(ours.status().servers[0].key_fetched, Some(true));
    // Rotating it is the administrator's.
    let error = ours.renew(&id("hosts")).unwrap_err();
    says(&error, &["rotating the key: permission denied", "update on transit/keys/hosts/rotate"]);
    servers.does(0, "POST transit/keys/hosts/rotate", json!({}));
    let newer = ours.wrap(&id("hosts"), &data, "vm", &arena).unwrap();
    assert_eq!((version(&wrapped).as_str(), version(&newer).as_str()), ("v1", "v2"));
    servers.policy(POLICY);
}

fn sealed(servers: &Servers, provider: &kms_client::bao::BaoProvider, made: &crypto::KeyId) {
    let arena = arena();
    let data = key(32, &arena);
    let wrapped = provider.wrap(made, &data, "vm", &arena).unwrap();
    servers.does(0, "POST sys/seal", json!({}));
    servers.wait_for(0, &[503]);
    let error = provider.unwrap(made, &wrapped, "vm", &arena).map(drop).unwrap_err();
    assert!(matches!(error, KmsError::Unavailable { .. }), "{error}");
    says(&error, &["decrypt: it is sealed", "bao operator unseal"]);
    provider.check();
    let server = provider.status().servers.remove(0);
    assert_eq!((server.up, server.reason), (Some(false), Some("KeyStateClusterUnreachable")));
    servers.unseal(0);
    servers.wait_for(0, &[200]);
    provider.unwrap(made, &wrapped, "vm", &arena).unwrap();
}
