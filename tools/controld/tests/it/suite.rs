//! What every store must do, whatever is behind it.
//!
//! Owns the checks; must not know a backend. Each check has keys of its own, so that one store serves all of them.

use controld::store::{
    Event, EventKind, Leadership, MAX_PAGE, Revision, Session, Standing, Store, StoreError, Txn,
    Watch, campaign, leader, watch_key,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Check = (&'static str, fn(&Arc<dyn Store>));

/// All checks.
const ALL: &[Check] = &[
    ("an absent key", absent),
    ("write, read, overwrite, delete", lifecycle),
    ("a comparison that does not hold changes nothing", conflict),
    ("a transaction is whole", whole),
    ("limits", limits),
    ("pages of a scan", pages),
    ("prefixes that look alike", prefixes),
    ("a watch from a revision on", watch),
    ("counting with many threads", counting),
    ("keys go with their lease", leases),
    ("a lease that ended cannot be used", lost_lease),
    ("leaders and fences", elections),
];

/// Runs them.
pub(crate) fn run(store: &Arc<dyn Store>) {
    for (name, check) in ALL {
        println!("  {name}");
        check(store);
    }
}

fn value(store: &Arc<dyn Store>, key: &str) -> Option<String> {
    store.get(key).unwrap().map(|entry| String::from_utf8(entry.value).unwrap())
}

fn conflict_at(outcome: Result<Revision, StoreError>) -> String {
    match outcome {
        Err(StoreError::Conflict { key }) => key,
        other => panic!("{other:?} is no conflict"),
    }
}

fn absent(store: &Arc<dyn Store>) {
    assert_eq!(store.get("absent/key").unwrap(), None);
    let page = store.scan("absent/", None, 10).unwrap();
    assert_eq!((page.entries.len(), page.more), (0, false));
    store.commit(&Txn::new().delete("absent/key")).unwrap();
}

fn lifecycle(store: &Arc<dyn Store>) {
    let key = "life/key";
    let created = Txn::new().expect(key, Revision::ABSENT).put(key, "one");
    let first = store.commit(&created).unwrap();
    let entry = store.get(key).unwrap().unwrap();
    assert_eq!((entry.key.as_str(), entry.revision), (key, first));
    assert_eq!(conflict_at(store.commit(&created)), key);
    let second = store.commit(&Txn::new().expect(key, first).put(key, "two")).unwrap();
    assert!(second > first);
    assert_eq!(conflict_at(store.commit(&Txn::new().expect(key, first).put(key, "late"))), key);
    assert_eq!(value(store, key).as_deref(), Some("two"));
    store.commit(&Txn::new().expect(key, second).delete(key)).unwrap();
    assert_eq!(value(store, key), None);
    let again = store.commit(&created).unwrap();
    assert!(again > second, "a new key has a new revision");
    store.commit(&Txn::new().put("life/empty", "").put("life/bytes", vec![0, 255, 10])).unwrap();
    assert_eq!(store.get("life/empty").unwrap().unwrap().value, b"");
    assert_eq!(store.get("life/bytes").unwrap().unwrap().value, [0, 255, 10]);
}

fn conflict(store: &Arc<dyn Store>) {
    let held = store.commit(&Txn::new().put("cas/a", "1")).unwrap();
    let txn = Txn::new()
        .expect("cas/a", held)
        .expect("cas/b", Revision(1))
        .put("cas/a", "2")
        .put("cas/c", "3")
        .delete("cas/a2");
    assert_eq!(conflict_at(store.commit(&txn)), "cas/b");
    assert_eq!(value(store, "cas/a").as_deref(), Some("1"));
    assert_eq!(value(store, "cas/c"), None);
    assert_eq!(store.get("cas/a").unwrap().unwrap().revision, held);
}

fn whole(store: &Arc<dyn Store>) {
    let txn = (0..100).fold(Txn::new(), |txn, n| txn.put(format!("whole/{n:03}"), n.to_string()));
    let revision = store.commit(&txn).unwrap();
    let page = store.scan("whole/", None, 1000).unwrap();
    assert_eq!(page.entries.len(), 100);
    assert!(page.entries.iter().all(|entry| entry.revision == revision));
    let moved = Txn::new().expect("whole/000", revision).delete("whole/000").put("whole/100", "0");
    store.commit(&moved).unwrap();
    assert_eq!((value(store, "whole/000"), value(store, "whole/100")), (None, Some("0".into())));
}

fn limits(store: &Arc<dyn Store>) {
    let many = (0..200).fold(Txn::new(), |txn, n| txn.put(format!("limit/{n}"), ""));
    let twice = Txn::new().put("limit/a", "1").put("limit/a", "2");
    for txn in [many, twice, Txn::new().put("limit/ a", ""), Txn::new().put("", "")] {
        assert!(matches!(store.commit(&txn), Err(StoreError::Limit(_))));
    }
    assert!(store.scan("limit/", None, 10).unwrap().entries.is_empty());
    let large = (0..11).fold(Txn::new(), |txn, n| txn.put(format!("limit/{n}"), vec![b'x'; 65536]));
    store.commit(&large).unwrap();
    assert_eq!(store.scan("limit/", None, 100).unwrap().entries.len(), 11);
    for life in [Duration::from_secs(1), Duration::from_secs(3601)] {
        assert!(matches!(store.grant(life), Err(StoreError::Limit(_))));
    }
}

fn pages(store: &Arc<dyn Store>) {
    const KEYS: usize = MAX_PAGE + 201;
    for start in (0..KEYS).step_by(100) {
        let part = start..(start + 100).min(KEYS);
        let txn = part.fold(Txn::new(), |txn, n| txn.put(format!("page/{n:05}"), n.to_string()));
        store.commit(&txn).unwrap();
    }
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.scan("page/", after.as_deref(), 300).unwrap();
        assert!(page.entries.len() <= 300);
        seen.extend(page.entries.iter().map(|entry| entry.key.clone()));
        after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            break;
        }
    }
    let expected: Vec<_> = (0..KEYS).map(|n| format!("page/{n:05}")).collect();
    assert_eq!(seen, expected);
    let most = store.scan("page/", None, usize::MAX).unwrap();
    assert_eq!((most.entries.len(), most.more), (MAX_PAGE, true));
    let none = store.scan("page/", None, 0).unwrap();
    assert_eq!((none.entries.len(), none.more), (0, true));
    for past in ["page/99999", "page0", "pagf", "zzz"] {
        let page = store.scan("page/", Some(past), 10).unwrap();
        assert_eq!((page.entries.len(), page.more), (0, false), "{past}");
    }
    assert_eq!(store.scan("page/", Some("a"), 10).unwrap().entries[0].key, "page/00000");
    let exact = store.scan("page/", Some(&format!("page/{:05}", KEYS - 11)), 10).unwrap();
    assert_eq!((exact.entries.len(), exact.more), (10, false));
}

fn prefixes(store: &Arc<dyn Store>) {
    let keys = ["pre/a", "pre/a/b", "pre/ab", "pre/b", "pre0", "prf"];
    let txn = keys.iter().fold(Txn::new(), |txn, key| txn.put(*key, ""));
    store.commit(&txn).unwrap();
    let found = |prefix: &str| -> Vec<String> {
        let page = store.scan(prefix, None, 100).unwrap();
        page.entries.into_iter().map(|entry| entry.key).collect()
    };
    assert_eq!(found("pre/"), ["pre/a", "pre/a/b", "pre/ab", "pre/b"]);
    assert_eq!(found("pre/a"), ["pre/a", "pre/a/b", "pre/ab"]);
    assert_eq!(found("pre/a/"), ["pre/a/b"]);
    assert!(found("").len() >= keys.len(), "the empty prefix is everything");
}

/// Events until there are `count`, or ten seconds have passed.
pub(crate) fn events(watch: &mut dyn Watch, count: usize) -> Vec<Event> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut all = Vec::new();
    while all.len() < count && Instant::now() < end {
        all.extend(watch.next(Duration::from_millis(500)).unwrap());
    }
    all
}

fn watch(store: &Arc<dyn Store>) {
    let first = store.commit(&Txn::new().put("watch/a", "1")).unwrap();
    let second = store.commit(&Txn::new().put("watch/b", "1")).unwrap();
    let mut late = store.watch("watch/", first).unwrap();
    let mut now = store.watch("watch/", store.scan("watch/", None, 1).unwrap().revision).unwrap();
    store.commit(&Txn::new().put("elsewhere/a", "1")).unwrap();
    let third = store.commit(&Txn::new().put("watch/a", "2").delete("watch/b")).unwrap();
    let put = |key: &str, revision| Event { key: key.into(), revision, kind: EventKind::Put };
    let deleted =
        |key: &str, revision| Event { key: key.into(), revision, kind: EventKind::Deleted };
    let both = [put("watch/a", third), deleted("watch/b", third)];
    assert_eq!(events(now.as_mut(), 2), both);
    let [a, b] = both;
    assert_eq!(events(late.as_mut(), 3), [put("watch/b", second), a, b]);
    assert_eq!(late.next(Duration::from_millis(10)).unwrap(), []);
    // A change while somebody waits wakes them.
    let writer = Arc::clone(store);
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        writer.commit(&Txn::new().put("watch/c", "1")).unwrap()
    });
    let woken = events(late.as_mut(), 1);
    assert_eq!(woken, [put("watch/c", thread.join().unwrap())]);
}

fn counting(store: &Arc<dyn Store>) {
    const THREADS: usize = 4;
    const TURNS: usize = 25;
    let workers: Vec<_> = (0..THREADS)
        .map(|_| {
            let store = Arc::clone(store);
            std::thread::spawn(move || (0..TURNS).for_each(|_| increment(store.as_ref())))
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(value(store, "count/total"), Some((THREADS * TURNS).to_string()));
    assert_eq!(value(store, "count/copy"), Some((THREADS * TURNS).to_string()));
}

/// Adds one to two keys, by comparing and swapping the first.
fn increment(store: &dyn Store) {
    loop {
        let found = store.get("count/total").unwrap();
        let revision = found.as_ref().map_or(Revision::ABSENT, |entry| entry.revision);
        let number: usize =
            found.map_or(0, |entry| String::from_utf8(entry.value).unwrap().parse().unwrap());
        let next = (number + 1).to_string();
        let txn = Txn::new()
            .expect("count/total", revision)
            .put("count/total", next.clone())
            .put("count/copy", next);
        match store.commit(&txn) {
            Ok(_) => return,
            Err(e) => assert!(e.is_conflict(), "{e}"),
        }
    }
}

/// Waits until a key is gone, at most half a minute.
fn wait_gone(store: &Arc<dyn Store>, key: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    while store.get(key).unwrap().is_some() {
        assert!(Instant::now() < end, "{key} is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn leases(store: &Arc<dyn Store>) {
    let short = store.grant(Duration::from_secs(2)).unwrap();
    let kept = Session::begin(Arc::clone(store), Duration::from_secs(3)).unwrap();
    let txn = Txn::new()
        .put_under(short, "lease/short", b"1")
        .put_under(kept.lease(), "lease/kept", b"1")
        .put_under(short, "lease/freed", b"1");
    let put = store.commit(&txn).unwrap();
    // Written without a lease, a key is free of it.
    store.commit(&Txn::new().put("lease/freed", "2")).unwrap();
    let mut watch = store.watch("lease/short", put).unwrap();
    let gone = events(watch.as_mut(), 1);
    assert_eq!((gone.len(), gone[0].kind), (1, EventKind::Deleted));
    wait_gone(store, "lease/short");
    std::thread::sleep(Duration::from_secs(2));
    assert!(kept.is_live());
    assert_eq!(value(store, "lease/kept").as_deref(), Some("1"));
    assert_eq!(value(store, "lease/freed").as_deref(), Some("2"));
    drop(kept);
    wait_gone(store, "lease/kept");
    assert!(
        matches!(store.keep_alive(short), Err(StoreError::LeaseLost { lease }) if lease == short)
    );
}

fn lost_lease(store: &Arc<dyn Store>) {
    let lease = store.grant(Duration::from_secs(60)).unwrap();
    store.commit(&Txn::new().put_under(lease, "lost/a", b"1")).unwrap();
    store.revoke(lease).unwrap();
    assert_eq!(value(store, "lost/a"), None);
    store.revoke(lease).unwrap();
    let refused = store.commit(&Txn::new().put_under(lease, "lost/a", b"2").put("lost/b", "2"));
    assert!(
        matches!(refused, Err(StoreError::LeaseLost { lease: named }) if named == lease),
        "{refused:?}"
    );
    assert_eq!(value(store, "lost/b"), None, "nothing of it was done");
}

fn elections(store: &Arc<dyn Store>) {
    let life = Duration::from_secs(5);
    let begin = || Session::begin(Arc::clone(store), life).unwrap();
    let (one, two) = (begin(), begin());
    let lead =
        |session: &Session, name: &str| campaign(store.as_ref(), session, "sweep", name).unwrap();
    let Standing::Leader(first) = lead(&one, "ctl-1") else { panic!("nobody led") };
    assert!(matches!(lead(&two, "ctl-2"), Standing::Follower { leader } if leader == "ctl-1"));
    // Asking again is answered alike: an answer may have been lost.
    assert!(matches!(lead(&one, "ctl-1"), Standing::Leader(again) if again == first));
    let fenced = |who: &Leadership, value: &str| {
        store.commit(&who.fence(Txn::new().put("elect/work", value)))
    };
    fenced(&first, "by 1").unwrap();
    let mut watch = store
        .watch(&watch_key("sweep"), store.get("elect/work").unwrap().unwrap().revision)
        .unwrap();
    drop(one);
    assert_eq!(events(watch.as_mut(), 1)[0].kind, EventKind::Deleted);
    let Standing::Leader(second) = lead(&two, "ctl-2") else { panic!("nobody leads") };
    assert_eq!(leader(store.as_ref(), "sweep").unwrap().as_deref(), Some("ctl-2"));
    assert_eq!(conflict_at(fenced(&first, "late")), watch_key("sweep"));
    fenced(&second, "by 2").unwrap();
    first.resign(store.as_ref()).unwrap();
    assert!(leader(store.as_ref(), "sweep").unwrap().is_some(), "only a leader can resign");
    second.resign(store.as_ref()).unwrap();
    assert_eq!(leader(store.as_ref(), "sweep").unwrap(), None);
}
