//! The tests of a mounted home, each with a home of its own; the file that has this one says how names are stored.

mod acls;
mod caching;
mod data;
mod full;
mod lengths;
mod lives;
#[expect(dead_code, reason = "shared with tests that need more of it")]
pub(crate) mod log;
pub(crate) mod mounted;
mod names;
mod owners;
mod random;
mod reports;
mod safety;
mod space;
mod stores;
mod two_mounts;
mod xattrs;
