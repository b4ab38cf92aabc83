//! Disks past the page cache, served by the real, confined binary.

use super::binary::{code, connect, is_small};
use super::process::{Host, await_free_lock, ok};
use super::support::request;
use hostd_api::error::ErrorCode;
use hostd_api::types::CacheMode;
use std::fs::File;
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

#[test]
fn a_confined_vmd_serves_past_the_page_cache_aligned_or_not() {
    let host = Host::on_a_drive();
    let disk = host.disk("root", 4 * MIB);
    let Some(direct) = disk.open_direct() else { return };
    let vmd = host.start();
    ok(&vmd.attach_past_the_cache(&disk, Some(&direct)));
    assert_eq!(vmd.status().disks[0].cache, CacheMode::None);
    let mut client = connect(&disk.socket);
    let mut model = vec![0; 4 << 20];
    for (round, (offset, length)) in
        [(0, 4096), (65_536, 2 << 20), (1, 1), (511, 2), (4096 + 512, 512), (70_001, 300_000)]
            .into_iter()
            .enumerate()
    {
        let data = vec![u8::try_from(round + 1).unwrap(); length];
        assert_eq!(client.write(offset as u64, &data), 0);
        model[offset..offset + length].copy_from_slice(&data);
        assert!(client.read(0, 4 << 20).unwrap() == model, "{offset} {length}");
    }
    assert_eq!(client.call(request(3, 0, 1, 0, 0), &[]), 0);
    let payload = std::fs::read(&disk.payload).unwrap();
    assert!(payload[65_536..65_536 + 4096] != model[65_536..65_536 + 4096], "plaintext is stored");
}

#[test]
fn after_kill_9_what_was_flushed_past_the_page_cache_is_there() {
    let host = Host::on_a_drive();
    let disk = host.disk("root", MIB);
    let Some(direct) = disk.open_direct() else { return };
    for round in 1..4u8 {
        let mut vmd = host.start();
        ok(&vmd.attach_past_the_cache(&disk, Some(&direct)));
        let mut client = connect(&disk.socket);
        assert_eq!(client.read(8192, 8192).unwrap(), [round - 1; 8192]);
        assert_eq!(client.read(100, 50).unwrap(), [round - 1; 50]);
        // With FUA; aligned, and not.
        assert_eq!(client.call(request(1, 1, 1, 8192, 8192), &[round; 8192]), 0);
        assert_eq!(client.call(request(1, 1, 1, 100, 50), &[round; 50]), 0);
        vmd.kill();
        assert!(client.is_at_end());
        await_free_lock(&host.folder());
    }
    // The page cache shows the same.
    let vmd = host.start();
    ok(&vmd.attach(&disk, false));
    assert_eq!(vmd.status().disks[0].cache, CacheMode::Writeback);
    let mut client = connect(&disk.socket);
    assert_eq!(client.read(8192, 8192).unwrap(), [3; 8192]);
    assert_eq!(client.read(100, 50).unwrap(), [3; 50]);
}

#[test]
fn an_idle_vmd_has_given_its_aligned_memory_back() {
    const LONG: u32 = 2 << 20;
    let host = Host::on_a_drive();
    let disk = host.disk("root", 64 * MIB);
    let Some(direct) = disk.open_direct() else { return };
    let vmd = host.start();
    ok(&vmd.attach_past_the_cache(&disk, Some(&direct)));
    let mut client = connect(&disk.socket);
    let mut sender = client.stream.try_clone().unwrap();
    let data = vec![1; usize::try_from(LONG).unwrap()];
    let writer = std::thread::spawn(move || {
        for i in 0..32u32 {
            let mut bytes = request(1, 0, i.into(), u64::from(i * LONG), LONG).encode().to_vec();
            bytes.extend(&data);
            std::io::Write::write_all(&mut sender, &bytes).unwrap();
        }
    });
    for _ in 0..32 {
        assert_eq!(client.reply().1, 0);
    }
    writer.join().unwrap();
    // Threads that nobody needs end after a second.
    std::thread::sleep(Duration::from_millis(2500));
    is_small(&vmd);
    assert_eq!(client.read(62 * MIB, LONG).unwrap(), vec![1; usize::try_from(LONG).unwrap()]);
}

#[test]
fn only_the_same_file_past_the_page_cache_will_do() {
    let host = Host::on_a_drive();
    let (disk, other) = (host.disk("root", MIB), host.disk("data", MIB));
    let (Some(direct), Some(another)) = (disk.open_direct(), other.open_direct()) else { return };
    let vmd = host.start();
    let cached = File::options().read(true).write(true).open(&disk.payload).unwrap();
    let read_only = File::open(&disk.payload).unwrap();
    let null = File::open("/dev/null").unwrap();
    for wrong in [None, Some(&another), Some(&cached), Some(&read_only), Some(&null)] {
        let response = vmd.attach_past_the_cache(&disk, wrong);
        assert_eq!(code(response), ErrorCode::InvalidArgument, "{wrong:?}");
    }
    assert!(vmd.status().disks.is_empty());
    ok(&vmd.attach_past_the_cache(&disk, Some(&direct)));
}
