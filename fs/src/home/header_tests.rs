use super::*;
use crypto::{Arena, HomeKey};

const VM: Uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

fn mac_key() -> MacKey {
    let arena = Arena::new(64 * 1024).unwrap();
    MacKey::derive(&HomeKey::generate(&arena).unwrap(), &arena, MAC_INFO).unwrap()
}

#[test]
fn the_page_has_the_layout_of_the_format() {
    let mac = mac_key();
    let page = encode(&[7; 32], VM, &mac);
    assert_eq!(&page[..8], b"COFFERHF");
    assert_eq!(page[8..16], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(page[16..48], [7; 32]);
    assert_eq!(page[48..64], *VM.as_bytes());
    assert_eq!(page[64..96], mac.tag(&[&page[..64]]));
    assert!(page[96..].iter().all(|&byte| byte == 0));
}

#[test]
fn it_reads_back() {
    let mac = mac_key();
    assert_eq!(decode(&encode(&[9; 32], VM, &mac), VM, &mac), Ok(Header::Nonce([9; 32])));
    assert_eq!(decode(&[0; PAGE_LEN], VM, &mac), Ok(Header::Blank));
}

#[test]
fn every_flipped_bit_is_refused() {
    let mac = mac_key();
    let page = encode(&[0x5a; 32], VM, &mac);
    for at in 0..PAGE_LEN {
        for bit in 0..8 {
            let mut broken = page;
            broken[at] ^= 1 << bit;
            assert!(decode(&broken, VM, &mac).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn each_fault_is_named() {
    let mac = mac_key();
    let page = encode(&[1; 32], VM, &mac);
    let with = |at: usize, byte: u8| {
        let mut broken = page;
        broken[at] = byte;
        decode(&broken, VM, &mac).unwrap_err()
    };
    assert_eq!(with(0, b'X'), HeaderFault::Magic);
    assert_eq!(with(8, 2), HeaderFault::Unsupported { version: 2, features: 0 });
    assert_eq!(with(12, 4), HeaderFault::Unsupported { version: 1, features: 4 });
    assert_eq!(with(16, 0), HeaderFault::Mac);
    assert_eq!(with(70, page[70] ^ 1), HeaderFault::Mac);
    assert_eq!(with(4095, 1), HeaderFault::Rest);
    let other = Uuid::from_u128(5);
    assert_eq!(decode(&encode(&[1; 32], other, &mac), VM, &mac), Err(HeaderFault::Foreign(other)));
    assert_eq!(decode(&page, VM, &mac_key()), Err(HeaderFault::Mac), "the key of another home");
}
