//! Something that was just found out about the storage, and is believed for a moment.
//!
//! Owns the moment; must not know what was found. Others may change the storage, so nothing is believed for longer
//! than the kernel believes attributes in a mount that is shared. It saves a question for each request, not the
//! answer to the first.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long.
const MOMENT: Duration = Duration::from_secs(1);

/// A value that grows old.
#[derive(Debug, Default)]
pub(super) struct Recent<T>(Mutex<Option<(Instant, T)>>);

impl<T: Copy> Recent<T> {
    /// What was found, if that was a moment ago; else what `find` finds now. It must be a quick question: who else
    /// asks meanwhile waits for it.
    pub(super) fn get<E>(&self, find: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((since, value)) = *known
            && now.duration_since(since) < MOMENT
        {
            return Ok(value);
        }
        let value = find()?;
        *known = Some((now, value));
        Ok(value)
    }

    /// What was found is no longer so.
    pub(super) fn forget(&self) {
        self.change(|| ());
    }

    /// Changes what would be found. Who asks meanwhile waits, so that nothing of before is believed afterwards.
    pub(super) fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change();
        *known = None;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_question_is_asked_once_until_it_is_forgotten() {
        let (recent, asked) = (Recent::default(), std::cell::Cell::new(0));
        let ask = || {
            asked.set(asked.get() + 1);
            Ok::<_, ()>(asked.get())
        };
        assert_eq!((recent.get(ask), recent.get(ask)), (Ok(1), Ok(1)));
        recent.forget();
        assert_eq!(recent.get(ask), Ok(2));
        recent.forget();
        assert_eq!(recent.get(|| Err(())), Err(()), "a fault is nothing to remember");
        assert_eq!(recent.get(ask), Ok(3));
    }

    #[test]
    fn who_asks_during_a_change_finds_what_it_made() {
        let (recent, value) = (Recent::default(), AtomicU32::new(1));
        let ask = || recent.get(|| Ok::<_, ()>(value.load(Ordering::SeqCst)));
        assert_eq!(ask(), Ok(1));
        std::thread::scope(|scope| {
            let asking = recent.change(|| {
                let (began, begins) = std::sync::mpsc::channel();
                let asking = scope.spawn(move || {
                    began.send(()).unwrap();
                    ask()
                });
                begins.recv().unwrap();
                std::thread::sleep(Duration::from_millis(20));
                value.store(2, Ordering::SeqCst);
                asking
            });
            assert_eq!(asking.join().unwrap(), Ok(2));
        });
    }

    #[test]
    fn an_old_answer_is_asked_for_again() {
        let recent = Recent::default();
        let long_ago = Instant::now().checked_sub(MOMENT).unwrap();
        *recent.0.lock().unwrap() = Some((long_ago, 1));
        assert_eq!(recent.get(|| Ok::<_, ()>(2)), Ok(2));
    }
}
