//! Reports about other NBD servers and their clients that no point of the checklist covers; the table "Bugs of other
//! servers" in `docs/nbd.md` names each test. A client that is not installed is skipped, visibly.

use super::interop::{fails, installed, run};
use super::support::{Client, LIMITS, SIZE, Served, export, file};
use cryptfs::backing::{Call, Fault, FaultyBacking, When};
use cryptfs::volume::{Geometry, Volume};
use crypto::{Arena, Dek, Unit};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vmd::nbd::export::Export;
use vmd::nbd::server::Server;

fn uri(served: &Served) -> String {
    format!("nbd+unix:///root?socket={}", served.path.display())
}

/// A disk whose size is no multiple of 4096.
fn odd(size: u64) -> Export {
    let arena = Arena::new(64 * 1024).unwrap();
    let key = Dek::generate(&arena).unwrap();
    let geometry = Geometry { size, unit: Unit::B512, read_only: false };
    Export::new("root", "web01", Volume::open(file(size), key, geometry).unwrap())
}

/// nbdkit 1.42 and QEMU before 4.0 let extents at the end of an odd size go wrong.
#[test]
fn extents_cover_an_odd_size_to_its_last_byte() {
    for size in [512, 1536, 4096 + 512, 65_536 + 1024] {
        let served = Served::new(odd(size), LIMITS);
        let uri = uri(&served);
        if installed("qemu-img") {
            let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &uri]);
            let map: serde_json::Value = serde_json::from_str(&map).unwrap();
            let ends = map.as_array().unwrap().iter().map(|extent| {
                extent["start"].as_u64().unwrap() + extent["length"].as_u64().unwrap()
            });
            assert_eq!(ends.max(), Some(size));
        }
        if installed("nbdinfo") {
            let map = run("nbdinfo", &["--map", "--json", &uri]);
            let map: serde_json::Value = serde_json::from_str(&map).unwrap();
            let lengths =
                map.as_array().unwrap().iter().map(|extent| extent["length"].as_u64().unwrap());
            assert_eq!(lengths.sum::<u64>(), size);
        }
        if installed("qemu-io") {
            let last = size - 512;
            let write = format!("write -P 0x51 {last} 512");
            let read = format!("read -P 0x51 {last} 512");
            run("qemu-io", &["-f", "raw", "-c", &write, "-c", &read, &uri]);
        }
    }
}

/// nbdcopy 1.10 took a late error for data (CVE-2022-0485); nbdkit's luks filter died of the first one.
#[test]
fn a_copy_from_failing_storage_fails_and_the_server_lives() {
    if !installed("nbdcopy") {
        return;
    }
    let backing = Arc::new(FaultyBacking::new(SIZE));
    let served = Served::new(export(Box::new(Arc::clone(&backing)), SIZE, false), LIMITS);
    let (uri, dir) = (uri(&served), tempfile::tempdir().unwrap());
    let source = dir.path().join("source");
    let content = vec![0x6b; usize::try_from(SIZE).unwrap()];
    std::fs::write(&source, &content).unwrap();
    let (source, copy) = (source.to_str().unwrap(), dir.path().join("copy"));
    run("nbdcopy", &[source, &uri]);
    let fault = |call| Fault { when: When::Covers(SIZE / 2), on: Some(call), errno: 5, short: 0 };
    for connections in ["--connections=1", "--connections=4"] {
        backing.inject(fault(Call::Read));
        assert!(fails("nbdcopy", &[connections, &uri, copy.to_str().unwrap()]));
        backing.heal();
        backing.inject(fault(Call::Write));
        assert!(fails("nbdcopy", &[connections, source, &uri]));
        backing.heal();
        run("nbdcopy", &[connections, &uri, copy.to_str().unwrap()]);
        assert!(std::fs::read(&copy).unwrap() == content);
    }
}

/// ydb-platform/nbs 2996: a server that was started anew on the same path was taken for the old one by clients that
/// came back at that moment.
#[test]
fn clients_that_come_back_meanwhile_reach_the_new_export() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.sock");
    // Each has a size of its own, by which it is known.
    let start = |size: u64| {
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        Server::start(export(file(size), size, false), listener.into(), LIMITS).unwrap()
    };
    let (done, started) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        let mut server = start(4096);
        let returning = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) && started.elapsed() < Duration::from_secs(60) {
                // Whether it gets in is a matter of luck; what counts is what becomes of the server.
                let _ = UnixStream::connect(&path).map(Client::new);
            }
        });
        for size in (2..20).map(|round| round * 4096) {
            assert!(server.stop(Duration::from_secs(5)).is_ok());
            server = start(size);
            assert_eq!(enter(&path), size);
        }
        done.store(true, Ordering::Relaxed);
        returning.join().unwrap();
        assert!(server.stop(Duration::from_secs(5)).is_ok());
    });
}

/// The size that a client is told; the places may all be taken for a moment.
fn enter(path: &Path) -> u64 {
    for _ in 0..1000 {
        let mut client = Client::new(UnixStream::connect(path).unwrap());
        if greeted(&client) {
            return client.go().0;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no place became free");
}

/// Whether there is something to read before the end.
fn greeted(client: &Client) -> bool {
    let flags = rustix::net::RecvFlags::PEEK;
    rustix::net::recv(&client.stream, &mut [0; 1][..], flags).is_ok_and(|(length, _)| length == 1)
}
