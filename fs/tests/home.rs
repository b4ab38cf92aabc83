//! The home as programs see it: mounted for real, by root, through /dev/fuse.
//!
//! Each test mounts a home of its own and leaves nothing behind. Without root or /dev/fuse the tests say that
//! they are skipped.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test does")]

#[path = "home/suite.rs"]
mod suite;

/// How the homes of these tests store names.
const NAMES: cryptfs::safe::Names = cryptfs::safe::Names::Plain;
