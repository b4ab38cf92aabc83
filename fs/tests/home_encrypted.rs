//! The same as `home`, with a home that stores names encrypted, and what there is only then.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test does")]

#[path = "home/strays.rs"]
mod strays;
#[path = "home/suite.rs"]
mod suite;

/// How the homes of these tests store names.
const NAMES: cryptfs::safe::Names = cryptfs::safe::Names::Encrypted;
