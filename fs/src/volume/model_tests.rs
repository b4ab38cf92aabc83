//! Random requests against a plain model: with both units and engines, over memory and files, with a
//! failure at any call, and with a power loss at the end.

use super::steps::{SIZE, Step, faulty, pattern, plaintext, read, step};
use super::{Fault, Geometry, Volume};
use crate::backing::direct_tests::direct;
use crate::backing::{Alignment, Backing, Fault as Plan, FaultyBacking, FileBacking, When};
use crate::testing::{TestKek, arena};
use crypto::{Dek, Engine, Unit};
use proptest::collection::vec;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use std::sync::Arc;

/// What a disk of the model lies on.
#[derive(Debug, Clone, Copy)]
enum On {
    File,
    /// A file past the page cache, by the file system's own alignment or by this one of the blocks.
    Direct(Option<usize>),
    Memory {
        punches: bool,
    },
}

fn on() -> impl Strategy<Value = On> {
    prop_oneof![
        Just(On::File),
        Just(On::Direct(None)),
        Just(On::Direct(Some(4096))),
        any::<bool>().prop_map(|punches| On::Memory { punches }),
    ]
}

/// A storage of `size` zero bytes; none, said aloud, where there is no direct I/O.
fn storage(size: u64, on: On) -> Option<Box<dyn Backing>> {
    Some(match on {
        On::File => {
            let file = tempfile::tempfile().unwrap();
            file.set_len(size).unwrap();
            Box::new(FileBacking::from(file))
        }
        On::Direct(block) => Box::new(direct(size, block)?),
        On::Memory { punches } => {
            let backing = FaultyBacking::new(size);
            if !punches {
                backing.refuse_punch();
            }
            Box::new(backing)
        }
    })
}

/// Checks that what is told to be zero is.
fn check_extents(volume: &Volume, model: &[u8]) {
    let mut at = 0;
    for extent in volume.extents(0, volume.size(), usize::MAX).unwrap() {
        let end = at + usize::try_from(extent.len).unwrap();
        assert!(!extent.zero || model[at..end].iter().all(|byte| *byte == 0), "{at}..{end}");
        at = end;
    }
    assert_eq!(at as u64, volume.size());
}

/// Runs the steps with a failure at the call of this number, if there are so many; tells whether there
/// were. A failure is an error of the right kind, changes no sector but those of its request, and is over
/// with the next request, unless it was a flush.
fn fail_at(steps: &[Step], number: u64, short: u64, errno: i32, block: Option<usize>) -> bool {
    let (volume, backing) = faulty(SIZE as u64, Unit::B512);
    if let Some(block) = block {
        backing.ask_for(Alignment::new(block, 512).unwrap());
    }
    let mut model = pattern(1, SIZE);
    volume.write(0, &mut model.clone()).unwrap();
    let planned = backing.calls() + number;
    backing.inject(Plan { when: When::Number(planned), on: None, errno, short });
    for step in steps {
        let struck_before = backing.calls() > planned;
        let result = step.run(&volume, &model);
        let struck = !struck_before && backing.calls() > planned;
        let now = plaintext(&backing, &volume);
        match result {
            Ok(()) => {
                assert!(!struck, "a failure was swallowed");
                step.apply(&mut model);
                step.accept(&mut model, &now);
            }
            Err(error) => {
                assert!(struck || matches!(step, Step::Flush), "{error}");
                let full = if errno == 28 { Fault::NoSpace } else { Fault::Io };
                assert_eq!(error.fault(), full);
                // Its own sectors may hold anything now, no other ones.
                model[step.sectors()].copy_from_slice(&now[step.sectors()]);
            }
        }
        assert!(now == model, "{step:?} changed what is not its own");
    }
    backing.calls() > planned
}

#[test]
fn each_call_may_fail() {
    let steps = [
        Step::Write { at: 100, len: 5000, fill: 3 },
        Step::Read { at: 513, len: 4000 },
        Step::Zero { at: 700, len: 3000, punch: true },
        Step::Write { at: 4096, len: 8192, fill: 9 },
        Step::Zero { at: 6000, len: 9000, punch: false },
        Step::Discard { at: 1000, len: 10_000 },
        Step::Write { at: 20_000, len: 10, fill: 7 },
        Step::Flush,
        Step::Read { at: 0, len: SIZE },
    ];
    for block in [None, Some(512), Some(4096)] {
        for (errno, short) in [(5, 0), (28, 0), (5, 700), (28, 1536)] {
            let mut number = 0;
            while fail_at(&steps, number, short, errno, block) {
                number += 1;
            }
            assert!(number > 20, "the steps take more than {number} calls");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn a_disk_is_what_was_written(
        steps in vec(step(), 1..40),
        unit in prop_oneof![Just(Unit::B512), Just(Unit::B4096)],
        engine in prop_oneof![Just(Engine::default()), Just(Engine::Portable)],
        on in on(),
    ) {
        let size = (SIZE as u64).next_multiple_of(unit.bytes() as u64);
        let geometry = Geometry { size, unit, read_only: false };
        let key = Dek::generate(&arena()).unwrap();
        let Some(backing) = storage(size, on) else { return Ok(()) };
        let volume = Volume::with_engine(backing, key, geometry, engine).unwrap();
        let mut model = vec![0; usize::try_from(size).unwrap()];
        for step in &steps {
            step.run(&volume, &model).unwrap();
            step.apply(&mut model);
            step.accept(&mut model, &read(&volume, 0, usize::try_from(size).unwrap()));
        }
        prop_assert_eq!(read(&volume, 0, model.len()), &model[..]);
        check_extents(&volume, &model);
        prop_assert_eq!(volume.backing.len().unwrap(), size);
    }

    #[test]
    fn a_failing_call_is_an_error_and_spares_the_neighbours(
        steps in vec(step(), 1..6),
        number in 0u64..16,
        short in 0u64..5000,
        errno in prop_oneof![Just(5), Just(28)],
        block in prop_oneof![Just(None), Just(Some(512)), Just(Some(4096))],
    ) {
        fail_at(&steps, number, short, errno, block);
    }

    #[test]
    fn a_power_loss_keeps_what_was_flushed_and_tears_at_sectors(
        steps in vec(step(), 1..30),
        kept in vec(any::<bool>(), 64),
        aligned in any::<bool>(),
    ) {
        let arena = arena();
        let kek = TestKek::new(&arena, "native/k");
        let blob = kek.kek.wrap(&Dek::generate(&arena).unwrap()).unwrap();
        let key = || kek.kek.open::<Dek>(&arena, &blob).unwrap();
        let size = (SIZE as u64).next_multiple_of(4096);
        let geometry = Geometry { size, unit: Unit::B4096, read_only: false };
        let backing = Arc::new(FaultyBacking::new(size));
        if aligned {
            backing.ask_for(Alignment::new(4096, 4096).unwrap());
        }
        let volume = Volume::open(Box::new(Arc::clone(&backing)), key(), geometry).unwrap();
        let mut model = vec![0; usize::try_from(size).unwrap()];
        // Everything that the disk was since the last flush.
        let mut past = vec![model.clone()];
        for step in &steps {
            step.run(&volume, &model).unwrap();
            step.apply(&mut model);
            step.accept(&mut model, &plaintext(&backing, &volume));
            if matches!(step, Step::Flush) {
                past.clear();
            }
            past.push(model.clone());
        }
        let choose = |change: usize, sector: u64| {
            kept[(change * 31 + usize::try_from(sector).unwrap() * 7) % kept.len()]
        };
        let image = FaultyBacking::with_image(backing.crash(choose));
        let after = Volume::open(Box::new(image), key(), geometry).unwrap();
        let after = read(&after, 0, model.len());
        for start in (0..model.len()).step_by(512) {
            let sector = start..start + 512;
            let known = past.iter().any(|then| then[sector.clone()] == after[sector.clone()]);
            prop_assert!(known, "sector {} was never like that", start / 512);
        }
    }
}
