//! The home as programs see it: mounted for real, by root, through /dev/fuse.
//!
//! Each test mounts a home of its own and leaves nothing behind. Without root or /dev/fuse the tests say that
//! they are skipped.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test does")]

#[path = "home/acls.rs"]
mod acls;
#[path = "home/caching.rs"]
mod caching;
#[path = "home/data.rs"]
mod data;
#[path = "home/full.rs"]
mod full;
#[path = "home/lengths.rs"]
mod lengths;
#[path = "home/lives.rs"]
mod lives;
#[expect(dead_code, reason = "shared with tests that need more of it")]
#[path = "home/log.rs"]
mod log;
#[path = "home/mounted.rs"]
mod mounted;
#[path = "home/names.rs"]
mod names;
#[path = "home/owners.rs"]
mod owners;
#[path = "home/random.rs"]
mod random;
#[path = "home/reports.rs"]
mod reports;
#[path = "home/safety.rs"]
mod safety;
#[path = "home/space.rs"]
mod space;
#[path = "home/stores.rs"]
mod stores;
#[path = "home/two_mounts.rs"]
mod two_mounts;
#[path = "home/xattrs.rs"]
mod xattrs;
