//! QEMU's own NBD client, whose server dies under load and comes back.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tests::host::Host;
use tests::nbd::Nbd;
use tests::{needs, wait};

/// Length of one write.
const CHUNK: u64 = 64 * 1024;

/// Writes of the load: all but the last 2 MiB of the disk.
const CHUNKS: u64 = 480;

/// Bytes a second that QEMU lets through: the load takes six seconds, and vmd dies in the middle.
const RATE: u64 = 5 << 20;

fn host_with_disk() -> Host {
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", "32M"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    host
}

/// What write number `number` leaves behind, never zero.
fn content(number: u64) -> u8 {
    u8::try_from(number % 255 + 1).unwrap()
}

/// QEMU's block layer under load: as many writes in flight as it allows (16), every fourth with FUA.
fn load(host: &Host) -> Child {
    let image = format!(
        "driver=throttle,throttle-group=rate,file.driver=nbd,file.server.type=unix,file.server.path={},\
         file.export=data,file.reconnect-delay=120",
        host.socket("web01", "data").display()
    );
    let mut qemu = Command::new("qemu-io");
    qemu.args(["--object", &format!("throttle-group,id=rate,x-bps-total={RATE}"), "--image-opts"]);
    for number in 0..CHUNKS {
        let flags = if number % 4 == 0 { "-f " } else { "" };
        let (byte, at) = (content(number), number * CHUNK);
        qemu.arg("-c").arg(format!("aio_write {flags}-P {byte} {at} {CHUNK}"));
    }
    // On the connection that was made anew: a block of 4096 bytes does not bound a request.
    qemu.args(["-c", "aio_flush", "-c", "read -P 1 1k 1k", "-c", "flush"]).arg(image);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Takes everything that comes through a pipe.
fn said(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

fn written(host: &Host) -> u64 {
    let payload = std::fs::File::open(host.file("web01", "disks/data.data")).unwrap();
    std::os::unix::fs::MetadataExt::blocks(&payload.metadata().unwrap()) * 512
}

#[test]
fn qemu_goes_on_when_vmd_is_killed_under_load_and_nothing_acknowledged_is_lost() {
    needs!(Root, Program("qemu-io"));
    let host = host_with_disk();
    let mut qemu = load(&host);
    // Read from the start: a full pipe would stop the load.
    let out = said(qemu.stdout.take().unwrap());
    let err = said(qemu.stderr.take().unwrap());
    for (death, least) in [(1, 4 << 20), (2, 12 << 20)] {
        wait::until_true("the load is under way", || written(&host) >= least);
        assert!(qemu.try_wait().unwrap().is_none(), "the load is over before death {death}");
        host.kill_vmds();
        wait::until_true("the vmd is back", || {
            host.json(&["vm", "show", "web01"])["vmd_restarts"] == death
        });
    }
    let (out, err) = (out.join().unwrap(), err.join().unwrap());
    assert!(qemu.wait().unwrap().success(), "{out}{err}");
    let done = out.lines().filter(|line| line.starts_with("wrote 65536/65536")).count();
    assert_eq!(done, usize::try_from(CHUNKS).unwrap(), "{out}{err}");
    assert!(!out.contains("failed") && !out.contains("error"), "{out}{err}");

    let mut client = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    let length = usize::try_from(CHUNK).unwrap();
    for number in 0..CHUNKS {
        let found = client.read(number * CHUNK, length).unwrap();
        assert!(found.iter().all(|byte| *byte == content(number)), "write {number} was lost");
    }
}

/// Clients that come back at any moment neither keep a detach from ending nor find the old server.
#[test]
fn a_detach_and_an_attach_at_once_are_not_disturbed_by_clients_that_come_back() {
    needs!(Root);
    let host = host_with_disk();
    let (socket, done, started) =
        (host.socket("web01", "data"), AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) && started.elapsed() < wait::GUEST {
                // Between detach and attach there is nobody.
                let _ = Nbd::open(&socket, "data").and_then(|mut nbd| nbd.read(0, 512));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for round in 1..=8_u8 {
            let said = host.coffer(&["disk", "detach", "web01", "data", "--force"]);
            let attached = host.coffer(&["disk", "attach", "web01", "data"]);
            let mut nbd = Nbd::open(&socket, "data").unwrap();
            nbd.write(u64::from(round) * 512, &[round; 512]).unwrap();
            assert_eq!((said.code, attached.code), (0, 0), "{said}{attached}");
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut nbd = Nbd::open(&socket, "data").unwrap();
    for round in 1..=8_u8 {
        assert_eq!(nbd.read(u64::from(round) * 512, 512).unwrap(), [round; 512]);
    }
    assert_eq!(host.json(&["vm", "show", "web01"])["vmd_restarts"], 0);
}
