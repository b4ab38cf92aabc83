//! Tests of the disk cipher: published vectors, every engine against the others and against
//! `xts-mode`, holes, edges, threads.

use aes::Aes256;
use aes::cipher::KeyInit;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use xts_mode::{Xts128, get_tweak_default};

use super::{Direction, Engine, Serial, Unit, Xts, XtsError};
use crate::support::{counting, dek, hex, noise, records, vectors, xts};

const UNITS: [Unit; 2] = [Unit::B512, Unit::B4096];

/// First sectors to try: the ends of units and of the ranges that shorter tweaks would wrap at.
const SECTORS: [u64; 9] =
    [0, 1, 7, 8, 0xffff_ffff, 0x1_0000_0000, 1 << 40, (1 << 53) + 1, u64::MAX - 600];

fn each_engine(mut test: impl FnMut(Engine)) {
    Engine::available().iter().for_each(|engine| test(*engine));
}

/// Whole units through `xts-mode`, numbered as dm-crypt does.
fn xts_mode(key: &[u8; 64], unit: Unit, first_sector: u64, data: &mut [u8], direction: Direction) {
    let half = |half: &[u8]| Aes256::new_from_slice(half).unwrap();
    let xts = Xts128::new(half(&key[..32]), half(&key[32..]));
    for (index, bytes) in (0_u64..).zip(data.chunks_exact_mut(unit.bytes())) {
        let tweak = get_tweak_default(u128::from(first_sector + index * unit.sectors()));
        match direction {
            Direction::Encrypt => xts.encrypt_sector(bytes, tweak),
            Direction::Decrypt => xts.decrypt_sector(bytes, tweak),
        }
    }
}

/// IEEE 1619 annex B, vectors 10 to 14.
#[test]
fn ieee_1619_annex_b() {
    let key: [u8; 64] = hex(concat!(
        "2718281828459045235360287471352662497757247093699959574966967627",
        "3141592653589793238462643383279502884197169399375105820974944592"
    ))
    .try_into()
    .unwrap();
    let plain = counting::<512>();
    let text = include_str!("../../tests/vectors/ieee1619_annex_b.txt");
    let mut run = 0;
    for (number, cipher) in
        text.lines().filter_map(|line| line.split_once(' ')).filter(|(n, _)| *n != "#")
    {
        let (number, cipher) = (u64::from_str_radix(number, 16).unwrap(), hex(cipher));
        each_engine(|engine| {
            let xts = xts(&key, Unit::B512, engine);
            let mut data = plain;
            xts.encrypt(number, &mut data).unwrap();
            assert_eq!(data.as_slice(), cipher, "{engine:?} {number:x}");
            xts.decrypt(number, &mut data).unwrap();
            assert_eq!(data, plain, "{engine:?} {number:x}");
        });
        run += 1;
    }
    assert_eq!(run, 5);
}

/// A vector shorter than a sector, padded to one: XTS blocks do not depend on those that follow.
fn check_short(engine: Engine, key: &[u8], number: u64, plain: &[u8], cipher: &[u8]) {
    let xts = xts(key.try_into().unwrap(), Unit::B512, engine);
    let mut sector = [0; 512];
    sector[..plain.len()].copy_from_slice(plain);
    xts.encrypt(number, &mut sector).unwrap();
    assert_eq!(&sector[..cipher.len()], cipher, "{engine:?}");
    xts.decrypt(number, &mut sector).unwrap();
    assert_eq!(&sector[..plain.len()], plain, "{engine:?}");
}

#[test]
fn cavp_by_unit_number() {
    let Some(text) = vectors("xts/cavp_XTSGenAES256_seqno.rsp") else { return };
    let text = text.replace('\r', "");
    let mut run = 0;
    for record in records(&text) {
        let Some(number) = record.get("DataUnitSeqNumber") else { continue };
        if record["DataUnitLen"].parse::<usize>().unwrap() % 128 != 0 {
            continue;
        }
        let [key, plain, cipher] = ["Key", "PT", "CT"].map(|name| hex(record[name]));
        each_engine(|engine| check_short(engine, &key, number.parse().unwrap(), &plain, &cipher));
        run += 1;
    }
    assert_eq!(run, 600, "whole-block cases of the file");
}

/// Tweaks of 128 bits cannot come from a sector number, so these go to the engine's own call.
#[cfg(feature = "aws-lc")]
#[test]
fn cavp_by_tweak() {
    use super::aws_lc::Context;
    let Some(text) = vectors("xts/cavp_XTSGenAES256_tweak128.rsp") else { return };
    let text = text.replace('\r', "");
    let mut run = 0;
    for record in records(&text) {
        let Some(tweak) = record.get("i") else { continue };
        if record["DataUnitLen"].parse::<usize>().unwrap() % 128 != 0 {
            continue;
        }
        let [key, plain, cipher] = ["Key", "PT", "CT"].map(|name| hex(record[name]));
        let tweak = hex(tweak).try_into().unwrap();
        let key = dek(key.as_slice().try_into().unwrap());
        let mut data = plain.clone();
        Context::new(&key, Direction::Encrypt)
            .unwrap()
            .unit_start(tweak, data.as_mut_slice().into())
            .unwrap();
        assert_eq!(data, cipher);
        Context::new(&key, Direction::Decrypt)
            .unwrap()
            .unit_start(tweak, data.as_mut_slice().into())
            .unwrap();
        assert_eq!(data, plain);
        run += 1;
    }
    assert_eq!(run, 600, "whole-block cases of the file");
}

#[test]
fn wycheproof() {
    let Some(text) = vectors("xts/wycheproof_aes_xts.json") else { return };
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut run = 0;
    for group in
        all["testGroups"].as_array().unwrap().iter().filter(|group| group["keySize"] == 512)
    {
        for test in group["tests"].as_array().unwrap() {
            let [key, plain, cipher, number] =
                ["key", "msg", "ct", "iv"].map(|name| hex(test[name].as_str().unwrap()));
            if plain.len() % 16 != 0 {
                continue;
            }
            // The tweak is given without its trailing zeros, in up to 16 bytes.
            let number = number.iter().rev().fold(0, |sum, byte| (sum << 8) | u128::from(*byte));
            let Ok(number) = u64::try_from(number) else { continue };
            each_engine(|engine| check_short(engine, &key, number, &plain, &cipher));
            run += 1;
        }
    }
    assert!(run >= 8, "{run}");
}

/// Every sub-range of three units, for every engine, unit, direction and first sector: equal to the
/// same part of the whole area ciphered by `xts-mode`.
#[test]
fn every_sub_range_equals_xts_mode() {
    let key = noise(1, 64).try_into().unwrap();
    let plain = noise(2, 3 * 4096);
    for unit in UNITS {
        for direction in [Direction::Encrypt, Direction::Decrypt] {
            for sector in SECTORS {
                // The area starts at a 4096-byte border.
                let area = sector - sector % 8;
                let mut expected = plain.clone();
                xts_mode(&key, unit, area, &mut expected, direction);
                each_engine(|engine| {
                    let xts = xts(&key, unit, engine);
                    for (from, to) in
                        (0..24).flat_map(|from| (from + 1..=24).map(move |to| (from, to)))
                    {
                        let bytes = from * 512..to * 512;
                        let mut data = plain[bytes.clone()].to_vec();
                        let first = area + u64::try_from(from).unwrap();
                        xts.run(direction, first, data.as_mut_slice().into()).unwrap();
                        assert_eq!(
                            data, expected[bytes],
                            "{engine:?} {unit:?} {direction:?} {first} {from}..{to}"
                        );
                    }
                });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Engines, the serial reference and `xts-mode` agree on whole units of random data.
    #[test]
    fn engines_agree(
        seed in any::<u64>(),
        unit in 0_usize..2,
        number in 0_u64..1 << 44,
        units in 1_usize..20,
    ) {
        let unit = UNITS[unit];
        let key = noise(seed, 64).try_into().unwrap();
        let plain = noise(seed ^ 1, units * unit.bytes());
        let sector = number * unit.sectors();
        let mut expected = plain.clone();
        xts_mode(&key, unit, sector, &mut expected, Direction::Encrypt);
        let mut serial = plain.clone();
        Serial::new(&dek(&key), unit).unwrap().run(Direction::Encrypt, sector, &mut serial);
        prop_assert_eq!(&serial, &expected);
        for &engine in Engine::available() {
            let xts = xts(&key, unit, engine);
            let mut data = plain.clone();
            xts.encrypt(sector, &mut data).unwrap();
            prop_assert_eq!(&data, &expected);
            let mut out = vec![0xee; plain.len()];
            xts.encrypt_into(sector, &plain, &mut out).unwrap();
            prop_assert_eq!(&out, &expected);
            out.fill(0xee);
            xts.decrypt_into(sector, &data, &mut out).unwrap();
            prop_assert_eq!(&out, &plain);
            xts.decrypt(sector, &mut data).unwrap();
            prop_assert_eq!(&data, &plain);
        }
    }

    /// Sectors of zeros stay zeros, their neighbours are decrypted as ever.
    #[test]
    fn holes_read_as_zeros(seed in any::<u64>(), unit in 0_usize..2, sector in 0_u64..64, map in any::<u32>()) {
        let unit = UNITS[unit];
        let key = noise(seed, 64).try_into().unwrap();
        let plain = noise(seed ^ 1, 32 * 512);
        for &engine in Engine::available() {
            let xts = xts(&key, unit, engine);
            let mut data = plain.clone();
            xts.encrypt(sector, &mut data).unwrap();
            let mut expected = plain.clone();
            for index in (0..32).filter(|index| map & (1 << index) != 0) {
                data[index * 512..][..512].fill(0);
                expected[index * 512..][..512].fill(0);
            }
            let mut out = vec![0xee; data.len()];
            xts.decrypt_into(sector, &data, &mut out).unwrap();
            prop_assert_eq!(&out, &expected);
            xts.decrypt(sector, &mut data).unwrap();
            prop_assert_eq!(&data, &expected);
        }
    }
}

/// Also where a whole stretch is one, and nothing is left to decrypt.
#[test]
fn holes_overwrite_what_the_output_held() {
    let key = noise(8, 64).try_into().unwrap();
    for unit in UNITS {
        each_engine(|engine| {
            let xts = xts(&key, unit, engine);
            for sector in [0, 3] {
                let mut out = [0xee; 16384];
                xts.decrypt_into(sector, &[0; 16384], &mut out).unwrap();
                assert_eq!(out, [0; 16384]);
            }
        });
    }
}

/// A plaintext of zeros is encrypted like any other.
#[test]
fn zeros_are_encrypted() {
    let key = noise(3, 64).try_into().unwrap();
    each_engine(|engine| {
        let mut data = [0; 4096];
        xts(&key, Unit::B4096, engine).encrypt(0, &mut data).unwrap();
        assert!(data.chunks(16).all(|block| block != [0; 16]));
    });
}

#[test]
fn refuses_what_is_not_whole_sectors() {
    let key = noise(4, 64).try_into().unwrap();
    each_engine(|engine| {
        let xts = xts(&key, Unit::B4096, engine);
        for len in [1, 16, 511, 513, 4095] {
            let mut data = vec![7; len];
            assert!(
                matches!(xts.encrypt(0, &mut data), Err(XtsError::Length { len: found }) if found == len)
            );
            assert!(matches!(xts.decrypt(0, &mut data), Err(XtsError::Length { .. })));
            assert!(data.iter().all(|byte| *byte == 7), "the data is untouched");
        }
        let refused = xts.encrypt_into(0, &[0; 512], &mut [0; 1024]);
        assert!(matches!(refused, Err(XtsError::LengthMismatch { input: 512, output: 1024 })));
        let refused = xts.decrypt_into(0, &[0; 1024], &mut [0; 512]);
        assert!(matches!(refused, Err(XtsError::LengthMismatch { input: 1024, output: 512 })));
        let refused = xts.decrypt_into(0, &[0; 511], &mut [0; 511]);
        assert!(matches!(refused, Err(XtsError::Length { len: 511 })));
        xts.encrypt(0, &mut []).unwrap();
        xts.decrypt(u64::MAX, &mut []).unwrap();
    });
}

#[test]
fn refuses_sectors_past_the_last() {
    let key = noise(5, 64).try_into().unwrap();
    each_engine(|engine| {
        for unit in UNITS {
            let xts = xts(&key, unit, engine);
            let mut data = noise(6, 1024);
            assert!(matches!(
                xts.encrypt(u64::MAX - 1, &mut data),
                Err(XtsError::SectorRange { .. })
            ));
            xts.encrypt(u64::MAX - 2, &mut data).unwrap();
            xts.decrypt(u64::MAX - 2, &mut data).unwrap();
            assert_eq!(data, noise(6, 1024));
        }
    });
}

#[cfg(not(feature = "aws-lc"))]
#[test]
fn an_engine_outside_the_build_is_refused() {
    let refused = Xts::with_engine(dek(&counting()), Unit::B512, Engine::AwsLc);
    assert!(matches!(refused, Err(XtsError::EngineMissing(Engine::AwsLc))));
}

#[test]
fn engines_and_units_name_themselves() {
    each_engine(|engine| {
        let xts = xts(&counting(), Unit::B4096, engine);
        assert_eq!((xts.engine(), xts.unit()), (engine, Unit::B4096));
        assert_eq!(format!("{xts:?}"), format!("Xts({}, 4096 bytes)", engine.as_str()));
    });
    assert!(Engine::available().contains(&Engine::default()));
}

/// More threads than lanes, all at once, on one cipher.
#[test]
fn many_threads_share_one_cipher() {
    let key = noise(7, 64).try_into().unwrap();
    let plain = noise(8, 64 * 1024);
    let mut expected = plain.clone();
    xts_mode(&key, Unit::B4096, 800, &mut expected, Direction::Encrypt);
    each_engine(|engine| {
        let xts = xts(&key, Unit::B4096, engine);
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let mut data = plain.clone();
                        xts.encrypt(800, &mut data).unwrap();
                        assert!(data == expected);
                        xts.decrypt(800, &mut data).unwrap();
                        assert!(data == plain);
                    }
                });
            }
        });
    });
}

/// The cipher owns its key: it takes no more room than the key or its schedule, and gives it back.
#[test]
fn the_key_and_its_schedule_are_wiped_with_the_cipher() {
    each_engine(|engine| {
        let key = dek(&counting());
        let arena = key.arena();
        let xts = Xts::with_engine(key, Unit::B512, engine).unwrap();
        xts.encrypt(0, &mut [1; 512]).unwrap();
        assert!((64..=1024).contains(&arena.usage().used), "{:?}", arena.usage());
        drop(xts);
        assert_eq!(arena.usage().used, 0);
    });
}

#[test]
fn an_arena_without_room_for_the_schedule_is_an_error() {
    let arena = crate::Arena::new(4096).unwrap();
    let key = crate::support::key(&arena, &counting::<64>());
    let rest = arena.usage().capacity - arena.usage().used;
    let _full = arena.slot(rest).unwrap();
    assert!(matches!(Xts::with_engine(key, Unit::B512, Engine::Portable), Err(XtsError::Arena(_))));
}

/// Buffers that start and end at inaccessible pages, at every misalignment: no engine may read or
/// write a byte outside. (AVX-512 code once read up to 48 bytes past its input, aws-lc pull request
/// 2227; ARM code once did with 4 mod 5 blocks, CVE-2023-1255.)
#[test]
fn stays_inside_its_buffers() {
    let key = noise(9, 64).try_into().unwrap();
    let (mut fence, mut other) = (crate::support::Fenced::new(3), crate::support::Fenced::new(3));
    let size = fence.bytes().len();
    for unit in UNITS {
        let whole = xts(&key, unit, Engine::Portable);
        for len in (1..=9).map(|sectors| sectors * 512) {
            for shift in 0..64 {
                let plain = noise(shift, len);
                let shift = usize::try_from(shift).unwrap();
                let mut expected = plain.clone();
                Serial::new(&dek(&key), unit).unwrap().run(Direction::Encrypt, 3, &mut expected);
                each_engine(|engine| {
                    let chosen = xts(&key, unit, engine);
                    for start in [shift, size - len - shift] {
                        let data = &mut fence.bytes()[start..start + len];
                        data.copy_from_slice(&plain);
                        chosen.encrypt(3, data).unwrap();
                        assert_eq!(data, expected);
                        chosen.decrypt(3, data).unwrap();
                        assert_eq!(data, plain);
                        // Between two fenced buffers at different misalignments.
                        let from = size - len - start.min(size - len);
                        other.bytes()[from..from + len].copy_from_slice(&plain);
                        chosen.encrypt_into(3, &other.bytes()[from..from + len], data).unwrap();
                        assert_eq!(data, expected);
                        let back = &mut other.bytes()[from..from + len];
                        chosen.decrypt_into(3, data, back).unwrap();
                        assert_eq!(back, plain);
                        whole.decrypt(3, data).unwrap();
                        assert_eq!(data, plain);
                    }
                });
            }
        }
    }
}
