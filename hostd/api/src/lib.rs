//! Types that cross a process border: the control API of hostd, and the link between hostd and vmd.
//!
//! Owns the JSON shapes and the two clients. Must not know how a daemon does anything. A request of the
//! command line goes `client` -> HTTP on a Unix socket -> hostd; hostd goes `link` -> vmd.

mod cache;
pub mod client;
pub mod control;
pub mod error;
pub mod kms;
pub mod link;
pub mod types;
