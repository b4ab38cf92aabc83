//! Owns the two doors through which a KEK passes between the arena and the buffer of a key server's connection.
//!
//! It must not know the protocol. Flow: a key server's answer lies in a buffer that its owner wipes; [`Kek::from_wire`]
//! copies the key out of it, and [`Kek::to_wire`] into the one of a request.

use crate::KeyError;
use crate::arena::Arena;
use crate::keys::Kek;
use crate::keys::sealed::Bytes;

impl Kek {
    /// Bytes of a KEK on the wire.
    pub const WIRE_LEN: usize = Self::LEN;

    /// The KEK that a key server sent. The caller wipes `wire`, and hands it to nobody else.
    ///
    /// # Errors
    /// [`KeyError::WireLength`] unless it is exactly 32 bytes; [`KeyError::WireZero`] when all are zero, as no
    /// generator makes such a key, but a failed one leaves it; [`KeyError::Arena`].
    pub fn from_wire(arena: &Arena, wire: &[u8]) -> Result<Self, KeyError> {
        if wire.len() != Self::LEN {
            return Err(KeyError::WireLength { expected: Self::LEN, found: wire.len() });
        }
        // Every byte is looked at, so that the time says nothing of the key.
        if wire.iter().fold(0, |sum, byte| std::hint::black_box(sum | byte)) == 0 {
            return Err(KeyError::WireZero);
        }
        let mut slot = arena.slot(Self::LEN)?;
        slot.bytes_mut().copy_from_slice(wire);
        Ok(Self::of(slot))
    }

    /// Writes the KEK into the request that registers it at a key server. The caller wipes `wire`.
    ///
    /// # Errors
    /// [`KeyError::WireLength`] unless there is room for exactly 32 bytes; nothing is written then.
    pub fn to_wire(&self, wire: &mut [u8]) -> Result<(), KeyError> {
        if wire.len() != Self::LEN {
            return Err(KeyError::WireLength { expected: Self::LEN, found: wire.len() });
        }
        wire.copy_from_slice(self.bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::support::{arena, counting};
    use crate::{Kek, KeyError};

    #[test]
    fn a_key_comes_out_as_it_went_in() {
        let arena = arena();
        let sent = counting::<32>();
        let kek = Kek::from_wire(&arena, &sent).unwrap();
        let mut back = [0; 32];
        kek.to_wire(&mut back).unwrap();
        assert_eq!(back, sent);
        let other = kek.copy_to(&arena).unwrap();
        drop(kek);
        assert_eq!(other.check_value(), Kek::from_wire(&arena, &sent).unwrap().check_value());
    }

    #[test]
    fn other_lengths_and_zeros_are_refused() {
        let arena = arena();
        for length in [0, 16, 24, 31, 33, 64] {
            let error = Kek::from_wire(&arena, &vec![1; length]).unwrap_err();
            assert!(
                matches!(error, KeyError::WireLength { expected: 32, found } if found == length)
            );
        }
        assert!(matches!(Kek::from_wire(&arena, &[0; 32]), Err(KeyError::WireZero)));
        let mut last = [0; 32];
        last[31] = 1;
        let kek = Kek::from_wire(&arena, &last).unwrap();
        assert!(matches!(kek.to_wire(&mut [0; 31]), Err(KeyError::WireLength { .. })));
        assert_eq!(arena.usage().used, 64, "what was refused took no key memory");
    }
}
