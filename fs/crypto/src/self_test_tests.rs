//! Tests of the start-up test: it passes here, and a wrong engine does not.

use super::{SelfTestError, compare, known_answer, self_test};
use crate::keys::Dek;
use crate::support::arena;
use crate::xts::{Direction, Serial};
use crate::{Engine, Unit};

#[test]
fn passes_on_this_machine_and_leaves_nothing() {
    let arena = arena();
    self_test(&arena).unwrap();
    assert_eq!(arena.usage().used, 0);
}

#[test]
fn every_engine_gives_the_known_answer() {
    for &engine in Engine::available() {
        known_answer(&arena(), engine).unwrap();
    }
}

/// An engine with one wrong bit, in one direction, in the last block, must not pass.
#[test]
fn a_mismatch_is_refused() {
    let arena = arena();
    for unit in [Unit::B512, Unit::B4096] {
        for wrong in [Direction::Encrypt, Direction::Decrypt] {
            let key = Dek::generate(&arena).unwrap();
            let reference = Serial::new(&key, unit).unwrap();
            let right = Serial::new(&key, unit).unwrap();
            let refused = compare("broken", unit, &reference, |direction, sector, data| {
                right.run(direction, sector, data);
                if direction == wrong {
                    *data.last_mut().unwrap() ^= 1;
                }
                Ok(())
            });
            match refused {
                Err(SelfTestError::Mismatch { engine: "broken", unit: bytes, .. }) => {
                    assert_eq!(bytes, unit.bytes());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The classic mistake: 4096-byte units numbered 0, 1, 2 instead of 0, 8, 16.
#[test]
fn another_numbering_is_refused() {
    let arena = arena();
    let key = Dek::generate(&arena).unwrap();
    let reference = Serial::new(&key, Unit::B4096).unwrap();
    let refused = compare("numbered", Unit::B4096, &reference, |direction, sector, data| {
        reference.run(direction, sector / 8, data);
        Ok(())
    });
    assert!(matches!(refused, Err(SelfTestError::Mismatch { .. })));
}
