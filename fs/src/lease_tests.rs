//! Tests of leases: one holder, take-over, fencing, and what was put there by others.

use super::*;
use std::sync::{Arc, Barrier};
use tempfile::TempDir;

struct Bench {
    dir: TempDir,
    arena: Arena,
    home: HomeKey,
}

const VM: Uuid = Uuid::from_u128(7);

impl Bench {
    fn new() -> Self {
        let arena = Arena::new(64 * 1024).unwrap();
        let home = HomeKey::generate(&arena).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), arena, home }
    }

    fn leases(&self) -> Leases {
        self.of(VM)
    }

    fn of(&self, vm: Uuid) -> Leases {
        Leases::new(&VmFolder::new(self.dir.path()), vm, &self.home, &self.arena).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let mut names = self.leases().files.names().unwrap();
        names.sort();
        names
    }
}

fn host(number: u128) -> Holder {
    Holder { id: Uuid::from_u128(number), name: format!("host{number}") }
}

fn held(outcome: Result<Taken, LeaseError>) -> Record {
    match outcome {
        Err(LeaseError::Held(record)) => *record,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_host_is_told_who_and_since_when() {
    let bench = Bench::new();
    let leases = bench.leases();
    let first = leases.take(&host(1), Use::Exclusive, false, 100).unwrap();
    assert_eq!((first.claim.epoch(), first.ousted.len()), (1, 0));
    for how in [Use::Exclusive, Use::Shared] {
        let record = held(leases.take(&host(2), how, false, 200));
        assert_eq!((record.host, record.since), (host(1).id, 100));
        assert_eq!(record.host_name, "host1");
    }
    assert_eq!(bench.files(), ["exclusive.0000000000000001"]);
    let mut claim = first.claim;
    assert_eq!(leases.renew(&mut claim, 300).unwrap(), Renewal::Stands);
    leases.release(&claim, 400).unwrap();
    assert!(leases.holders().unwrap().is_empty());
    let second = leases.take(&host(2), Use::Exclusive, false, 500).unwrap();
    assert_eq!(second.claim.epoch(), 2, "epochs never go back");
}

#[test]
fn the_same_host_takes_again_after_a_crash() {
    let bench = Bench::new();
    let leases = bench.leases();
    let first = leases.take(&host(1), Use::Exclusive, false, 100).unwrap().claim;
    let again = bench.leases().resume(&host(1), Use::Exclusive).unwrap().unwrap();
    assert_eq!(again, first);
    assert_eq!(leases.resume(&host(2), Use::Exclusive).unwrap(), None);
    assert_eq!(leases.resume(&host(1), Use::Shared).unwrap(), None);
    let taken = leases.take(&host(1), Use::Exclusive, false, 200).unwrap();
    assert_eq!((taken.claim.epoch(), taken.ousted.len()), (2, 0));
    leases.clear(&taken).unwrap();
    assert_eq!(bench.files(), ["exclusive.0000000000000002"]);
}

#[test]
fn force_takes_over_and_the_old_holder_finds_out() {
    let bench = Bench::new();
    let leases = bench.leases();
    let mut first = leases.take(&host(1), Use::Exclusive, false, 100).unwrap().claim;
    let taken = leases.take(&host(2), Use::Exclusive, true, 200).unwrap();
    assert_eq!((taken.claim.epoch(), taken.ousted.len()), (2, 1));
    assert!(!leases.has_left(&taken.ousted[0]).unwrap());

    let Renewal::Lost(Some(by)) = leases.renew(&mut first, 300).unwrap() else {
        panic!("not fenced");
    };
    assert_eq!((by.host, by.epoch), (host(2).id, 2));
    assert_eq!(leases.resume(&host(1), Use::Exclusive).unwrap(), None);
    leases.yield_to(&first, 300).unwrap();
    assert!(leases.has_left(&taken.ousted[0]).unwrap());
    leases.clear(&taken).unwrap();
    assert_eq!(bench.files(), ["exclusive.0000000000000002"]);
    // A renewal that was under way for long must not bring it back.
    assert!(matches!(leases.renew(&mut first, 400).unwrap(), Renewal::Lost(Some(_))));
    assert_eq!(held(leases.take(&host(3), Use::Exclusive, false, 500)).host, host(2).id);
}

#[test]
fn shared_records_stand_beside_each_other_and_forbid_an_exclusive_lease() {
    let bench = Bench::new();
    let leases = bench.leases();
    let mut one = leases.take(&host(1), Use::Shared, false, 100).unwrap().claim;
    let two = leases.take(&host(2), Use::Shared, false, 100).unwrap().claim;
    assert_eq!(leases.holders().unwrap().len(), 2);
    assert_eq!(held(leases.take(&host(3), Use::Exclusive, false, 200)).how, Use::Shared);
    leases.release(&two, 300).unwrap();
    assert_eq!(held(leases.take(&host(3), Use::Exclusive, false, 300)).host, host(1).id);
    assert_eq!(leases.renew(&mut one, 400).unwrap(), Renewal::Stands);
    let taken = leases.take(&host(3), Use::Exclusive, true, 500).unwrap();
    assert_eq!(taken.ousted.len(), 1);
    assert!(matches!(leases.renew(&mut one, 600).unwrap(), Renewal::Lost(Some(_))));
    leases.yield_to(&one, 600).unwrap();
    assert!(leases.has_left(&taken.ousted[0]).unwrap());
}

#[test]
fn the_same_host_may_change_from_shared_to_exclusive_and_back() {
    let bench = Bench::new();
    let leases = bench.leases();
    leases.take(&host(1), Use::Shared, false, 100).unwrap();
    leases.take(&host(1), Use::Exclusive, false, 200).unwrap();
    assert_eq!(bench.files(), ["exclusive.0000000000000001"]);
    leases.take(&host(1), Use::Shared, false, 300).unwrap();
    // The lease of the earlier run is over, so that others may share.
    leases.take(&host(2), Use::Shared, false, 400).unwrap();
    assert_eq!(leases.holders().unwrap().len(), 2);
}

#[test]
fn a_forced_shared_use_ends_an_exclusive_lease() {
    let bench = Bench::new();
    let leases = bench.leases();
    let mut first = leases.take(&host(1), Use::Exclusive, false, 100).unwrap().claim;
    let taken = leases.take(&host(2), Use::Shared, true, 200).unwrap();
    assert_eq!(taken.ousted.len(), 1);
    assert!(matches!(leases.renew(&mut first, 300).unwrap(), Renewal::Lost(Some(_))));
    assert_eq!(leases.holders().unwrap().len(), 1);
}

#[test]
fn of_many_that_try_at_once_one_has_it() {
    let bench = Bench::new();
    let start = Barrier::new(8);
    let won = std::thread::scope(|scope| {
        let tries: Vec<_> = (1..=8)
            .map(|number| {
                let (bench, start) = (&bench, &start);
                scope.spawn(move || {
                    let leases = bench.leases();
                    start.wait();
                    leases.take(&host(number), Use::Exclusive, false, 100).is_ok()
                })
            })
            .collect();
        tries.into_iter().map(|t| t.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(won, 1);
    assert_eq!(bench.leases().holders().unwrap().len(), 1);
}

#[test]
fn of_exclusive_and_shared_at_once_never_both_stay() {
    for _ in 0..20 {
        let bench = Arc::new(Bench::new());
        let start = Arc::new(Barrier::new(2));
        let tries = [(1, Use::Exclusive), (2, Use::Shared)].map(|(number, how)| {
            let (bench, start) = (Arc::clone(&bench), Arc::clone(&start));
            std::thread::spawn(move || {
                let leases = bench.leases();
                start.wait();
                leases.take(&host(number), how, false, 100).is_ok()
            })
        });
        let won = tries.map(|t| t.join().unwrap());
        assert_ne!(won, [true, true]);
    }
}

#[test]
fn what_no_host_of_the_vm_wrote_is_refused_by_name() {
    let bench = Bench::new();
    let leases = bench.leases();
    leases.take(&host(1), Use::Exclusive, false, 100).unwrap();
    let path = leases.files.exclusive_path(1);
    let good = std::fs::read_to_string(&path).unwrap();
    let edits = [
        good.replace("host1", "host2"),
        good.replace("\"epoch\":1", "\"epoch\":2"),
        String::new(),
        good.lines().next().unwrap().to_owned(),
    ];
    for bad in edits {
        assert_ne!(bad, good);
        std::fs::write(&path, bad).unwrap();
        let error = leases.take(&host(1), Use::Exclusive, true, 200).unwrap_err();
        assert!(error.to_string().contains("exclusive.0000000000000001"), "{error}");
    }
    // A good record under another number.
    std::fs::write(leases.files.exclusive_path(9), &good).unwrap();
    let error = leases.take(&host(2), Use::Exclusive, false, 200).unwrap_err();
    assert!(matches!(error, LeaseError::Record(SealError::Misplaced { .. })), "{error}");
    std::fs::remove_file(leases.files.exclusive_path(9)).unwrap();
    std::fs::write(&path, &good).unwrap();
    // That of another VM with the same key.
    let error = bench.of(Uuid::from_u128(8)).holders().unwrap_err();
    assert!(matches!(error, LeaseError::Record(SealError::Misplaced { .. })), "{error}");
}

#[test]
fn what_a_crash_left_in_the_middle_of_a_write_is_removed_by_the_next() {
    let bench = Bench::new();
    let leases = bench.leases();
    let own = format!(".shared.{}.0011223344556677.coffer-tmp", host(1).id);
    let other = format!(".shared.{}.0011223344556677.coffer-tmp", host(2).id);
    leases.take(&host(1), Use::Exclusive, false, 100).unwrap();
    let old = ".exclusive.0000000000000001.0011223344556677.coffer-tmp";
    // Somebody may be taking over at this moment.
    let next = ".exclusive.0000000000000003.0011223344556677.coffer-tmp";
    for name in [own.as_str(), &other, old, next, ".notes.coffer-tmp"] {
        std::fs::write(leases.files.folder.join(name), "").unwrap();
    }
    let taken = leases.take(&host(1), Use::Exclusive, false, 200).unwrap();
    leases.clear(&taken).unwrap();
    let mut left = vec![next, ".notes.coffer-tmp", other.as_str(), "exclusive.0000000000000002"];
    left.sort_unstable();
    assert_eq!(bench.files(), left);
}

#[test]
fn files_that_are_no_leases_are_left_out() {
    let bench = Bench::new();
    let leases = bench.leases();
    leases.files.make_folder().unwrap();
    for name in ["exclusive.1", "exclusive.000000000000000G", "shared.x", "notes", ".exclusive.tmp"]
    {
        std::fs::write(leases.files.folder.join(name), "rubbish").unwrap();
    }
    assert_eq!(leases.take(&host(1), Use::Exclusive, false, 1).unwrap().claim.epoch(), 1);
    for number in 0..MAX_FILES {
        std::fs::write(leases.files.folder.join(format!("x{number}")), "").unwrap();
    }
    assert!(matches!(leases.holders(), Err(LeaseError::Crowded { .. })));
}

#[test]
fn the_last_epoch_there_is_ends_in_a_refusal() {
    let bench = Bench::new();
    let leases = bench.leases();
    leases.files.make_folder().unwrap();
    let record = Record::new(VM, Use::Exclusive, u64::MAX, &host(1), 1);
    leases.files.put(&record, Put::New).unwrap();
    assert!(leases.take(&host(1), Use::Exclusive, true, 2).is_err());
}

#[test]
fn a_link_in_place_of_the_folder_is_refused_and_changes_nothing() {
    let (bench, elsewhere) = (Bench::new(), tempfile::tempdir().unwrap());
    let victim = elsewhere.path().join(".exclusive.0000000000000000.0011.coffer-tmp");
    std::fs::write(&victim, "not ours").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), bench.dir.path().join("leases")).unwrap();
    for (how, force) in [(Use::Exclusive, false), (Use::Exclusive, true), (Use::Shared, true)] {
        let error = bench.leases().take(&host(1), how, force, 100).unwrap_err();
        assert!(matches!(error, LeaseError::Folder { .. }), "{error}");
        assert!(error.to_string().contains("leases"), "{error}");
    }
    assert!(bench.leases().holders().is_err());
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    assert!(victim.exists());
}

#[test]
fn a_host_that_cannot_write_its_record_still_sees_who_took_the_home() {
    let bench = Bench::new();
    let leases = bench.leases();
    for how in [Use::Exclusive, Use::Shared] {
        let mut claim = leases.take(&host(1), how, true, 100).unwrap().claim;
        let own = leases.files.path_of(&claim.record);
        // What cannot be replaced by a file, as on storage that is full.
        std::fs::remove_file(&own).unwrap();
        std::fs::create_dir(&own).unwrap();
        assert!(leases.renew(&mut claim, 200).is_err(), "it is served on");
        let record = Record::new(VM, Use::Exclusive, claim.epoch() + 1, &host(2), 300);
        leases.files.put(&record, Put::New).unwrap();
        let Renewal::Lost(Some(by)) = leases.renew(&mut claim, 400).unwrap() else {
            panic!("not fenced");
        };
        assert_eq!(by.host, host(2).id);
        std::fs::remove_dir(&own).unwrap();
    }
}

#[test]
fn the_storage_that_is_gone_for_a_while_takes_no_lease_away() {
    let bench = Bench::new();
    let leases = bench.leases();
    let mut claim = leases.take(&host(1), Use::Exclusive, false, 100).unwrap().claim;
    let aside = bench.dir.path().join("aside");
    std::fs::rename(&leases.files.folder, &aside).unwrap();
    assert!(leases.renew(&mut claim, 200).is_err());
    std::fs::rename(&aside, &leases.files.folder).unwrap();
    assert_eq!(leases.renew(&mut claim, 300).unwrap(), Renewal::Stands);
}

#[test]
fn a_record_that_no_host_wrote_hides_no_take_over() {
    for how in [Use::Exclusive, Use::Shared] {
        let bench = Bench::new();
        let leases = bench.leases();
        let mut claim = leases.take(&host(1), how, false, 100).unwrap().claim;
        std::fs::write(leases.files.shared_path(host(9).id), "rubbish").unwrap();
        assert_eq!(leases.renew(&mut claim, 200).unwrap(), Renewal::Stands);
        assert_eq!(leases.resume(&host(1), how).unwrap().as_ref(), Some(&claim));
        std::fs::write(leases.files.exclusive_path(9), "rubbish").unwrap();
        let error = leases.renew(&mut claim, 300).unwrap_err();
        assert!(error.to_string().contains("exclusive.0000000000000009"), "{error}");
        assert_eq!(leases.resume(&host(1), how).unwrap().as_ref(), Some(&claim));
        let record = Record::new(VM, Use::Exclusive, 2, &host(2), 400);
        leases.files.put(&record, Put::New).unwrap();
        let Renewal::Lost(Some(by)) = leases.renew(&mut claim, 500).unwrap() else {
            panic!("not fenced");
        };
        assert_eq!((by.host, by.epoch), (host(2).id, 2));
        assert_eq!(leases.resume(&host(1), how).unwrap(), None);
        assert_eq!(leases.last().unwrap(), Some(record));
    }
}

#[test]
fn an_own_record_that_is_damaged_is_no_loss() {
    let bench = Bench::new();
    let leases = bench.leases();
    leases.take(&host(1), Use::Exclusive, false, 100).unwrap();
    std::fs::write(leases.files.exclusive_path(1), "rubbish").unwrap();
    let error = leases.resume(&host(1), Use::Exclusive).unwrap_err();
    assert!(error.to_string().contains("exclusive.0000000000000001"), "{error}");
}

#[test]
fn of_two_that_take_by_force_at_once_the_newer_stays() {
    let bench = Bench::new();
    let leases = bench.leases();
    leases.files.make_folder().unwrap();
    // The first has looked and made its record; the second takes before the first looks again.
    let found = leases.files.look().unwrap();
    let one = leases.join(&found, &host(1), true, 100).unwrap().unwrap();
    std::fs::remove_file(leases.files.shared_path(host(1).id)).unwrap();
    let two = leases.take(&host(2), Use::Exclusive, true, 200).unwrap();
    assert!(two.ousted.is_empty(), "it saw nobody");
    leases.files.put(&one.record, Put::Over).unwrap();
    let error = leases.confirm(one, Vec::new(), true, 300).unwrap_err();
    assert!(matches!(&error, LeaseError::Held(by) if by.host == host(2).id), "{error}");
    assert_eq!(leases.holders().unwrap(), [two.claim.record]);

    // A shared record that is made at the last moment is one of those that must go.
    let found = leases.files.look().unwrap();
    let ousted = others(&found, Use::Exclusive, host(3).id);
    let three = leases.claim(&found, &host(3), Use::Exclusive, 400).unwrap().unwrap();
    let late = Record::new(VM, Use::Shared, 2, &host(4), 400);
    leases.files.put(&late, Put::Over).unwrap();
    let taken = leases.confirm(three, ousted, true, 500).unwrap();
    let hosts: Vec<_> = taken.ousted.iter().map(|record| record.host).collect();
    assert_eq!(hosts, [host(2).id, host(4).id]);
}

#[test]
fn a_claim_that_cannot_be_confirmed_is_given_back() {
    let bench = Bench::new();
    let leases = bench.leases();
    leases.take(&host(1), Use::Shared, false, 100).unwrap();
    let shared = leases.files.shared_path(host(1).id);
    let found = leases.files.look().unwrap();
    // Its own record of before cannot be removed.
    std::fs::remove_file(&shared).unwrap();
    std::fs::create_dir(&shared).unwrap();
    leases.claim(&found, &host(1), Use::Exclusive, 200).unwrap_err();
    std::fs::remove_dir(&shared).unwrap();
    assert!(leases.holders().unwrap().is_empty());
    // The second look fails.
    let found = leases.files.look().unwrap();
    let claim = leases.claim(&found, &host(1), Use::Exclusive, 300).unwrap().unwrap();
    let bad = leases.files.shared_path(host(9).id);
    std::fs::write(&bad, "rubbish").unwrap();
    leases.confirm(claim, Vec::new(), false, 400).unwrap_err();
    std::fs::remove_file(&bad).unwrap();
    assert!(leases.holders().unwrap().is_empty());
    leases.take(&host(2), Use::Exclusive, false, 500).unwrap();
}

#[test]
fn a_host_that_comes_back_tells_who_took_over_that_it_has_stopped() {
    for how in [Use::Exclusive, Use::Shared] {
        let bench = Bench::new();
        let leases = bench.leases();
        assert_eq!(leases.left(&host(1), how).unwrap(), None);
        leases.take(&host(1), how, false, 100).unwrap();
        let taken = leases.take(&host(2), Use::Exclusive, true, 200).unwrap();
        std::fs::write(leases.files.exclusive_path(9), "rubbish").unwrap();
        assert_eq!(leases.resume(&host(1), how).unwrap(), None);
        let left = leases.left(&host(1), how).unwrap().unwrap();
        leases.yield_to(&left, 300).unwrap();
        assert!(leases.has_left(&taken.ousted[0]).unwrap());
        assert_eq!(leases.left(&host(1), how).unwrap(), None);
        assert_eq!(leases.left(&host(3), how).unwrap(), None);
    }
}

#[test]
fn hosts_with_disks_attached_are_told_of_and_keep_nobody_from_the_home() {
    let bench = Bench::new();
    let (leases, folder) = (bench.leases(), VmFolder::new(bench.dir.path()));
    let users = |own: u128| -> Vec<(Uuid, Use)> {
        let users = leases.users(host(own).id).unwrap();
        users.iter().map(|record| (record.host, record.how)).collect()
    };
    assert_eq!(named(&folder, host(1).id).unwrap(), Named { disks: false, exclusive: false });
    assert!(users(2).is_empty());
    leases.take(&host(1), Use::Disks, false, 100).unwrap();
    assert_eq!(bench.files(), [format!("disks.{}", host(1).id)]);
    assert!(is_name(&bench.files()[0]));
    assert_eq!((users(1), users(2)), (vec![], vec![(host(1).id, Use::Disks)]));
    assert!(has_disks(&folder, host(1).id) && !has_disks(&folder, host(2).id));
    assert_eq!(named(&folder, host(1).id).unwrap(), Named { disks: false, exclusive: false });
    assert_eq!(named(&folder, host(2).id).unwrap(), Named { disks: true, exclusive: false });

    // Neither the home of another host, nor another with disks, is in the way, or goes.
    let home = leases.take(&host(2), Use::Exclusive, false, 200).unwrap();
    let both = leases.take(&host(2), Use::Disks, false, 200).unwrap();
    assert!(home.ousted.is_empty() && both.ousted.is_empty());
    leases.clear(&home).unwrap();
    assert_eq!(users(1), [(host(2).id, Use::Exclusive), (host(2).id, Use::Disks)]);
    assert_eq!(users(2), [(host(1).id, Use::Disks)]);
    assert_eq!(users(3).len(), 3);

    // It is renewed, taken up and given back like any other.
    let mut claim = leases.resume(&host(1), Use::Disks).unwrap().unwrap();
    assert_eq!(leases.left(&host(1), Use::Disks).unwrap(), Some(claim.clone()));
    assert_eq!(leases.renew(&mut claim, 300).unwrap(), Renewal::Stands);
    leases.release(&claim, 400).unwrap();
    forget_disks(&folder, host(2).id).unwrap();
    forget_disks(&folder, host(2).id).unwrap();
    assert_eq!(leases.resume(&host(1), Use::Disks).unwrap(), None);
    leases.release(&home.claim, 400).unwrap();
    assert!(users(3).is_empty());
    assert_eq!(named(&folder, host(3).id).unwrap(), Named { disks: false, exclusive: true });
}

#[test]
fn a_record_of_disks_that_cannot_be_read_is_no_absence() {
    let bench = Bench::new();
    let (leases, folder) = (bench.leases(), VmFolder::new(bench.dir.path()));
    leases.take(&host(1), Use::Disks, false, 100).unwrap();
    let path = leases.files.host_path(Use::Disks, host(1).id);
    std::fs::write(&path, "rubbish").unwrap();
    assert!(matches!(leases.users(host(2).id), Err(LeaseError::Record(_))));
    assert!(named(&folder, host(2).id).unwrap().disks);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(leases.files.exclusive_path(1), "rubbish").unwrap();
    assert!(matches!(leases.users(host(2).id), Err(LeaseError::Record(_))));
}
