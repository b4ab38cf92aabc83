//! An inventory of 100,000 VMs with two disks each, in the embedded store: a page of a list, who needs a key, and whether a key
//! may be destroyed.
//!
//! `cargo bench -p controld`; `COFFER_BENCH_VMS` sets another number. The figures are in docs/performance.md.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench says its numbers and may fail by panicking"
)]

use controld::inventory::{Cluster, Disk, Inventory, KeyId, Vm};
use controld::store::EmbeddedStore;
use criterion::{Criterion, criterion_group, criterion_main};
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// Every so many VMs share a key, as with a key of a policy; the others have their own.
const SHARED_EVERY: u128 = 10;

fn key(number: u128) -> KeyId {
    let uid =
        if number.is_multiple_of(SHARED_EVERY) { "shared".into() } else { number.to_string() };
    format!("kmip/{uid}").parse().unwrap()
}

fn vm(number: u128) -> Vm {
    Vm {
        id: Uuid::from_u128(number),
        name: format!("vm{number:06}").parse().unwrap(),
        cluster: "berlin".parse().unwrap(),
        host: Some(format!("host{:03}", number % 64).parse().unwrap()),
        datastore: Some("nfs1".parse().unwrap()),
        policy: None,
        key_ids: vec![key(number)],
    }
}

fn disk(number: u128, index: u128) -> Disk {
    Disk {
        id: Uuid::from_u128((number << 8) + index),
        name: format!("disk{index}").parse().unwrap(),
        vm: Some(Uuid::from_u128(number)),
        size: 20 << 30,
        key_ids: vec![key(number)],
    }
}

fn fill(inventory: &Inventory, count: u128) {
    let begun = Instant::now();
    let cluster = Cluster { name: "berlin".parse().unwrap(), provider: None, made_at: 0 };
    inventory.put(&cluster, None).unwrap();
    for number in 0..count {
        inventory.put(&vm(number), None).unwrap();
        for index in 1..=2 {
            inventory.put(&disk(number, index), None).unwrap();
        }
    }
    println!("{count} VMs and their disks put in {:.0} s", begun.elapsed().as_secs_f64());
}

fn inventory(c: &mut Criterion) {
    let count = std::env::var("COFFER_BENCH_VMS").map_or(100_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let inventory = Inventory::new(Arc::new(EmbeddedStore::open(&path).unwrap()));
    fill(&inventory, count);
    println!("{} MiB in the file", std::fs::metadata(&path).unwrap().len() >> 20);
    let middle = format!("berlin/vm{:06}", count / 2);
    c.bench_function("a page of 100 VMs in the middle of the list", |b| {
        b.iter(|| {
            let page = inventory.list::<Vm>("berlin/", Some(&middle), 100).unwrap();
            assert_eq!(page.records.len(), 100);
        });
    });
    c.bench_function("who needs a key of one VM", |b| {
        b.iter(|| assert_eq!(inventory.users(&key(count / 2 + 1), None, 100).unwrap().0.len(), 3));
    });
    c.bench_function("may a key of a tenth of the VMs be destroyed", |b| {
        b.iter(|| inventory.verdict(&key(0)).unwrap());
    });
    c.bench_function("may a key that nothing needs be destroyed", |b| {
        b.iter(|| inventory.verdict(&key(count + 1)).unwrap());
    });
    c.bench_function("a VM by its identity", |b| {
        b.iter(|| inventory.vm(Uuid::from_u128(count / 3)).unwrap());
    });
    let held = inventory.vm(Uuid::from_u128(1)).unwrap();
    println!("{} needs {}", held.record.name, held.record.key_ids[0]);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = inventory
}
criterion_main!(benches);
