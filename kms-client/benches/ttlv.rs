//! Speed of checking and walking a response of the largest size: every byte is looked at before any is believed.

#![expect(clippy::expect_used, reason = "a bench may end at once")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kms_client::kmip::ttlv::{Item, MAX_MESSAGE, Tag, Writer};
use std::hint::black_box;

/// A list of identifiers, as Locate answers, of nearly the largest size.
fn list() -> Vec<u8> {
    let mut writer = Writer::default();
    writer.structure(Tag::RESPONSE_MESSAGE, |w| {
        w.structure(Tag::BATCH_ITEM, |w| {
            w.structure(Tag::RESPONSE_PAYLOAD, |w| {
                // Eight bytes before and 40 for the text: 48 each.
                for _ in 0..(MAX_MESSAGE - 64) / 48 {
                    w.text(Tag::UNIQUE_IDENTIFIER, "16c7a2e4-9c5e-4b3f-9df0-6e2c1a8b7d55");
                }
            });
        });
    });
    writer.finish().expect("below the limit").to_vec()
}

fn bench(criterion: &mut Criterion) {
    let bytes = list();
    let mut group = criterion.benchmark_group("ttlv");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("check", |b| b.iter(|| Item::parse(black_box(&bytes)).is_ok()));
    group.bench_function("check and walk", |b| {
        b.iter(|| {
            let root = Item::parse(black_box(&bytes)).expect("a good message");
            let payload = root.children().next().and_then(|item| item.children().next());
            payload.map_or(0, |p| p.children().filter_map(|id| Some(id.text().ok()?.len())).sum())
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
