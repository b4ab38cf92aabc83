//! Throughput of every XTS engine beside two marks: `xts-mode`, the serial implementation that most
//! Rust programs use, and the `aes` crate's batch ECB, the ceiling that no XTS over AES can pass.
//!
//! One core; 512 bytes is one small unit, the others are 4096-byte units. Compare the columns of one
//! run with each other, not with another machine's.

use std::hint::black_box;

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use crypto::{Arena, Dek, Engine, Unit, Xts, random_array};
use xts_mode::{Xts128, get_tweak_default};

type Error = Box<dyn std::error::Error>;
type Group<'a> = BenchmarkGroup<'a, WallTime>;

const SIZES: [usize; 3] = [512, 4096, 65536];

fn xts(criterion: &mut Criterion) {
    for len in SIZES {
        let unit = if len < 4096 { Unit::B512 } else { Unit::B4096 };
        let mut group = criterion.benchmark_group(format!("xts-{len}"));
        group.throughput(Throughput::Bytes(u64::try_from(len).unwrap_or(u64::MAX)));
        for &engine in Engine::available() {
            ours(&mut group, engine, unit, len)
                .unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        }
        theirs(&mut group, unit, len).unwrap_or_else(|error| panic!("xts-mode: {error}"));
        ceiling(&mut group, len).unwrap_or_else(|error| panic!("aes: {error}"));
        group.finish();
    }
}

fn ours(group: &mut Group<'_>, engine: Engine, unit: Unit, len: usize) -> Result<(), Error> {
    let arena = Arena::new(64 * 1024)?;
    let xts = Xts::with_engine(Dek::generate(&arena)?, unit, engine)?;
    let mut data = vec![1; len];
    group.bench_function(format!("{}-encrypt", engine.as_str()), |bencher| {
        bencher.iter(|| xts.encrypt(black_box(8), &mut data).is_ok());
    });
    group.bench_function(format!("{}-decrypt", engine.as_str()), |bencher| {
        bencher.iter(|| xts.decrypt(black_box(8), &mut data).is_ok());
    });
    Ok(())
}

fn theirs(group: &mut Group<'_>, unit: Unit, len: usize) -> Result<(), Error> {
    let (data_key, tweak_key) = (random_array::<32>()?, random_array::<32>()?);
    let xts = Xts128::new(Aes256::new(&data_key.into()), Aes256::new(&tweak_key.into()));
    let mut data = vec![1; len];
    group.bench_function("xts-mode-encrypt", |bencher| {
        bencher.iter(|| xts.encrypt_area(&mut data, unit.bytes(), black_box(1), get_tweak_default));
    });
    Ok(())
}

fn ceiling(group: &mut Group<'_>, len: usize) -> Result<(), Error> {
    let cipher = Aes256::new(&random_array::<32>()?.into());
    let mut blocks = vec![Array::from([1; 16]); len / 16];
    group.bench_function("aes-ecb-encrypt", |bencher| {
        bencher.iter(|| cipher.encrypt_blocks(black_box(&mut blocks)));
    });
    Ok(())
}

criterion_group!(benches, xts);
criterion_main!(benches);
