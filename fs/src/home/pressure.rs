//! When the kernel must forget nodes, and who waits for that.
//!
//! Owns the limit of nodes, the marks below it and the sleep of the thread that sheds; must not know what a
//! node is. Each node holds a descriptor, and the kernel alone decides when to forget one, mostly never while
//! there is memory: so it is told to, before the descriptors of the process run out.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Descriptors kept for everything but nodes: the disks of the VM and their clients, open files and folders of the
/// home, the threads' devices, libraries. 1024 files of a home can be open, the rest is a few hundred.
const RESERVE: usize = 4096;

/// More nodes than this only cost memory, whatever the process may open.
const MOST: usize = 1 << 20;

/// How long a request waits that wants a new node while they are nearly used up: shedding is faster than that.
const BRAKE: Duration = Duration::from_millis(1);

/// The limit of nodes and the marks below it.
#[derive(Debug)]
pub(crate) struct Pressure {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// At the last new node; the thread that sheds looks at it again.
    nodes: usize,
    ended: bool,
}

impl Pressure {
    pub(crate) fn new(limit: usize) -> Pressure {
        Pressure { limit: limit.max(1), state: Mutex::default(), changed: Condvar::new() }
    }

    /// With what this process may open now.
    pub(crate) fn of_process() -> Pressure {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Pressure::new(nodes_for(limit))
    }

    /// Most nodes at one time.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// From so many nodes on, some are shed.
    pub(crate) fn mark(&self) -> usize {
        self.limit - self.limit / 4
    }

    /// Nodes shed at a time, so that the search for them pays.
    pub(crate) fn batch(&self) -> usize {
        (self.limit / 8).max(1)
    }

    /// From so many on, nobody takes nodes that could do without, and the others wait a moment.
    pub(crate) fn is_tight(&self, nodes: usize) -> bool {
        nodes >= self.limit - self.limit / 8
    }

    /// A moment for the thread that sheds. Requests never wait for it to get somewhere: it may need the lock of a
    /// folder that the kernel holds for the request, and its success is told by requests of the kernel.
    pub(crate) fn brake(&self, nodes: usize) {
        if self.is_tight(nodes) {
            std::thread::sleep(BRAKE);
        }
    }

    /// Notes a new node.
    pub(crate) fn grown(&self, nodes: usize) {
        if nodes >= self.mark() {
            self.state().nodes = nodes;
            self.changed.notify_all();
        }
    }

    /// Waits for too many nodes; `false` at the end.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state();
        while !state.ended && state.nodes < self.mark() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.nodes = 0;
        !state.ended
    }

    /// Sleeps; `false` at the end, at once.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, time, |state| !state.ended);
        !waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// Ends the thread that sheds.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nodes for a limit of descriptors; no limit is as good as the most.
fn nodes_for(descriptors: Option<u64>) -> usize {
    let descriptors =
        descriptors.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    descriptors.saturating_sub(RESERVE.min(descriptors / 2)).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_kept_and_never_takes_more_than_half() {
        assert_eq!(nodes_for(Some(20_000)), 20_000 - RESERVE);
        assert_eq!((nodes_for(Some(1024)), nodes_for(Some(0))), (512, 1));
        assert_eq!((nodes_for(None), nodes_for(Some(u64::MAX))), (MOST, MOST));
    }

    #[test]
    fn it_wakes_at_the_mark_and_at_the_end() {
        let pressure = Pressure::new(80);
        pressure.grown(59);
        pressure.grown(60);
        assert!(pressure.wait());
        assert!(pressure.is_tight(70) && !pressure.is_tight(69));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pressure.wait());
            pressure.end();
            assert!(!waiting.join().unwrap());
        });
        assert!(!pressure.pause(Duration::from_secs(3600)));
    }
}
