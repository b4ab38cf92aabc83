//! Owns the views of arena memory: byte blocks and typed values.
//!
//! It must not know what is stored. Flow: [`Slot::take`] gets an exclusive range from the free list;
//! dropping wipes the range and gives it back.

use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use zeroize::Zeroize;

use super::free::GRANULE;
use super::{Arena, ArenaError, Shared};
use crate::stack::wiping_stack;

/// An exclusive block of arena memory, wiped when it is dropped.
pub struct Slot {
    shared: Arc<Shared>,
    range: Range<usize>,
    len: usize,
}

impl Slot {
    pub(super) fn take(shared: &Arc<Shared>, len: usize) -> Result<Self, ArenaError> {
        let mut free = shared.free_list();
        let range = free.take(len).ok_or(ArenaError::Full {
            wanted: len,
            used: free.used(),
            capacity: free.capacity(),
        })?;
        drop(free);
        Ok(Self { shared: Arc::clone(shared), range, len })
    }

    /// The block.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the range is inside the region, which `shared` keeps mapped and initialised (the
        // kernel gives zeroed pages). The free list gave the range to this slot alone, and `&self`
        // excludes `bytes_mut`, so nobody writes to it meanwhile.
        unsafe { slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }

    /// The block, for writing.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes this the only view of the range.
        unsafe { slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }

    /// The arena that the block belongs to.
    pub(crate) fn arena(&self) -> Arena {
        Arena { shared: Arc::clone(&self.shared) }
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: `range` came from the free list of this region, so its start is inside.
        unsafe { self.shared.region.base().add(self.range.start) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        self.shared.free_list().give_back(self.range.clone());
    }
}

/// A value of type `T` that lives in the arena (an expanded key schedule, for example).
pub(crate) struct Held<T> {
    slot: Slot,
    value: PhantomData<*const T>,
}

impl<T> Held<T> {
    /// Takes a slot and moves what `make` returns into it; the stack that `make` used is wiped.
    pub(crate) fn new(arena: &Arena, make: impl FnOnce() -> T) -> Result<Self, ArenaError> {
        const { assert!(align_of::<T>() <= GRANULE, "a granule must align the value") };
        let slot = arena.slot(size_of::<T>())?;
        let at = slot.start().cast::<T>();
        // SAFETY: the slot is `size_of::<T>()` bytes, exclusively ours, and aligned to GRANULE (the
        // region is page-aligned and ranges start at granules), which is at least T's alignment.
        wiping_stack(|| unsafe { at.write(make()) });
        Ok(Self { slot, value: PhantomData })
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` wrote a valid T there; the slot is exclusive and never handed out as bytes.
        unsafe { self.slot.start().cast::<T>().as_ref() }
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        // SAFETY: the value was written by `new` and is dropped once, here; the slot is wiped after.
        unsafe { self.slot.start().cast::<T>().drop_in_place() }
    }
}

// SAFETY: `Held<T>` owns a T as a Box does; `Slot` alone would make it Send and Sync for every T.
unsafe impl<T: Send> Send for Held<T> {}
// SAFETY: as above; `&Held<T>` gives `&T` only.
unsafe impl<T: Sync> Sync for Held<T> {}
