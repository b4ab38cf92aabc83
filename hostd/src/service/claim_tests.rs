//! A claim of this host while another one takes the home.

use super::*;
use crate::testing::TestHost;
use cryptfs::lease::{Holder, Standing};
use std::time::{Duration, Instant};
use uuid::Uuid;

#[test]
fn a_repair_ends_when_another_host_takes_the_home() {
    let bench = TestHost::new();
    bench.vm("web01");
    let vm = bench.host.inventory.get("web01").unwrap();
    let opened = bench.host.open_safe(&vm, &mut vm.try_enter().unwrap()).unwrap();
    let leases = Leases::new(&vm.folder, vm.id, &opened.key, bench.host.keyring.arena()).unwrap();
    let claimed = bench.host.claim_for_check(&vm, &opened, true).unwrap();
    assert_eq!(claimed.why_end(), None);
    let other = Holder { id: Uuid::from_u128(2), name: "node2".into() };
    let taken = leases.take(&other, Use::Exclusive, true, now()).unwrap();
    let [ousted] = &taken.ousted[..] else { panic!("{taken:?}") };
    let end = Instant::now() + Duration::from_secs(60);
    while claimed.why_end().is_none() {
        assert!(Instant::now() < end, "the repair goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!leases.has_left(ousted).unwrap(), "something may still write");
    drop(claimed);
    assert!(leases.has_left(ousted).unwrap());

    leases.release(&taken.claim, now()).unwrap();
    drop(bench.host.claim_for_check(&vm, &opened, true).unwrap());
    let last = leases.last().unwrap().unwrap();
    assert_eq!((last.epoch, last.standing), (3, Standing::Released));
}
