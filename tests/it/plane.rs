//! Keys that a control plane pushes to real hosts: the test is the control plane.
//!
//! Two hosts are two hostd over one datastore whose locks the other does not see, as on a network file system.

use cluster::{CallError, HostClient, Identity, Role, seal};
use crypto::{Arena, Kek, KeyId};
use hostd_api::control::{Actor, CryptoState, EvictKey, PushKeys, PushOutcome};
use hostd_api::error::{ErrorCode, LockCode};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tests::host::Host;
use tests::nbd::Nbd;
use tests::pki::Authority;
use tests::scratch::Scratch;
use tests::{needs, wait};

/// A control plane, and the authority of its cluster.
struct Plane {
    authority: Authority,
    identity: Arc<Identity>,
    arena: Arena,
    id: KeyId,
    kek: Kek,
    _folder: Scratch,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Plane {
    fn new() -> Self {
        let folder = Scratch::new();
        let authority = Authority::new(&folder.join("pki"));
        let files = authority.member(Some("coffer://prod/controld/c1"));
        let identity = Arc::new(Identity::load(files, Role::Controld, now).unwrap());
        let arena = Arena::new(64 * 1024).unwrap();
        let (id, kek) = ("vault/k1".parse().unwrap(), Kek::generate(&arena).unwrap());
        Self { authority, identity, arena, id, kek, _folder: folder }
    }

    /// Gives a host that does not run yet a port for the control plane, and no provider of its own. The address.
    fn join(&self, host: &Host, name: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let files = self.authority.member(Some(&format!("coffer://prod/host/{name}")));
        let text = fs::read_to_string(host.config()).unwrap();
        let (text, _native) = text.split_once("[provider.native]").unwrap();
        let (certificate, key, ca) = (files.certificate, files.key, files.ca);
        let control = format!(
            "[control]\nlisten = {address:?}\ncertificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}\n"
        );
        fs::write(host.config(), format!("{text}{control}")).unwrap();
        address
    }

    fn client(&self, address: &str, name: &str) -> HostClient {
        HostClient::new(address, Some(name), Arc::clone(&self.identity))
    }

    /// The key, sealed to this start of the host.
    fn sealed(&self, client: &HostClient, generation: u64) -> PushKeys {
        seal(&client.identity().unwrap(), generation, [(&self.id, &self.kek)]).unwrap()
    }

    fn push(&self, client: &HostClient, generation: u64) -> PushOutcome {
        client.push(&self.sealed(client, generation)).unwrap().keys[0].outcome
    }
}

/// A host that runs, and its client.
fn first(plane: &Plane) -> (Host, HostClient) {
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    let address = plane.join(&host, "h1");
    host.up();
    (host, plane.client(&address, "h1"))
}

/// Another host over the same datastore, which sees no lock of the first one.
fn second(plane: &Plane, first: &Host) -> (Host, HostClient) {
    fs::remove_file(first.store().join(".coffer-lock")).unwrap();
    fs::remove_file(first.file("web01", ".lock")).unwrap();
    let mut host = Host::prepare(|_| first.store().to_owned());
    let address = plane.join(&host, "h2");
    host.up();
    (host, plane.client(&address, "h2"))
}

fn code_of(error: &CallError) -> Option<ErrorCode> {
    match error {
        CallError::Api { error, .. } => Some(error.code),
        _ => None,
    }
}

#[test]
fn a_vm_of_one_host_opens_on_another_once_its_key_was_pushed_there() {
    needs!(Root);
    let plane = Plane::new();
    let (one, h1) = first(&plane);
    assert_eq!(h1.identity().unwrap().crypto_state, CryptoState::Prepared);
    let early = one.coffer(&["vm", "create", "web01", "--key", "vault/k1"]);
    early.refused(7, &["key-not-pushed", "vault/k1", "control plane"]);
    assert_eq!(plane.push(&h1, 1), PushOutcome::Taken);
    one.coffer(&["vm", "create", "web01", "--key", "vault/k1"]).ok();
    one.coffer(&["disk", "create", "web01", "root", "--size", "1M"]).ok();
    one.coffer(&["disk", "attach", "web01", "root"]).ok();
    let mut disk = Nbd::open(&one.socket("web01", "root"), "root").unwrap();
    disk.write(4096, &[0x5a; 4096]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    one.coffer(&["disk", "detach", "web01", "root"]).ok();
    assert!(one.coffer(&["key", "status"]).ok().contains("present, pushed"));
    assert!(one.coffer(&["host", "status"]).ok().contains("cluster prod, as h1"));

    let (mut two, h2) = second(&plane, &one);
    let lock = two.json(&["vm", "show", "web01"])["lock"].clone();
    assert_eq!((&lock["code"], &lock["key_id"]), (&"key-not-pushed".into(), &"vault/k1".into()));
    two.coffer(&["disk", "attach", "web01", "root"]).refused(7, &["key-not-pushed", "vault/k1"]);
    let identity = h2.identity().unwrap();
    assert_eq!(
        (identity.wants, identity.crypto_state),
        (vec!["vault/k1".to_owned()], CryptoState::Prepared)
    );
    let waiting = &h2.vms().unwrap()[0];
    assert_eq!(waiting.lock.as_ref().unwrap().code, LockCode::KeyNotPushed);
    assert_eq!(waiting.who, Some(Actor::ControlPlane));

    assert_eq!(plane.push(&h2, 1), PushOutcome::Taken);
    wait::until_true("the VM is unlocked", || two.state("web01") == "unlocked");
    let text = "VM web01 can be used: its key was pushed";
    wait::until_true("it was opened", || two.log().contains(text));
    two.coffer(&["disk", "attach", "web01", "root"]).ok();
    let mut disk = Nbd::open(&two.socket("web01", "root"), "root").unwrap();
    assert!(disk.read(4096, 4096).unwrap() == [0x5a; 4096]);
    drop(disk);
    assert_eq!(h2.identity().unwrap().crypto_state, CryptoState::Safe);

    // A running VM outlives hostd; its vmd can be started again only when the key has come again.
    let recorded = plane.sealed(&h2, 1);
    two.kill();
    two.up();
    assert_eq!(two.state("web01"), "running");
    let status = || two.coffer(&["host", "status"]).ok();
    assert!(status().contains("could not be restarted"), "{}", status());
    let stale = h2.push(&recorded).unwrap_err();
    assert_eq!(code_of(&stale), Some(ErrorCode::StalePush));
    assert!(stale.to_string().contains("another start of this host"), "{stale}");
    assert_eq!(plane.push(&h2, 1), PushOutcome::Taken);
    wait::until_true("the warning is gone", || !status().contains("could not be restarted"));
    two.kill_vmds();
    let mut disk = wait::until("the vmd runs again", wait::STEP, || {
        Nbd::open(&two.socket("web01", "root"), "root").ok()
    });
    assert!(disk.read(4096, 4096).unwrap() == [0x5a; 4096]);
}

#[test]
fn an_evicted_key_leaves_running_vms_alone_and_locks_them_afterwards() {
    needs!(Root);
    let plane = Plane::new();
    let (host, client) = first(&plane);
    let recorded = plane.sealed(&client, 1);
    client.push(&recorded).unwrap();
    host.coffer(&["vm", "create", "web01", "--key", "vault/k1"]).ok();
    host.coffer(&["disk", "create", "web01", "root", "--size", "1M"]).ok();
    host.coffer(&["disk", "attach", "web01", "root"]).ok();
    let mut disk = Nbd::open(&host.socket("web01", "root"), "root").unwrap();
    let evict = |generation, force| client.evict(&plane.id, &EvictKey { generation, force });
    let used = evict(2, false).unwrap_err();
    assert_eq!(code_of(&used), Some(ErrorCode::InUse));
    assert!(used.to_string().contains("web01"), "{used}");
    let answer = evict(2, true).unwrap();
    assert_eq!((answer.was_here, answer.used_by), (true, vec!["web01".to_owned()]));
    disk.write(0, &[7; 4096]).unwrap();
    assert!(disk.read(0, 4096).unwrap() == [7; 4096], "it runs on");
    drop(disk);
    host.coffer(&["disk", "detach", "web01", "root"]).ok();
    assert_eq!(host.state("web01"), "locked");
    host.coffer(&["disk", "attach", "web01", "root"]).refused(7, &["key-not-pushed"]);
    assert_eq!(code_of(&client.push(&recorded).unwrap_err()), Some(ErrorCode::StalePush));
    assert_eq!(plane.push(&client, 3), PushOutcome::Taken);
    host.coffer(&["disk", "attach", "web01", "root"]).ok();
}

#[test]
fn a_vm_of_a_provider_moves_to_a_pushed_key() {
    needs!(Root);
    let plane = Plane::new();
    let mut host = Host::prepare(|scratch| scratch.join("store"));
    host.init();
    let native = fs::read_to_string(host.config()).unwrap();
    let native = native.split_once("[provider.native]").unwrap().1.to_owned();
    let address = plane.join(&host, "h1");
    let control = fs::read_to_string(host.config()).unwrap();
    fs::write(host.config(), format!("{control}[provider.native]{native}")).unwrap();
    host.up();
    let client = plane.client(&address, "h1");
    host.coffer(&["vm", "create", "web01"]).ok();
    assert!(client.identity().unwrap().wants.is_empty());
    assert_eq!(plane.push(&client, 1), PushOutcome::Taken);
    host.coffer(&["key", "rotate", "--vm", "web01", "--key", "vault/k1"]).ok();
    assert_eq!(host.json(&["vm", "show", "web01"])["key_ids"][0], "vault/k1");
    let own: KeyId = "native/x".parse().unwrap();
    let push = seal(&client.identity().unwrap(), 1, [(&own, &plane.kek)]).unwrap();
    assert_eq!(client.push(&push).unwrap().keys[0].outcome, PushOutcome::OwnProvider);
}

#[test]
fn a_key_for_one_host_is_of_no_use_at_another() {
    needs!(Root);
    let plane = Plane::new();
    let (one, h1) = first(&plane);
    plane.push(&h1, 1);
    one.coffer(&["vm", "create", "web01", "--key", "vault/k1"]).ok();
    let (two, h2) = second(&plane, &one);
    let for_one = plane.sealed(&h1, 1);
    let error = h2.push(&for_one).unwrap_err();
    assert_eq!(code_of(&error), Some(ErrorCode::StalePush));
    assert!(error.to_string().contains("sealed for host"), "{error}");
    let of_two = h2.identity().unwrap();
    let renamed = PushKeys { host_id: of_two.host_id, boot_id: of_two.boot_id, ..for_one };
    assert_eq!(h2.push(&renamed).unwrap().keys[0].outcome, PushOutcome::SealedElsewhere);
    assert_eq!(two.state("web01"), "locked");

    // Who asks for one host and reaches another is told so.
    let address = h2.address().to_owned();
    let wrong = plane.client(&address, "h1").identity().unwrap_err();
    assert!(matches!(&wrong, CallError::NotTrusted { .. }), "{wrong}");
    assert!(wrong.to_string().contains("coffer://prod/host/h2 is not h1"), "{wrong}");
    // A control plane of another authority is refused, and the host's log says why.
    let elsewhere = Authority::new(&one.scratch().join("elsewhere"));
    let mut files = elsewhere.member(Some("coffer://prod/controld/c1"));
    files.ca = plane.authority.member(Some("coffer://prod/host/h9")).ca;
    let identity = Arc::new(Identity::load(files, Role::Controld, now).unwrap());
    let refused = HostClient::new(&address, None, identity).identity().unwrap_err();
    assert!(matches!(&refused, CallError::Refused { .. }), "{refused}");
    wait::until_true("the log says so", || two.log().contains("a client at the control port"));
}

/// No piece of the key is found in what can be read of hostd's memory, nor what was pushed in any file.
#[test]
fn no_pushed_key_is_in_memory_logs_or_files() {
    needs!(Root);
    let plane = Plane::new();
    let (mut host, client) = first(&plane);
    if !host.coffer(&["host", "status"]).ok().contains("secret-memory") {
        eprintln!(
            "SKIPPED no_pushed_key_is_in_memory_logs_or_files: without memfd_secret the arena is found"
        );
        return;
    }
    let push = plane.sealed(&client, 1);
    client.push(&push).unwrap();
    host.coffer(&["vm", "create", "web01", "--key", "vault/k1"]).ok();
    host.coffer(&["disk", "create", "web01", "root", "--size", "1M"]).ok();
    let mut key = [0; Kek::WIRE_LEN];
    plane.kek.to_wire(&mut key).unwrap();
    let pid = host.pid().unwrap();
    let pieces: Vec<&[u8]> = key.chunks(8).collect();
    assert_eq!(found_in_memory(pid, &pieces), 0, "while it is held");
    // The search finds what is there to find: the path of the configuration.
    let path = host.config().display().to_string();
    assert!(found_in_memory(pid, &[path.as_bytes()]) > 0);

    let sealed = push.keys[0].sealed.as_str();
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(host.stop(), Some(0));
    for text in [sealed, &hex] {
        assert!(!host.log().contains(text), "in the log");
        for path in files(vec![host.state_dir(), host.store().to_owned()]) {
            let content = fs::read(&path).unwrap();
            assert!(!String::from_utf8_lossy(&content).contains(text), "{}", path.display());
        }
    }
    assert!(host.log().contains("key-push"), "the audit line is there");
    assert!(plane.arena.usage().used > 0);
}

fn files(mut folders: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found
}

/// How often one of the pieces is in the readable memory of a process.
fn found_in_memory(pid: i32, pieces: &[&[u8]]) -> usize {
    const WINDOW: usize = 1 << 20;
    let longest = pieces.iter().map(|piece| piece.len()).max().unwrap_or(1);
    let mut first = [false; 256];
    pieces.iter().for_each(|piece| first[usize::from(piece[0])] = true);
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut bytes = vec![0; WINDOW];
    let mut count = 0;
    for (start, end) in readable(pid) {
        let mut at = start;
        while at < end {
            let len = usize::try_from(end - at).unwrap().min(WINDOW);
            let bytes = &mut bytes[..len];
            // Secret memory answers with an error, which is the point of it.
            if memory.read_exact_at(bytes, at).is_ok() {
                let begins =
                    bytes.iter().enumerate().filter(|(_, byte)| first[usize::from(**byte)]);
                let whole = |at: usize| pieces.iter().any(|piece| bytes[at..].starts_with(piece));
                count += begins.filter(|(at, _)| whole(*at)).count();
            }
            if len < WINDOW {
                break;
            }
            at += u64::try_from(len - longest + 1).unwrap();
        }
    }
    count
}

/// The readable ranges of the memory of a process.
fn readable(pid: i32) -> Vec<(u64, u64)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let range = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let parse = |text| u64::from_str_radix(text, 16).ok();
        rest.starts_with('r').then_some((parse(start)?, parse(end)?))
    };
    maps.lines().filter_map(range).collect()
}
