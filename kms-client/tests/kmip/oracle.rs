//! The client against PyKMIP, which shares no code with it.

use crate::pki::Authority;
use crate::pykmip::{PyKmip, Suite};
use crate::session::{BUDGETS, arena, session, whole_life};
use crypto::Kek;
use kms_client::kmip::KmipProvider;
use kms_client::kmip::fault::Fault;
use kms_client::kmip::request::Attribute;
use kms_client::kmip::values::{ResultReason, State, Version};
use kms_client::{Health, KeyProvider};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[test]
fn a_key_lives_and_dies_in_every_version() {
    let authority = Authority::new();
    for version in [Version::V1_0, Version::V1_1, Version::V1_2, Version::V1_4] {
        // A database each: ids and names start anew.
        let database = authority.path(&format!("{version}.db"));
        let Some(server) = PyKmip::start(&authority, "server", &database, Suite::Stock) else {
            return;
        };
        let node = server.node(authority.identity("client"), version, BUDGETS);
        let mut talk = session(&node).unwrap();
        assert_eq!(talk.version(), version);
        assert_eq!(whole_life(&mut talk, &arena()), "1", "short ids are ids as well");
    }
}

#[test]
fn what_else_it_has_and_what_it_lacks() {
    let authority = Authority::new();
    let database = authority.path("keys.db");
    let Some(server) = PyKmip::start(&authority, "server", &database, Suite::Modern) else {
        return;
    };
    let (node, arena) =
        (server.node(authority.identity("client"), Version::V1_1, BUDGETS), arena());
    let mut talk = session(&node).unwrap();
    let facts = talk.query().unwrap();
    assert!(facts.operations.contains(&1) && !facts.clone, "{facts:?}");

    // A key that was made here. PyKMIP demands what it cannot take from the key itself.
    let made = Kek::generate(&arena).unwrap();
    let uid = talk.register(&made, Some("made-here")).unwrap();
    assert_eq!(talk.get(&uid, &arena).unwrap().check_value(), made.check_value());
    assert_eq!(talk.state(&uid).unwrap(), Some(State::PreActive));
    let told = talk.attributes(&uid, &["Name", "Cryptographic Length"]).unwrap();
    assert_eq!(told.len(), 2, "{told:?}");

    // Tags and a new key for an old one are unknown to it; the whole message is refused, and life goes on.
    let tags = [Attribute::text("x-Vendor", "Coffer"), Attribute::text("x-Name", "web01")];
    let taken = talk.add_attributes(&uid, &tags).unwrap();
    assert!(taken.len() == 2 && taken.iter().all(Result::is_err), "{taken:?}");
    let error = talk.rekey(&uid).unwrap_err();
    assert!(matches!(error.fault, Fault::Refused(_)), "{error}");
    talk.get(&uid, &arena).unwrap();

    // Another client sees nothing of it.
    authority.client("stranger", 4000);
    let node = server.node(authority.identity("stranger"), Version::V1_1, BUDGETS);
    let mut talk = session(&node).unwrap();
    assert!(talk.locate(None).unwrap().is_empty());
    let error = talk.get(&uid, &arena).unwrap_err();
    let reason = error.fault.reason();
    assert!(reason == Some(ResultReason::PermissionDenied), "{error}");
}

#[test]
fn it_refuses_a_client_of_another_authority() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for suite in [Suite::Stock, Suite::Modern] {
        let database = theirs.path("keys.db");
        let Some(server) = PyKmip::start(&theirs, "server", &database, suite) else { return };
        let trust = kms_client::kmip::tls::Trust::Authority(theirs.path("ca.pem"));
        let files = kms_client::kmip::tls::TlsFiles { trust, ..ours.files("client") };
        let identity = kms_client::kmip::tls::Identity::new(files, crate::pki::now);
        let node = server.node(std::sync::Arc::new(identity), Version::V1_1, BUDGETS);
        let error = session(&node).map(drop).unwrap_err();
        assert!(matches!(error.fault, Fault::ClientRejected { .. }), "{error}");
    }
}

/// With an RSA certificate the suites of the package as it comes are those that nobody here speaks any more.
#[test]
fn an_rsa_certificate_needs_modern_suites() {
    let authority = Authority::new();
    authority.rsa_server("rsa");
    let database = authority.path("keys.db");
    let Some(stock) = PyKmip::start(&authority, "rsa", &database, Suite::Stock) else { return };
    let node = stock.node(authority.identity("client"), Version::V1_1, BUDGETS);
    let error = session(&node).map(drop).unwrap_err();
    assert!(matches!(error.fault, Fault::NoCommonSuite(_)), "{error}");
    drop(stock);
    let Some(modern) = PyKmip::start(&authority, "rsa", &database, Suite::Modern) else { return };
    let node = modern.node(authority.identity("client"), Version::V1_1, BUDGETS);
    session(&node).unwrap().create(None).unwrap();
}

/// Two servers over one database are a pair that replicates at once.
#[test]
fn a_pair_goes_on_when_one_is_killed_under_load() {
    let authority = Authority::new();
    let database = authority.path("pair.db");
    let Some(mut first) = PyKmip::start(&authority, "server", &database, Suite::Modern) else {
        return;
    };
    let Some(second) = PyKmip::start(&authority, "server", &database, Suite::Modern) else {
        return;
    };
    let address = |server: &PyKmip| ([127, 0, 0, 1], server.port).into();
    let settings = crate::cluster::settings(&authority, &[address(&first), address(&second)]);
    let arena = arena();
    let provider = KmipProvider::open(settings, crate::pki::now, &arena).unwrap();
    let ids: Vec<_> = (0..4).map(|_| provider.create_key().unwrap()).collect();
    assert!(provider.status().alarms.is_empty(), "{:?}", provider.status().alarms);
    provider.check();
    assert_eq!(provider.status().health, Health::Ready, "{:?}", provider.status());

    let fetched = AtomicUsize::new(0);
    let killed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for id in &ids {
            let (provider, arena, fetched, killed) = (&provider, &arena, &fetched, &killed);
            scope.spawn(move || {
                let value = provider.fetch(id, arena).unwrap().check_value();
                let mut after = 0;
                while after < 20 {
                    assert_eq!(provider.fetch(id, arena).unwrap().check_value(), value);
                    fetched.fetch_add(1, Ordering::SeqCst);
                    after += usize::from(killed.load(Ordering::SeqCst));
                }
            });
        }
        // A thread that failed counts no more; the others must still be told to end.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while fetched.load(Ordering::SeqCst) < 20 && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        first.kill();
        killed.store(true, Ordering::SeqCst);
    });
    assert!(fetched.load(Ordering::SeqCst) >= 20, "too few fetches before the server was killed");
    // New keys as well.
    let id = provider.create_key().unwrap();
    provider.fetch(&id, &arena).unwrap();
    provider.check();
    let status = provider.status();
    assert_eq!(status.health, Health::Ready);
    assert_eq!(status.servers[0].reason, Some("KeyStateClusterUnreachable"));
}
