//! A disk as its users see it: attach, NBD clients, detach, resize, discard.

use std::sync::atomic::{AtomicBool, Ordering};
use tests::client::Client;
use tests::command::{self, Said};
use tests::host::{Host, pattern};
use tests::nbd::Nbd;
use tests::{needs, wait};

/// Runs qemu-io on an attached disk.
fn qemu_io(host: &Host, commands: &[&str]) -> Said {
    let uri = host.uri("web01", "data");
    let mut args = vec!["-f", "raw"];
    for command in commands {
        args.extend(["-c", command]);
    }
    args.push(&uri);
    command::run("qemu-io", &args, wait::STEP * 2)
}

fn host_with_disk(size: &str) -> Host {
    let host = Host::start();
    host.coffer(&["vm", "create", "web01"]).ok();
    host.coffer(&["disk", "create", "web01", "data", "--size", size]).ok();
    host
}

#[test]
fn what_qemu_writes_is_read_back_after_a_new_attach() {
    needs!(Root, Program("qemu-io"), Program("nbdcopy"), Program("nbdinfo"));
    let host = host_with_disk("64M");
    let attached = host.json(&["disk", "attach", "web01", "data"]);
    assert_eq!(attached["state"], "attached");
    assert_eq!(attached["attachment"]["uri"].as_str().unwrap(), host.uri("web01", "data"));
    assert_eq!(
        qemu_io(&host, &["write -P 0xa5 0 1M", "write -P 0x3c 12345 777", "flush"])
            .ok()
            .matches("wrote")
            .count(),
        2
    );
    let size = command::ok("nbdinfo", &["--size", &host.uri("web01", "data")]);
    assert_eq!(size.trim(), (64 << 20).to_string());
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    assert!(Nbd::open(&host.socket("web01", "data"), "data").is_err());

    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    qemu_io(
        &host,
        &[
            "read -P 0xa5 0 12345",
            "read -P 0x3c 12345 777",
            "read -P 0xa5 13122 1035454",
            "read -P 0 1M 1M",
        ],
    )
    .ok();
    let copy = host.scratch().join("copy.raw");
    command::ok("nbdcopy", &[&host.uri("web01", "data"), copy.to_str().unwrap()]);
    let bytes = tests::host::read(&copy);
    assert_eq!(bytes.len(), 64 << 20);
    assert!(bytes[13_122..1 << 20].iter().all(|byte| *byte == 0xa5));
    assert!(bytes[1 << 20..].iter().all(|byte| *byte == 0));
}

#[test]
fn odd_offsets_and_lengths_keep_their_neighbours() {
    needs!(Root);
    let host = host_with_disk("1M");
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    assert_eq!(nbd.size, 1 << 20);
    let mut expected = pattern(1 << 20, 1);
    nbd.write(0, &expected).unwrap();
    for (number, (offset, length)) in
        [(1, 1), (511, 2), (512, 512), (513, 4097), (4095, 1), (8191, 8194), (100_000, 65_537)]
            .iter()
            .enumerate()
    {
        let data = pattern(*length, 100 + u32::try_from(number).unwrap());
        nbd.write(*offset, &data).unwrap();
        let start = usize::try_from(*offset).unwrap();
        expected[start..start + length].copy_from_slice(&data);
    }
    nbd.flush().unwrap();
    assert_eq!(nbd.read(0, 1 << 20).unwrap(), expected);
    assert_eq!(nbd.read(513, 777).unwrap(), expected[513..1290]);
    assert!(nbd.read(1 << 20, 1).is_err(), "reads behind the end are refused");
    assert_eq!(
        nbd.read(0, 512).unwrap(),
        expected[..512],
        "the connection goes on after a refusal"
    );
}

#[test]
fn attaching_twice_is_refused_and_the_first_goes_on() {
    needs!(Root);
    let host = host_with_disk("1M");
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    nbd.write(0, &[7; 512]).unwrap();
    host.coffer(&["disk", "attach", "web01", "data"]).refused(6, &["data", "attached"]);
    assert_eq!(nbd.read(0, 512).unwrap(), [7; 512]);
    host.coffer(&["disk", "attach", "web01", "none"]).refused(4, &["none"]);
    host.coffer(&["disk", "attach", "none", "data"]).refused(4, &["none"]);
}

#[test]
fn a_read_only_attach_refuses_writes() {
    needs!(Root);
    let host = host_with_disk("1M");
    host.coffer(&["disk", "attach", "web01", "data", "--read-only"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    assert_eq!(nbd.flags & 2, 2, "NBD_FLAG_READ_ONLY");
    assert!(nbd.write(0, &[1; 512]).is_err());
    assert_eq!(nbd.read(0, 512).unwrap(), [0; 512]);
}

#[test]
fn a_disk_with_clients_is_detached_only_by_force() {
    needs!(Root, Program("qemu-io"));
    let host = host_with_disk("1M");
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut client = Client::connect(&host, "web01", "data");
    host.coffer(&["disk", "detach", "web01", "data"]).refused(6, &["data", "--force"]);
    assert!(client.is_alive());
    host.coffer(&["disk", "detach", "web01", "data", "--force"]).ok();
    host.coffer(&["disk", "detach", "web01", "data"]).refused(6, &["data"]);
    assert_eq!(host.state("web01"), "unlocked");
}

#[test]
fn a_client_that_has_just_gone_is_not_in_the_way() {
    needs!(Root);
    let host = host_with_disk("1M");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A busy machine, on which vmd learns late that the client has gone.
        for _ in 0..8 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let codes: Vec<i32> = (0..10_u8).map(|round| copy_and_detach(&host, round)).collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(codes, [0; 10]);
    });
}

/// As a script does it: the copy has ended, so the disk is free.
fn copy_and_detach(host: &Host, content: u8) -> i32 {
    let attached = host.coffer(&["disk", "attach", "web01", "data"]).code;
    let written = Nbd::open(&host.socket("web01", "data"), "data")
        .and_then(|mut nbd| nbd.write(0, &[content; 65_536]));
    let detached = host.coffer(&["disk", "detach", "web01", "data"]);
    if attached != 0 || written.is_err() { -1 } else { detached.code }
}

#[test]
fn a_disk_in_use_is_not_deleted() {
    needs!(Root);
    let host = host_with_disk("1M");
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    host.coffer(&["disk", "delete", "web01", "data", "--yes"]).refused(6, &["data"]);
    host.coffer(&["vm", "delete", "web01", "--yes"]).refused(6, &["web01"]);
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    host.coffer(&["disk", "delete", "web01", "data", "--yes"]).ok();
    assert!(!host.file("web01", "disks/data.data").exists());
    assert!(!host.file("web01", "disks/data.disk").exists());
}

#[test]
fn a_disk_grows_and_shrinks_only_when_told() {
    needs!(Root);
    let host = host_with_disk("1M");
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    nbd.write(0, &[9; 4096]).unwrap();
    nbd.flush().unwrap();
    drop(nbd);
    host.coffer(&["disk", "detach", "web01", "data"]).ok();
    let grown = host.json(&["disk", "resize", "web01", "data", "--size", "3M"]);
    assert_eq!(grown["size"], 3 << 20);
    host.coffer(&["disk", "resize", "web01", "data", "--size", "1M"]).refused(2, &["shrink"]);
    host.coffer(&["disk", "resize", "web01", "data", "--size", "1M", "--shrink"])
        .refused(2, &["--yes"]);
    host.coffer(&["disk", "resize", "web01", "data", "--size", "1M", "--shrink", "--yes"]).ok();
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    let mut nbd = Nbd::open(&host.socket("web01", "data"), "data").unwrap();
    assert_eq!(nbd.size, 1 << 20);
    assert_eq!(nbd.read(0, 4096).unwrap(), [9; 4096]);
}

#[test]
fn discard_gives_space_back_and_reads_as_zeros() {
    needs!(Root, Program("qemu-io"));
    let host = host_with_disk("32M");
    host.coffer(&["disk", "attach", "web01", "data"]).ok();
    qemu_io(&host, &["write -P 0x77 0 16M", "flush"]).ok();
    let full = host.json(&["disk", "list", "web01"])[0]["allocated"].as_u64().unwrap();
    assert!(full >= 16 << 20, "{full}");
    qemu_io(&host, &["discard 0 8M", "write -z 8M 4M", "flush"]).ok();
    qemu_io(&host, &["read -P 0 0 12M", "read -P 0x77 12M 4M"]).ok();
    let less = host.json(&["disk", "list", "web01"])[0]["allocated"].as_u64().unwrap();
    assert!(less <= full - (8 << 20), "{full} then {less}");
}
