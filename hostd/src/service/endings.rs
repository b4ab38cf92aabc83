//! The last steps of a use of a VM, which storage that hangs may hold up.
//!
//! Owns who waits for them, and for how long. Must not know what the steps are. Flow: whoever ends a use hands the step
//! that touches the storage (to give a lease back, to unlock) to [`Endings::run`], which waits for a while only; whoever
//! begins a new use of the VM waits for what is left of the last one by [`Endings::wait`], so that a late step never
//! undoes what the new use has done.

use crate::fault::Fault;
use cryptfs::name::Name;
use hostd_api::error::ErrorCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

/// How long whoever ends a use waits. Storage that answers takes far less for a few small writes.
const END_WAIT: Duration = Duration::from_secs(5);

/// How long whoever begins a use waits for the end of the last one.
const BEGIN_WAIT: Duration = Duration::from_secs(10);

/// Stack of a thread that makes a few calls: the process locks its memory.
const STACK: usize = 256 * 1024;

/// The endings of one VM.
#[derive(Debug)]
pub(crate) struct Endings {
    vm: Name,
    /// How many are under way.
    open: Mutex<usize>,
    changed: Condvar,
}

/// One that is under way; counted until it is dropped.
struct UnderWay(Arc<Endings>);

impl Endings {
    /// Of the VM of this name, with nothing under way.
    pub(crate) fn new(vm: Name) -> Self {
        Self { vm, open: Mutex::new(0), changed: Condvar::new() }
    }

    /// Does `step` on a thread of its own, and waits until it is done or [`END_WAIT`] is over; it goes on then.
    pub(crate) fn run(self: &Arc<Self>, step: impl FnOnce() + Send + 'static) {
        *self.open() += 1;
        let under_way = UnderWay(Arc::clone(self));
        let (done, is_done) = channel::<()>();
        let work = move || {
            step();
            drop(under_way);
            // Told by the end of the channel.
            drop(done);
        };
        // A thread that cannot be made must not take the step with it.
        let work = Arc::new(Mutex::new(Some(work)));
        let take =
            |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
        let theirs = Arc::clone(&work);
        let thread = Builder::new().name(format!("end-{}", self.vm)).stack_size(STACK);
        let spawned = thread.spawn(move || {
            if let Some(work) = take(&theirs) {
                work();
            }
        });
        if spawned.is_err()
            && let Some(work) = take(&work)
        {
            work();
        }
        if is_done.recv_timeout(END_WAIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(
                "the storage of VM {} does not answer: what this host had of the VM is given back when it does, and \
                 other hosts find it in use until then",
                self.vm
            );
        }
    }

    /// Waits until nothing is under way.
    ///
    /// # Errors
    /// `in-use` when the storage does not let it end.
    pub(crate) fn wait(&self) -> Result<(), Fault> {
        let open = self.open();
        let waited = self.changed.wait_timeout_while(open, BEGIN_WAIT, |open| *open > 0);
        let (open, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *open == 0 {
            return Ok(());
        }
        Err(Fault::refused(
            ErrorCode::InUse,
            format!("the last use of VM {} has not ended, as its storage did not answer", self.vm),
            "bring its storage back, then try again in a moment",
        ))
    }

    /// The count changes by single statements, so a panic elsewhere leaves it right.
    fn open(&self) -> MutexGuard<'_, usize> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.open() -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::code;

    fn endings() -> Arc<Endings> {
        Arc::new(Endings::new("web01".parse().unwrap()))
    }

    #[test]
    fn a_step_is_done_when_run_returns() {
        let endings = endings();
        let (tell, told) = channel();
        endings.run(move || tell.send(()).unwrap());
        told.try_recv().unwrap();
        endings.wait().unwrap();
    }

    #[test]
    fn a_step_that_hangs_is_left_to_its_thread_and_holds_up_the_next_use() {
        let endings = endings();
        let (go_on, hung) = channel::<()>();
        let (tell, told) = channel();
        endings.run(move || {
            let _ = hung.recv();
            tell.send(()).unwrap();
        });
        assert_eq!(code(endings.wait()), ErrorCode::InUse);
        drop(go_on);
        endings.wait().unwrap();
        told.try_recv().unwrap();
    }

    #[test]
    fn a_step_that_panics_is_over() {
        let endings = endings();
        endings.run(|| panic!("on purpose"));
        endings.wait().unwrap();
    }
}
