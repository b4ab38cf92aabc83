//! Waiting with an end: every wait of the tests goes through here.

use std::time::{Duration, Instant};

/// How long a daemon may take for one step. Machines that run other builds at the same time are slow.
pub const STEP: Duration = Duration::from_secs(30);

/// How long a guest may take to boot and work under TCG.
pub const GUEST: Duration = Duration::from_secs(180);

/// How long a program on a mounted home may take: a database that is made, a repository that is packed.
pub const PROGRAM: Duration = Duration::from_secs(300);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is an answer, and gives it back.
///
/// # Panics
/// When there is none within `limit`; `what` says what was waited for.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Looks until it is true.
///
/// # Panics
/// When it is not within `STEP`.
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, STEP, || look().then_some(()));
}
