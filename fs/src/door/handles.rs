//! Numbers for what the kernel holds open.
//!
//! Owns the map from file handles to objects; must not know what they are.

use crate::home::HomeError;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Most handles of one kind at one time. Handles of one file share a descriptor, so the kernel's limit for a
/// process does not bound them.
const MAX_HANDLES: usize = 1 << 20;

#[derive(Debug)]
struct Table<T> {
    entries: HashMap<u64, Arc<T>>,
    next: u64,
}

/// Open objects by handle.
#[derive(Debug)]
pub(super) struct Handles<T> {
    table: RwLock<Table<T>>,
}

impl<T> Handles<T> {
    pub(super) fn new() -> Self {
        Handles { table: RwLock::new(Table { entries: HashMap::new(), next: 1 }) }
    }

    pub(super) fn insert(&self, object: Arc<T>) -> Result<u64, HomeError> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.entries.len() >= MAX_HANDLES {
            return Err(HomeError::Limit { what: "open handles", limit: MAX_HANDLES });
        }
        let handle = table.next;
        table.next += 1;
        table.entries.insert(handle, object);
        Ok(handle)
    }

    pub(super) fn get(&self, handle: u64) -> Result<Arc<T>, HomeError> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.entries.get(&handle).cloned().ok_or(HomeError::Invalid("unknown handle"))
    }

    /// Takes a handle out; the object is dropped by the caller, outside the lock.
    pub(super) fn remove(&self, handle: u64) -> Option<Arc<T>> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.entries.remove(&handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_not_reused() {
        let handles = Handles::new();
        let first = handles.insert(Arc::new(1)).unwrap();
        assert_eq!(*handles.get(first).unwrap(), 1);
        assert_eq!(handles.remove(first).as_deref(), Some(&1));
        let second = handles.insert(Arc::new(2)).unwrap();
        assert_ne!(first, second);
        assert!(handles.get(first).is_err());
    }
}
