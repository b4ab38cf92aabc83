//! Whether a server is asked now, or left alone for a while.
//!
//! Owns [`Breaker`] and every transition; it is pure, and is given the time. It must not know what a fault was.
//!
//! ```text
//!            failed                    the time is over: one is admitted
//!   Closed ---------> Open(until) -----------------------------> Probing
//!     ^                 ^                                          |  |
//!     |                 +----------------- failed -----------------+  |
//!     +------------------------------- succeeded ---------------------+
//! ```

use std::time::{Duration, Instant};

/// How long a server is left alone after its first fault: longer than a restart of its service, shorter than people notice.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// Longest pause. A server that is back is found after this at the latest.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What is thought of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// It answered last time.
    Closed,
    /// It did not, and is left alone.
    Open {
        /// Until then.
        until: Instant,
        /// Faults in a row.
        faults: u32,
    },
    /// Somebody is trying whether it is back.
    Probing {
        /// Faults in a row before that.
        faults: u32,
    },
}

impl Breaker {
    /// Whether to ask the server now. After a pause exactly one is told so, and becomes the probe.
    pub fn admits(&mut self, now: Instant) -> bool {
        match *self {
            Self::Closed => true,
            Self::Open { until, faults } if until <= now => {
                *self = Self::Probing { faults };
                true
            }
            Self::Open { .. } | Self::Probing { .. } => false,
        }
    }

    /// The server answered.
    pub fn succeeded(&mut self) {
        *self = Self::Closed;
    }

    /// The server did not answer. Each fault in a row doubles the pause.
    pub fn failed(&mut self, now: Instant) {
        let faults = match *self {
            Self::Closed => 0,
            // Several requests that were under way may fail; they are one fault.
            Self::Open { until, faults } if now < until => faults.saturating_sub(1),
            Self::Open { faults, .. } | Self::Probing { faults } => faults,
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << faults.min(10)).min(MAX_PAUSE);
        *self = Self::Open { until: now + pause, faults: faults.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_opens_and_one_probe_closes() {
        let now = Instant::now();
        let mut breaker = Breaker::Closed;
        assert!(breaker.admits(now));
        breaker.failed(now);
        assert!(!breaker.admits(now));
        let later = now + FIRST_PAUSE;
        assert!(breaker.admits(later), "the probe");
        assert!(!breaker.admits(later), "no second probe");
        breaker.succeeded();
        assert!(breaker.admits(later));
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut now = Instant::now();
        let mut breaker = Breaker::Closed;
        let mut pauses = Vec::new();
        for _ in 0..40 {
            breaker.failed(now);
            let Breaker::Open { until, .. } = breaker else { panic!("not open") };
            pauses.push((until - now).as_secs());
            now = until;
            assert!(breaker.admits(now));
        }
        assert_eq!(pauses[..6], [5, 10, 20, 40, 60, 60]);
        assert_eq!(pauses[39], 60);
    }

    #[test]
    fn requests_under_way_are_one_fault() {
        let now = Instant::now();
        let mut breaker = Breaker::Closed;
        for _ in 0..8 {
            breaker.failed(now);
        }
        assert_eq!(breaker, Breaker::Open { until: now + FIRST_PAUSE, faults: 1 });
    }
}
