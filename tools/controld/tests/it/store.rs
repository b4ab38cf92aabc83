//! Both stores: the same checks, and for etcd what only a cluster can suffer.

use crate::etcd::{Cluster, NodeTls, is_there};
use crate::suite::{self, events};
use controld::store::{
    EmbeddedStore, EtcdSettings, EtcdStore, EtcdTls, EventKind, Revision, Store, StoreError, Txn,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn open(cluster: &Cluster, prefix: &str) -> Arc<EtcdStore> {
    let settings = EtcdSettings { endpoints: cluster.urls(), prefix: prefix.into(), tls: None };
    Arc::new(EtcdStore::open(&settings).unwrap())
}

#[test]
fn the_embedded_store_does_what_every_store_must() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> =
        Arc::new(EmbeddedStore::open(&dir.path().join("store.redb")).unwrap());
    suite::run(&store);
}

#[test]
fn three_etcd_nodes_do_what_every_store_must() {
    if !is_there() {
        return;
    }
    let cluster = Cluster::start(3, None);
    cluster.leader();
    // Two prefixes do not see each other.
    let other = open(&cluster, "/coffer/other/");
    other.commit(&Txn::new().put("absent/key", "1")).unwrap();
    let store: Arc<dyn Store> = open(&cluster, "/coffer/test/");
    suite::run(&store);
    assert_eq!(other.scan("", None, 10).unwrap().entries.len(), 1);
}

/// Counts up while the leader is killed and comes back: no step is lost and none is done twice.
#[test]
fn a_leader_that_is_killed_costs_no_commit() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::start(3, None);
    let leader = cluster.leader();
    let store = open(&cluster, "");
    let mut watch = store.watch("n", Revision::ABSENT).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let counter = std::thread::spawn({
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        move || count(&store, &stop)
    });
    std::thread::sleep(Duration::from_millis(500));
    cluster.kill(leader);
    let next = cluster.leader();
    assert_ne!(next, leader);
    std::thread::sleep(Duration::from_millis(500));
    cluster.start_node(leader);
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let (done, uncertain) = counter.join().unwrap();
    let found = store.get("n").unwrap().unwrap();
    let total: usize = String::from_utf8(found.value).unwrap().parse().unwrap();
    assert!(done > 0 && total >= done && total <= done + uncertain, "{done} {uncertain} {total}");
    // The watch lived through it, and missed nothing.
    let told = events(watch.as_mut(), total);
    assert_eq!(told.len(), total);
    assert!(told.iter().all(|event| event.kind == EventKind::Put));
    assert!(told.windows(2).all(|pair| pair[0].revision < pair[1].revision));
}

/// How many steps were done, and of how many it is not known.
fn count(store: &EtcdStore, stop: &AtomicBool) -> (usize, usize) {
    let (mut done, mut uncertain) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let Ok(found) = store.get("n") else { continue };
        let revision = found.as_ref().map_or(Revision::ABSENT, |entry| entry.revision);
        let n: usize =
            found.map_or(0, |entry| String::from_utf8(entry.value).unwrap().parse().unwrap());
        match store.commit(&Txn::new().expect("n", revision).put("n", (n + 1).to_string())) {
            Ok(_) => done += 1,
            Err(StoreError::Uncertain { .. }) => uncertain += 1,
            // An earlier step of unknown outcome came through after all.
            Err(e) => {
                assert!(e.is_conflict() || matches!(e, StoreError::Unavailable { .. }), "{e}");
            }
        }
    }
    (done, uncertain)
}

#[test]
fn without_a_majority_there_is_an_error_and_no_answer() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::start(3, None);
    let leader = cluster.leader();
    let store = open(&cluster, "");
    store.commit(&Txn::new().put("a", "1")).unwrap();
    cluster.kill(leader);
    cluster.kill((leader + 1) % 3);
    let begun = Instant::now();
    let read = store.get("a");
    assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
    let message = read.unwrap_err().to_string();
    assert!(message.contains("does not answer"), "{message}");
    let commit = store.commit(&Txn::new().put("a", "2"));
    assert!(matches!(commit, Err(StoreError::Uncertain { .. })), "{commit:?}");
    // A bound, not a measurement: nothing waits for ever.
    assert!(begun.elapsed() < Duration::from_secs(300));
    cluster.start_node(leader);
    cluster.leader();
    let again = store.get("a").unwrap().unwrap().value;
    assert!(again == b"1" || again == b"2", "one of the two, whole: {again:?}");
    // Nobody there at all is certain: it was not done.
    (0..3).for_each(|n| cluster.kill(n));
    let commit = store.commit(&Txn::new().put("a", "3"));
    assert!(
        matches!(commit, Err(StoreError::Unavailable { .. } | StoreError::Uncertain { .. })),
        "{commit:?}"
    );
}

#[test]
fn etcd_is_reached_over_tls_with_certificates_on_both_sides() {
    if !is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    certificates(dir.path());
    let tls = NodeTls { ca: path("ca.pem"), certificate: path("node.pem"), key: path("node.key") };
    let cluster = Cluster::start(1, Some(tls));
    let settings = |identity| EtcdSettings {
        endpoints: cluster.urls(),
        prefix: "/coffer/".into(),
        tls: Some(EtcdTls { ca: path("ca.pem"), identity }),
    };
    let ours = Some((path("client.pem"), path("client.key")));
    let store = EtcdStore::open(&settings(ours)).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while let Err(e) = store.commit(&Txn::new().put("a", "1")) {
        assert!(Instant::now() < end, "{e}; {}", cluster.logs());
    }
    assert_eq!(store.get("a").unwrap().unwrap().value, b"1");
    let nobody = EtcdStore::open(&settings(None)).unwrap();
    assert!(nobody.get("a").is_err(), "etcd asks for a certificate");
    let strange = EtcdTls { ca: path("other.pem"), identity: None };
    let wrong = EtcdSettings { tls: Some(strange), ..settings(None) };
    let message = EtcdStore::open(&wrong).unwrap().get("a").unwrap_err().to_string();
    assert!(message.contains("certificate"), "{message}");
}

/// An authority, a node and a client it signed, and an authority that nobody knows.
fn certificates(dir: &Path) {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        Issuer::new(params, key)
    };
    authority("other");
    let ca = authority("ca");
    for name in ["node", "client"] {
        let names = vec!["127.0.0.1".to_owned(), name.to_owned()];
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
