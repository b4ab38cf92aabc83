use super::*;

#[test]
fn only_a_flush_makes_changes_durable() {
    let backing = FaultyBacking::new(4096);
    backing.write_at(0, &[1; 1024]).unwrap();
    backing.flush().unwrap();
    backing.write_at(0, &[2; 1024]).unwrap();
    assert_eq!(backing.unsynced(), 1);
    assert_eq!(backing.crash(|_, _| false)[..1024], [1; 1024]);
    assert_eq!(backing.crash(|_, _| true)[..1024], [2; 1024]);
    let torn = backing.crash(|_, sector| sector == 1);
    assert_eq!((torn[511], torn[512]), (1, 2));
    assert_eq!(backing.live()[..1024], [2; 1024]);
}

#[test]
fn a_failed_flush_loses_what_it_should_have_kept() {
    let backing = FaultyBacking::new(512);
    backing.write_at(0, &[1; 512]).unwrap();
    backing.inject(Fault { when: When::Always, on: Some(Call::Flush), errno: 5, short: 0 });
    assert_eq!(backing.flush().unwrap_err().raw_os_error(), Some(5));
    backing.heal();
    backing.flush().unwrap();
    assert_eq!(backing.crash(|_, _| true), vec![0; 512]);
    assert_eq!(backing.live(), vec![1; 512]);
}

#[test]
fn faults_strike_by_number_and_by_offset() {
    let backing = FaultyBacking::new(4096);
    backing.inject(Fault::full_at(1, 700));
    backing.write_at(0, &[1; 4096]).unwrap();
    assert_eq!(backing.write_at(0, &[2; 4096]).unwrap_err().raw_os_error(), Some(28));
    assert_eq!((backing.live()[699], backing.live()[700]), (2, 1));
    backing.heal();
    backing.inject(Fault { when: When::Covers(600), on: Some(Call::Read), errno: 5, short: 0 });
    backing.read_at(0, &mut [0; 600]).unwrap();
    assert!(backing.read_at(0, &mut [0; 601]).is_err());
    assert_eq!(backing.calls(), 4);
}

#[test]
fn storage_follows_writes_and_punches() {
    let backing = FaultyBacking::new(8192);
    assert_eq!((backing.allocated(), backing.next_data(0).unwrap()), (0, None));
    backing.write_at(1000, &[1; 1000]).unwrap();
    assert_eq!(backing.next_data(0).unwrap(), Some(512));
    assert_eq!(backing.next_hole(600).unwrap(), 2048);
    backing.punch(512, 600).unwrap();
    assert_eq!(backing.next_data(0).unwrap(), Some(1024));
    backing.zero_range(4096, 512).unwrap();
    assert_eq!(backing.next_data(2048).unwrap(), Some(4096));
    assert_eq!(backing.next_hole(8192).unwrap(), 8192);
    backing.refuse_punch();
    assert_eq!(backing.punch(0, 512).unwrap_err().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_new_length_can_be_lost_too() {
    let backing = FaultyBacking::new(512);
    backing.set_len(1024).unwrap();
    backing.write_at(512, &[1; 512]).unwrap();
    assert_eq!(backing.crash(|change, _| change == 1).len(), 512);
    assert_eq!(backing.crash(|_, _| true)[512..], [1; 512]);
    assert!(backing.write_at(1024, &[1]).is_err(), "the end does not move by itself");
}
