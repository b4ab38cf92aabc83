//! What a push is judged by, and what it does to keyring and VMs; without the network.

use super::*;
use crate::testing::{TestHost, code, refused};
use cluster::seal;
use crypto::Kek;
use hostd_api::control::{Actor, SealedKey};
use hostd_api::types::{CreateVm, HomeNames, KeyringState, RotateKeys, VmState};
use std::time::{Duration, Instant};

/// A control plane in the test: two keys of a provider that the host does not have.
struct Plane {
    arena: Arena,
    keys: Vec<(KeyId, Kek)>,
}

impl Plane {
    fn new() -> Self {
        let arena = Arena::new(64 * 1024).unwrap();
        let key =
            |uid: &str| (format!("vault/{uid}").parse().unwrap(), Kek::generate(&arena).unwrap());
        let keys = vec![key("a"), key("b")];
        Self { arena, keys }
    }

    /// A push of the first `count` keys.
    fn push(&self, t: &TestHost, generation: u64, count: usize) -> PushKeys {
        let identity = t.host.control_identity().unwrap();
        let keys = self.keys.iter().take(count).map(|(id, kek)| (id, kek));
        seal(&identity, generation, keys).unwrap()
    }

    fn pushed(&self, t: &TestHost, generation: u64, count: usize) -> Vec<PushOutcome> {
        outcomes(&t.host.push_keys(&self.push(t, generation, count)).unwrap())
    }
}

fn outcomes(answer: &PushAnswer) -> Vec<PushOutcome> {
    answer.keys.iter().map(|key| key.outcome).collect()
}

fn create(t: &TestHost, name: &str, key: &str) -> Result<VmInfo, Fault> {
    t.host.create_vm(&CreateVm {
        name: name.into(),
        datastore: None,
        names: HomeNames::Plain,
        key_id: Some(key.into()),
    })
}

fn lock_code(t: &TestHost, vm: &str) -> Option<LockCode> {
    t.host.show_vm(vm).unwrap().lock.map(|lock| lock.code)
}

/// Waits for the thread that looks at VMs after a push.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn evict(generation: u64, force: bool) -> EvictKey {
    EvictKey { generation, force }
}

#[test]
fn a_vm_is_made_under_a_pushed_key_and_locked_without_it() {
    let (plane, t) = (Plane::new(), TestHost::with_plane());
    assert_eq!(t.host.crypto_state(), CryptoState::Safe, "it has a provider");
    assert_eq!(refused(create(&t, "web01", "vault/a")).lock.unwrap().code, LockCode::KeyNotPushed);
    assert_eq!(code(create(&t, "web01", "nonsense")), ErrorCode::InvalidArgument);
    assert_eq!(plane.pushed(&t, 1, 1), [PushOutcome::Taken]);
    assert_eq!(plane.pushed(&t, 1, 1), [PushOutcome::Present], "the same again");
    let vm = create(&t, "web01", "vault/a").unwrap();
    assert_eq!(vm.key_ids, ["vault/a"]);
    t.disk("web01", "root");
    let key = &t.host.key_status().unwrap().keys[0];
    assert_eq!((key.id.as_str(), key.pushed), ("vault/a", true));

    let t = t.restarted();
    assert_eq!(lock_code(&t, "web01"), Some(LockCode::KeyNotPushed));
    let error = refused(t.host.unlock_vm("web01"));
    assert_eq!(error.lock.unwrap().key_id.as_deref(), Some("vault/a"));
    let identity = t.host.control_identity().unwrap();
    assert_eq!((identity.wants, identity.has), (vec!["vault/a".to_owned()], vec![]));
    let shown = &t.host.control_vms().unwrap()[0];
    assert_eq!((shown.state, shown.who), (VmState::Locked, Some(Actor::ControlPlane)));
    let reason = shown.lock.as_ref().unwrap().reason.as_deref();
    assert_eq!(reason, Some("KeyStateMissingInCache"), "as vSphere names it");
    assert_eq!(plane.pushed(&t, 1, 1), [PushOutcome::Taken]);
    until("the VM is unlocked", || lock_code(&t, "web01").is_none());
    let identity = t.host.control_identity().unwrap();
    assert_eq!((identity.wants, identity.has), (vec![], vec!["vault/a".to_owned()]));
    t.host.unlock_vm("web01").unwrap();
}

#[test]
fn what_is_for_another_host_start_or_time_is_refused() {
    let (plane, t, other) = (Plane::new(), TestHost::with_plane(), TestHost::with_plane());
    let push = plane.push(&t, 3, 1);
    let for_other = plane.push(&other, 3, 1);
    let stale = |t: &TestHost, push: &PushKeys, why: &str| {
        let error = refused(t.host.push_keys(push));
        assert_eq!(error.code, ErrorCode::StalePush);
        assert!(error.message.contains(why), "{}", error.message);
    };
    stale(&t, &for_other, "sealed for host");
    // With the names of this host it is the sealing that tells.
    let forged = PushKeys { host_id: push.host_id, boot_id: push.boot_id, ..for_other };
    assert_eq!(outcomes(&t.host.push_keys(&forged).unwrap()), [PushOutcome::SealedElsewhere]);
    assert_eq!(outcomes(&t.host.push_keys(&push).unwrap()), [PushOutcome::Taken]);
    stale(&t, &plane.push(&t, 2, 1), "older");
    let lifted = PushKeys { generation: 4, ..plane.push(&t, 3, 2) };
    let answer = t.host.push_keys(&lifted).unwrap();
    assert_eq!(outcomes(&answer), [PushOutcome::SealedElsewhere; 2]);
    assert_eq!(answer.generation, 4);
    assert_eq!(code(t.host.push_keys(&plane.push(&t, 0, 1))), ErrorCode::InvalidArgument);

    let t = t.restarted();
    stale(&t, &push, "another start");
    let boot_id = t.host.control_identity().unwrap().boot_id;
    let forged = PushKeys { boot_id, ..push };
    assert_eq!(outcomes(&t.host.push_keys(&forged).unwrap()), [PushOutcome::SealedElsewhere]);
    assert!(t.host.keyring.pushed_ids().is_empty());
}

#[test]
fn each_key_of_a_push_is_judged_alone() {
    let (plane, t) = (Plane::new(), TestHost::with_plane());
    let mut push = plane.push(&t, 1, 2);
    let good = push.keys[1].clone();
    let swapped = SealedKey { id: good.id.clone(), sealed: push.keys[0].sealed.clone() };
    let cut = SealedKey { id: good.id.clone(), sealed: good.sealed[..158].to_owned() };
    let unnamed = SealedKey { id: "vault".into(), ..good.clone() };
    push.keys = vec![swapped, cut, unnamed, good.clone()];
    let answer = t.host.push_keys(&push).unwrap();
    use PushOutcome::{BadId, SealedElsewhere, Taken};
    assert_eq!(outcomes(&answer), [SealedElsewhere, SealedElsewhere, BadId, Taken]);
    assert!(answer.keys[..3].iter().all(|key| key.detail.is_some() && !key.outcome.is_here()));
    assert!(answer.keys[3].detail.is_none());

    let identity = t.host.control_identity().unwrap();
    let another = Kek::generate(&plane.arena).unwrap();
    let own: KeyId = "native/x".parse().unwrap();
    let push = seal(&identity, 1, [(&plane.keys[1].0, &another), (&own, &another)]).unwrap();
    let answer = t.host.push_keys(&push).unwrap();
    assert_eq!(outcomes(&answer), [PushOutcome::OtherKey, PushOutcome::OwnProvider]);

    let many = PushKeys { keys: vec![good; MAX_PUSHED_AT_ONCE + 1], ..push };
    assert_eq!(code(t.host.push_keys(&many)), ErrorCode::InvalidArgument);
}

#[test]
fn a_host_without_room_for_keys_says_so() {
    let (plane, t) = (Plane::new(), TestHost::with_plane());
    let push = plane.push(&t, 1, 1);
    let arena = t.host.keyring.arena();
    let mut filling = Vec::new();
    while let Ok(key) = Kek::generate(arena) {
        filling.push(key);
    }
    assert_eq!(outcomes(&t.host.push_keys(&push).unwrap()), [PushOutcome::NoRoom]);
    filling.clear();
    assert_eq!(outcomes(&t.host.push_keys(&push).unwrap()), [PushOutcome::Taken]);
}

#[test]
fn an_eviction_forgets_the_key_and_no_older_push_brings_it_back() {
    let (plane, t) = (Plane::new(), TestHost::with_plane());
    let recorded = plane.push(&t, 1, 2);
    t.host.push_keys(&recorded).unwrap();
    create(&t, "web01", "vault/a").unwrap();
    let lease = t.host.keyring.lease(&plane.keys[0].0, "web01").unwrap();
    assert_eq!(code(t.host.evict_pushed("vault/a", &evict(1, true))), ErrorCode::StalePush);
    let error = refused(t.host.evict_pushed("vault/a", &evict(2, false)));
    assert_eq!(error.code, ErrorCode::InUse);
    assert!(error.message.contains("web01"), "{}", error.message);
    assert_eq!(t.host.control_identity().unwrap().generation, 1, "a refused eviction is none");

    let usage = lease.into_usage();
    let used = t.host.keyring.arena().usage().used;
    let answer = t.host.evict_pushed("vault/a", &evict(2, true)).unwrap();
    assert_eq!((answer.was_here, answer.used_by), (true, vec!["web01".to_owned()]));
    assert!(t.host.keyring.arena().usage().used < used, "the key is gone although it is used");
    assert_eq!(lock_code(&t, "web01"), Some(LockCode::KeyNotPushed));
    assert_eq!(code(t.host.push_keys(&recorded)), ErrorCode::StalePush);
    assert_eq!(plane.pushed(&t, 2, 1), [PushOutcome::Taken], "a newer list may have it again");
    let again = t.host.keyring.lease(&plane.keys[0].0, "web01").unwrap();
    drop(usage);
    let used = code(t.host.evict_pushed("vault/a", &evict(3, false)));
    assert_eq!(used, ErrorCode::InUse, "the late end of an earlier use is not one of this key");
    drop(again);
    assert_eq!(t.host.keyring.state(&plane.keys[0].0), KeyringState::Present, "it stays");

    let absent = t.host.evict_pushed("vault/none", &evict(2, false)).unwrap();
    assert!(!absent.was_here);
    assert_eq!(code(t.host.evict_pushed("vault", &evict(3, false))), ErrorCode::InvalidArgument);
}

#[test]
fn an_operator_who_locks_has_the_key_dropped_until_he_unlocks() {
    let (plane, t) = (Plane::new(), TestHost::with_plane());
    plane.pushed(&t, 1, 1);
    create(&t, "web01", "vault/a").unwrap();
    t.host.lock_vm("web01", &hostd_api::types::Force::default()).unwrap();
    assert!(t.host.keyring.pushed_ids().is_empty());
    assert!(t.host.control_identity().unwrap().wants.is_empty(), "a locked VM wants no key");
    assert_eq!(plane.pushed(&t, 1, 1), [PushOutcome::LockedByOperator]);
    assert_eq!(refused(t.host.unlock_vm("web01")).lock.unwrap().code, LockCode::KeyNotPushed);
    assert_eq!(t.host.control_identity().unwrap().wants, ["vault/a"]);
    assert_eq!(plane.pushed(&t, 1, 1), [PushOutcome::Taken]);
    until("the VM is unlocked", || lock_code(&t, "web01").is_none());
}

#[test]
fn a_rotation_moves_vms_to_a_pushed_key_and_back() {
    let (plane, t) = (Plane::new(), TestHost::with_plane());
    t.vm("web01");
    t.disk("web01", "root");
    let rotate = |key: Option<&str>| {
        let key_id = key.map(ToOwned::to_owned);
        t.host
            .rotate_keys(&RotateKeys { vm: Some("web01".into()), key_id, ..Default::default() })
            .unwrap()
            .vms
            .remove(0)
    };
    let missing = rotate(Some("vault/a"));
    assert!(missing.error.unwrap().contains("not pushed"));
    plane.pushed(&t, 1, 2);
    let moved = rotate(Some("vault/a"));
    assert_eq!((moved.key_id.as_deref(), moved.rewrapped), (Some("vault/a"), 2));
    assert_eq!(rotate(Some("vault/b")).key_id.as_deref(), Some("vault/b"));
    let vm = t.host.show_vm("web01").unwrap();
    assert_eq!(
        (&vm.key_ids, &vm.disks[0].key_ids),
        (&vec!["vault/b".to_owned()], &vec!["vault/b".to_owned()])
    );
    assert!(rotate(None).key_id.unwrap().starts_with("native/"));
}

#[test]
fn the_state_of_a_host_follows_what_keys_can_come() {
    let plane = Plane::new();
    let alone = TestHost::new().restarted_without_keys();
    assert_eq!(alone.host.crypto_state(), CryptoState::Incapable);
    assert_eq!(code(alone.host.control_identity()), ErrorCode::WrongState);
    let t = TestHost::with_plane().restarted_without_keys();
    assert_eq!(t.host.crypto_state(), CryptoState::Prepared);
    plane.pushed(&t, 1, 1);
    assert_eq!(t.host.crypto_state(), CryptoState::Safe);
    let control = t.host.status().control.unwrap();
    assert_eq!((control.cluster.as_str(), control.name.as_str(), control.keys), ("prod", "h1", 1));
}

#[test]
fn a_certificate_of_another_role_stops_the_start() {
    let (t, authority) = TestHost::with_authority();
    let files = authority.member(Some("coffer://prod/controld/c1"));
    let mut config = t.host.config.clone();
    (config.control.certificate, config.control.key) = (Some(files.certificate), Some(files.key));
    let error = refused(ControlPlane::open(&config, t.host.keyring.arena()).map(|_| ()));
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    assert!(error.message.contains("is not a host"), "{}", error.message);
}
