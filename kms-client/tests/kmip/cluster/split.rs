//! PyKMIP as servers that ought to be a cluster and are none, or not yet: each has a database of its own.

use super::{open, settings};
use crate::pki::Authority;
use crate::pykmip::{PyKmip, Suite, python};
use crate::session::{BUDGETS, arena, session};
use kms_client::kmip::values::{Revocation, Version};
use kms_client::kmip::{Budgets, KmipProvider, KmipSettings};
use kms_client::{Health, KeyProvider, KmsError};
use std::process::Command;
use std::time::Duration;

/// Two servers, and the names of their databases.
struct Split {
    authority: Authority,
    first: PyKmip,
    second: PyKmip,
}

impl Split {
    /// `None` where there is no PyKMIP.
    fn new() -> Option<Self> {
        let authority = Authority::new();
        let start = |database: &str| {
            PyKmip::start(&authority, "server", &authority.path(database), Suite::Modern)
        };
        let (first, second) = (start("first.db")?, start("second.db")?);
        Some(Self { authority, first, second })
    }

    /// A provider over both, whose operations end soon.
    fn provider(&self, copies: usize, arena: &crypto::Arena) -> KmipProvider {
        let address = |server: &PyKmip| ([127, 0, 0, 1], server.port).into();
        let servers = [address(&self.first), address(&self.second)];
        let budgets = Budgets { operation: Duration::from_secs(6), ..BUDGETS };
        open(KmipSettings { copies, budgets, ..settings(&self.authority, &servers) }, arena)
    }

    /// The second server gets the keys of the first: by a backup of its database, which locks it as its server does.
    fn replicate(&self) {
        let script = "import sqlite3, sys\n\
                      a, b = (sqlite3.connect(p, timeout=30) for p in sys.argv[1:])\n\
                      a.backup(b)";
        let databases = ["first.db", "second.db"].map(|name| self.authority.path(name));
        let done = Command::new(python()).args(["-c", script]).args(databases).status().unwrap();
        assert!(done.success());
    }
}

#[test]
fn a_split_cluster_is_told_from_lost_keys() {
    let Some(mut split) = Split::new() else { return };
    let arena = arena();
    let provider = split.provider(2, &arena);
    let id = provider.create_key().unwrap();
    provider.check();
    let status = provider.status();
    assert_eq!(status.health, Health::Ready, "{status:?}");
    let said = status.alarms.iter().find(|alarm| alarm.contains("found on 1 of 2 servers"));
    assert!(said.is_some(), "{:?}", status.alarms);
    let [first, second] = &status.servers[..] else { panic!("two servers") };
    assert_eq!((first.key_fetched, first.reason), (Some(true), None));
    assert_eq!((second.up, second.key_fetched), (Some(true), Some(false)));
    assert_eq!(second.reason, Some("KeyStateMissingInKMS"));
    let [difference] = &status.differences[..] else { panic!("{:?}", status.differences) };
    assert_eq!((&difference.key, difference.reason), (&id, "KeyStateMissingInKMS"));
    let states: Vec<_> = difference.said.iter().map(|said| said.state.as_str()).collect();
    assert_eq!(states, ["Active", "not found"]);
    provider.fetch(&id, &arena).unwrap();
    // The one that has the key is gone: it may have it still.
    split.first.kill();
    let error = provider.fetch(&id, &arena).unwrap_err();
    assert!(matches!(error, KmsError::Unavailable { .. }), "{error}");
    // The same once the key is no more young.
    let other = split.provider(2, &arena);
    let error = other.fetch(&id, &arena).unwrap_err();
    assert!(matches!(error, KmsError::Unavailable { .. }), "{error}");
}

#[test]
fn servers_that_give_different_keys_under_one_id_are_no_cluster() {
    let Some(split) = Split::new() else { return };
    let arena = arena();
    let node = split.second.node(split.authority.identity("client"), Version::V1_1, BUDGETS);
    let mut talk = session(&node).unwrap();
    for uid in ["1", "2"] {
        assert_eq!(talk.create(None).unwrap(), uid);
        talk.activate(uid).unwrap();
    }
    let provider = split.provider(2, &arena);
    // What one of them says is another key than what the other says: nothing may be encrypted by it.
    let error = provider.create_key().unwrap_err();
    assert!(matches!(error, KmsError::BadKey { .. }), "{error}");
    let stranger = format!("127.0.0.1:{} has another key under the id 1", split.second.port);
    assert!(error.to_string().contains(&stranger), "{error}");
    provider.check();
    let servers = provider.status().servers;
    let odd: Vec<_> = servers.iter().filter(|s| s.key_fetched == Some(false)).collect();
    assert!(odd.len() == 1 && odd[0].reason == Some("KeyStateClusterInvalid"), "{servers:?}");
}

#[test]
fn a_key_that_arrives_late_is_waited_for() {
    let Some(mut split) = Split::new() else { return };
    let arena = arena();
    let provider = split.provider(1, &arena);
    let id = provider.create_key().unwrap();
    let value = provider.fetch(&id, &arena).unwrap().check_value();
    split.first.kill();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // After the second server has said that it has no such key.
            std::thread::sleep(Duration::from_millis(500));
            split.replicate();
        });
        assert_eq!(provider.fetch(&id, &arena).unwrap().check_value(), value);
    });
}

#[test]
fn a_key_that_one_server_took_back_or_lost_is_told() {
    let Some(split) = Split::new() else { return };
    let arena = arena();
    let provider = split.provider(1, &arena);
    let id = provider.create_key().unwrap();
    // The key for checks goes over as well.
    provider.check();
    split.replicate();
    provider.check();
    let status = provider.status();
    assert!(status.differences.is_empty() && status.alarms.is_empty(), "{status:?}");

    let node = split.second.node(split.authority.identity("client"), Version::V1_1, BUDGETS);
    let mut talk = session(&node).unwrap();
    talk.revoke(id.uid(), Revocation::CessationOfOperation, "on one server alone").unwrap();
    let told = |wanted: &str, reason: &str| {
        provider.check();
        let differences = provider.status().differences;
        let [difference] = &differences[..] else { panic!("{differences:?}") };
        let states: Vec<_> = difference.said.iter().map(|said| said.state.as_str()).collect();
        assert_eq!((&*states, difference.reason), (&["Active", wanted][..], reason));
        assert!(provider.may_wrap(&id).is_err(), "it wraps, although it is {wanted}");
        provider.fetch(&id, &arena).unwrap();
    };
    told("Deactivated", "KeyStateDiffers");
    talk.destroy(id.uid()).unwrap();
    told("not found any more", "KeyStateMissingInKMS");
    // It comes back from the other one.
    split.replicate();
    provider.check();
    assert!(provider.status().differences.is_empty());
    provider.may_wrap(&id).unwrap();
}

/// Keys are given to whom the rules of the server let have them, and to no other.
#[test]
fn another_host_has_a_key_by_the_rules_of_the_server() {
    let authority = Authority::new();
    authority.client("other", 4000);
    let folder = authority.path("policies");
    std::fs::create_dir(&folder).unwrap();
    let rules = r#"{"hosts": {"preset": {"SYMMETRIC_KEY":
        {"GET": "ALLOW_ALL", "GET_ATTRIBUTES": "ALLOW_ALL", "ACTIVATE": "ALLOW_OWNER"}}}}"#;
    std::fs::write(folder.join("hosts.json"), rules).unwrap();
    let database = authority.path("keys.db");
    let Some(server) = PyKmip::start(&authority, "server", &database, Suite::Modern) else {
        return;
    };
    let arena = arena();
    let mine = settings(&authority, &[([127, 0, 0, 1], server.port).into()]);
    let theirs = KmipSettings { tls: authority.files("other"), ..mine.clone() };
    let other = open(theirs, &arena);
    let alone = open(mine.clone(), &arena).create_key().unwrap();
    let error = other.fetch(&alone, &arena).unwrap_err();
    assert!(matches!(error, KmsError::Denied { .. }), "{error}");
    let sharing = open(KmipSettings { operation_policy: Some("hosts".into()), ..mine }, &arena);
    // PyKMIP reads its rules once a second.
    let mut made = sharing.create_key();
    for _ in 0..100 {
        if made.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        made = sharing.create_key();
    }
    let shared = made.unwrap();
    let value = sharing.fetch(&shared, &arena).unwrap().check_value();
    assert_eq!(other.fetch(&shared, &arena).unwrap().check_value(), value);
}
