//! How many lines a log gets of what somebody else causes.
//!
//! Owns the count: a guest or a user can cause errors as fast as they can ask, and must not fill the host's log. It must
//! not know what is logged. Flow: [`LogQuota::admit`] before a line is written.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines in one [`PERIOD`]: enough to see what goes wrong, too few to fill a disk.
const LINES: u32 = 20;

/// After this time the count starts again.
const PERIOD: Duration = Duration::from_secs(60);

/// Counts the lines of one source.
#[derive(Debug, Default)]
pub struct LogQuota(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    /// When the period began; none yet.
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LogQuota {
    /// Whether one more line may be written; says how many were left out since the last one.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if count.since.is_none_or(|since| now.duration_since(since) >= PERIOD) {
            count.since = Some(now);
            count.lines = 0;
        }
        if count.lines < LINES {
            count.lines += 1;
            Some(std::mem::take(&mut count.left_out))
        } else {
            count.left_out += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_not_written() {
        let quota = LogQuota::default();
        let start = Instant::now();
        for _ in 0..LINES {
            assert_eq!(quota.admit(start), Some(0));
        }
        assert_eq!(quota.admit(start), None);
        assert_eq!(quota.admit(start), None);
        assert_eq!(quota.admit(start + PERIOD), Some(2));
        assert_eq!(quota.admit(start + PERIOD), Some(0));
    }
}
