//! Tests of the AWS-LC context itself: every length of whole blocks at the edge of a page, and the
//! library's own refusal of equal halves.

use super::{Context, Direction};
use crate::keys::Dek;
use crate::support::{Fenced, counting, dek, noise};
use crate::xts::{Engine, Serial, Unit, XtsError};

/// Every number of blocks up to a unit, ending exactly at an inaccessible page: the input of the
/// over-read of aws-lc pull request 2227, which needs lengths that are no multiple of 256.
#[test]
fn every_block_count_at_the_edge_of_a_page() {
    let key = dek(&counting());
    let mut fence = Fenced::new(1);
    let (mut encrypt, mut decrypt) = (
        Context::new(&key, Direction::Encrypt).unwrap(),
        Context::new(&key, Direction::Decrypt).unwrap(),
    );
    let plain = noise(1, 4096);
    let mut expected = plain.clone();
    Serial::new(&key, Unit::B4096).unwrap().run(Direction::Encrypt, 0, &mut expected);
    for blocks in 1..=256 {
        let len = blocks * 16;
        for start in [0, 4096 - len] {
            let data = &mut fence.bytes()[start..start + len];
            data.copy_from_slice(&plain[..len]);
            encrypt.unit_start([0; 16], (&mut *data).into()).unwrap();
            assert_eq!(data, &expected[..len], "{blocks} blocks at {start}");
            decrypt.unit_start([0; 16], (&mut *data).into()).unwrap();
            assert_eq!(data, &plain[..len], "{blocks} blocks at {start}");
        }
    }
}

/// A key that slipped past our own check is stopped by the library (FIPS 140-3 IG C.I).
#[test]
fn the_library_refuses_equal_halves_too() {
    let refused = Context::new(&Dek::from_test_bytes([7; 64]), Direction::Encrypt);
    assert!(matches!(refused.map(drop), Err(XtsError::Engine { engine: Engine::AwsLc, .. })));
}

/// The assembly for AVX-512 is part of the build on x86-64: without it, the engine would silently
/// run at a third of its speed.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_wide_code_is_linked() {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let name = b"aes_hw_xts_encrypt_avx512";
    assert!(program.windows(name.len()).any(|bytes| bytes == name));
}
