//! Waiting for a request by looking again and again instead of sleeping.
//!
//! Owns when that pays and for how long. It must not know sockets. Being woken takes longer than a small request
//! (on a virtual machine, whose idle processors are given back to the host, several times longer), so after a client
//! has shown that it answers within [`WINDOW`], the next request is looked for that long. Flow:
//! [`Polling::watch`] before a receive that would sleep, [`Polling::slept`] after one that did; what is looked at
//! how often is bounded for the host as a whole by [`Budget`](super::budget::Budget).
//!
//! While a client has many small requests in flight, looking at once brings them one by one, each with system
//! calls and a reply of its own, on both sides. A short pause before the first look gathers them. Whether that
//! pays depends on the client, so both ways are tried now and then, and the faster one is kept.

use std::time::{Duration, Instant};

/// Longest time spent looking for one request.
const WINDOW: Duration = Duration::from_micros(50);

/// A client that was waited for no longer than this, most of which may have been the waking, is looked for.
const NEAR: Duration = Duration::from_micros(200);

/// A client that was silent for this long is not looked for until it has been [`NEAR`] again.
const LOST: Duration = Duration::from_micros(500);

/// After looking in vain so many times in a row, the next [`REST`] receives sleep at once.
const MISSES: u32 = 8;
const REST: u32 = 64;

/// Pause in which requests gather: half of what clients with 32 requests in flight need for all of them.
const GATHER: Duration = Duration::from_micros(15);

/// Requests of one trial; at 200,000 a second less than a millisecond.
const TRIAL: u32 = 128;

/// Requests until the next trial.
const SETTLED: u32 = 64 * TRIAL;

/// What a connection has learned about its client.
#[derive(Debug)]
pub(super) struct Polling {
    looking: Looking,
    pace: Pace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looking {
    /// It pays; so many times in a row it did not.
    On { misses: u32 },
    /// It does not, and is not tried again for so many receives.
    Off { rest: u32 },
}

impl Polling {
    pub(super) fn new() -> Self {
        Self { looking: Looking::Off { rest: 0 }, pace: Pace::new() }
    }

    /// When to look first and until when, if at all.
    pub(super) fn watch(&self, now: Instant) -> Option<Watch> {
        let first = now + self.pace.pause();
        matches!(self.looking, Looking::On { .. }).then(|| Watch { first, until: first + WINDOW })
    }

    /// Looking has found something.
    pub(super) fn found(&mut self) {
        self.looking = Looking::On { misses: 0 };
    }

    /// A receive, after looking in vain or without, took `time`.
    pub(super) fn slept(&mut self, time: Duration) {
        self.looking = match self.looking {
            _ if time > LOST => {
                self.pace.disturbed();
                Looking::Off { rest: 0 }
            }
            Looking::On { misses } if misses + 1 >= MISSES => Looking::Off { rest: REST },
            Looking::On { misses } => Looking::On { misses: misses + 1 },
            Looking::Off { rest: 0 } if time <= NEAR => Looking::On { misses: 0 },
            Looking::Off { rest } => Looking::Off { rest: rest.saturating_sub(1) },
        };
    }

    /// What was received held `requests`.
    pub(super) fn took(&mut self, requests: u32, now: Instant) {
        self.pace.took(requests, now);
    }
}

/// Instants between which a request is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    pub(super) first: Instant,
    pub(super) until: Instant,
}

/// Finds out whether a pause makes the client faster.
#[derive(Debug)]
struct Pace {
    phase: Phase,
    /// Requests since the phase began.
    requests: u32,
    since: Option<Instant>,
    /// Whether more than one request came at a time during the phase.
    many: bool,
    /// Nanoseconds that the trial without a pause took.
    without: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    TryWithout,
    TryWith,
    Settled { gather: bool },
}

impl Pace {
    fn new() -> Self {
        let phase = Phase::Settled { gather: false };
        Self { phase, requests: SETTLED - TRIAL, since: None, many: false, without: 0 }
    }

    fn pause(&self) -> Duration {
        match self.phase {
            Phase::TryWith | Phase::Settled { gather: true } => GATHER,
            Phase::TryWithout | Phase::Settled { gather: false } => Duration::ZERO,
        }
    }

    /// Something else than the pace has decided how long the phase took.
    fn disturbed(&mut self) {
        if !matches!(self.phase, Phase::Settled { .. }) {
            self.enter(Phase::TryWithout);
        }
    }

    fn took(&mut self, requests: u32, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.requests += requests;
        self.many |= requests > 1;
        let time = now.duration_since(since).as_nanos();
        match self.phase {
            Phase::TryWithout if self.requests >= TRIAL => {
                self.without = time;
                self.enter(Phase::TryWith);
            }
            Phase::TryWith if self.requests >= TRIAL => {
                let gather = time < self.without;
                self.enter(Phase::Settled { gather });
            }
            // One request at a time: there is nothing to gather.
            Phase::Settled { .. } if self.requests >= SETTLED && !self.many => {
                self.enter(Phase::Settled { gather: false });
            }
            Phase::Settled { .. } if self.requests >= SETTLED => self.enter(Phase::TryWithout),
            _ => {}
        }
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.requests, self.since, self.many) = (phase, 0, None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Duration = Duration::from_micros(5);

    /// Feeds one phase, with `with` and `without` as times of a request; returns the time at its end.
    fn feed(pace: &mut Pace, mut now: Instant, with: Duration, without: Duration) -> Instant {
        let phase = pace.phase;
        for _ in 0..=SETTLED {
            if pace.phase != phase {
                return now;
            }
            now += 2 * if pace.pause().is_zero() { without } else { with };
            pace.took(2, now);
        }
        panic!("the phase does not end: {phase:?}");
    }

    #[test]
    fn the_faster_pace_is_kept_and_tried_again() {
        let (mut pace, mut now) = (Pace::new(), Instant::now());
        for (with, without, gather) in [(EACH, 2 * EACH, true), (2 * EACH, EACH, false)] {
            for _ in 0..3 {
                now = feed(&mut pace, now, with, without);
            }
            assert_eq!(pace.phase, Phase::Settled { gather });
        }
    }

    #[test]
    fn one_request_at_a_time_is_never_held_up() {
        let (mut pace, mut now) = (Pace::new(), Instant::now());
        for _ in 0..3 * SETTLED {
            now += EACH;
            pace.took(1, now);
            assert_eq!(pace.pause(), Duration::ZERO);
        }
    }

    #[test]
    fn looking_begins_with_a_quick_client_and_ends_with_a_slow_one() {
        let (mut polling, now) = (Polling::new(), Instant::now());
        assert!(polling.watch(now).is_none());
        polling.slept(NEAR);
        let watch = polling.watch(now).unwrap();
        assert_eq!(watch.until - watch.first, WINDOW);
        polling.slept(LOST);
        assert!(polling.watch(now).is_some(), "once late is not lost");
        polling.slept(2 * LOST);
        assert!(polling.watch(now).is_none());
    }

    #[test]
    fn a_client_that_always_comes_too_late_is_rarely_looked_for() {
        let (mut polling, now, mut looks) = (Polling::new(), Instant::now(), 0);
        for _ in 0..1000 {
            looks += u32::from(polling.watch(now).is_some());
            polling.slept(2 * WINDOW);
        }
        assert!((MISSES..=1000 / 8).contains(&looks), "{looks}");
        polling.found();
        for _ in 1..MISSES {
            polling.slept(2 * WINDOW);
            assert!(polling.watch(now).is_some());
        }
    }
}
